"""Which sentences no judge is asked about, and what the free readings make of wordings that are not the world's."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgrpo_jax.reading.dialects import DIALECTS
from fgrpo_jax.reading.sentences import TRIVIAL_PREFIXES, Trivial
from fgrpo_jax.reading.words import SEEN_WORDS, VISUAL_WORDS
from fgrpo_jax.rewards.wide import read_widely
from fgrpo_jax.world.grammar import read

TRIVIAL = Trivial()


@pytest.mark.parametrize(
    ("sentence", "trivial"),
    [
        ("Let me think.", True),
        ("This requires some care.", True),
        ("Hence it follows.", True),
        ("", True),
        ("Let me look at the left side of the image.", True),
        ("First, I need to find the red car.", True),
        ("So the answer is left.", True),
        ("The correct option is the red one.", True),
        ("Okay, so let's look at the picture.", True),
        ("The red car is parked.", False),
        ("A man holds an umbrella.", False),
        ("It is round.", False),
        # A claim can't hide behind a prefix.
        ("Let me see, the cup is on the left side.", False),
        ("I need to say that the cup is red.", False),
        ("Looking at the image, there is a red car.", False),
        ("The answer is B, since the car is red.", False),
        ("To answer: the car is red.", False),
        # What points is never trivial.
        ("Let me see <bbox>[1,2,3,4]</bbox>.", False),
        ("Hm <bbox>[1,2", False),
        ("Letters are not prefixes of letterheads.", True),
        ("Lettuce is green.", False),  # begins like 'let', which is none
    ],
)
def test_trivial_sentences(sentence, trivial):
    assert TRIVIAL(sentence) is trivial


def test_both_lists_can_be_replaced():
    own = Trivial(prefixes=("me thinks",), words=("gizmo",))
    assert own("The red car is left.") and not own("The gizmo works.")
    assert own("Me thinks the gizmo works.") and not own("Me thinks that the gizmo works.")
    assert Trivial(prefixes=(), words=()) == TRIVIAL
    assert VISUAL_WORDS < SEEN_WORDS and all(word == word.lower() for word in (*SEEN_WORDS, *TRIVIAL_PREFIXES))


def test_points_and_boxes_of_every_dialect_are_claims():
    assert TRIVIAL("So it is (12, 30).") and not TRIVIAL("So it is (12, 30).", dialect=DIALECTS["vigorl"])
    assert not TRIVIAL("So <box>[1,2,3,4]</box>.", dialect=DIALECTS["treevgr"])
    assert not TRIVIAL("So <sot>[0,0,1,1]<eot>.", dialect=DIALECTS["vgr"])
    assert not TRIVIAL('So {"bbox_2d": [1,2,3,4]}.', dialect=DIALECTS["vlm_r1"])


def test_an_idle_beginning_hides_no_claim_from_the_oracle():
    claim = read("The red circle is left of the blue square.").claims
    for lead in ("Let me see: ", "I will say ", "I must add that ", "We need to note that "):
        assert read(f"{lead}the red circle is left of the blue square.").claims == claim, lead
    for idle in ("Let me see where the red circle is.", "I need to check whether the red circle is left of it."):
        assert read(idle).understood and not read(idle).claims
    assert not read("I must deny that the red circle is left of the blue square.").understood


@pytest.mark.parametrize(
    ("sentence", "same"),
    [
        ("To the left of the blue square you find the red circle.", "The red circle is left of the blue square."),
        ("The blue square has the red circle on its left.", "The red circle is left of the blue square."),
        ("Of the red circle and the blue square, the right one is the red circle.",
         "The red circle is right of the blue square."),
        ("The red circle is lower in the picture than the blue square.", "The red circle is below the blue square."),
        ("The blue square is not as big as the red circle.", "The blue square is smaller than the red circle."),
        ("Nothing is nearer to the blue square than the red circle.", "The red circle is nearest to the blue square."),
        ("Everything else is farther from the blue square than the red circle is.",
         "The red circle is nearest to the blue square."),
        ("The blue square surrounds the red circle.", "The red circle is inside the blue square."),
        ("The red circle is flanked by the blue square and the green ring.",
         "The red circle is between the blue square and the green ring."),
        ("It isn't true that the red circle is above the blue square.", "The red circle is not above the blue square."),
        ("Counting the circles, I get three.", "There are 3 circles."),
        ("Wait, that's not right: there are 3 circles.", "There are 3 circles."),
        ("The red circle occupies <bbox>[1,2,3,4]</bbox>.", "The red circle is at <bbox>[1,2,3,4]</bbox>."),
    ],
)  # fmt: skip
def test_other_wordings_say_the_same(sentence, same):
    assert read_widely(sentence).understood and read_widely(sentence).claims == read(same).claims


@pytest.mark.parametrize(
    "sentence",
    [
        "No way is the red circle left of the blue square.",
        "The blue square is right next to the red circle.",
        "The red circle is above the blue square rather than below it.",
        "The red circle might be left of the blue square.",
        "Is the red circle further left than the blue square?",
        "I doubt the red circle sits further left than the blue square.",
        "Unlike the green ring, the red circle sits further left than the blue square.",
        "The red circle used to sit further left than the blue square.",
        "At least three circles can be seen.",
        "The red circle misses <bbox>[1,2,3,4]</bbox> and fills <bbox>[5,6,7,8]</bbox>.",
    ],
)
def test_what_may_mean_something_else_stays_dark(sentence):
    assert not read_widely(sentence).understood


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([*sorted(VISUAL_WORDS)[:60], "the", "is", "than", "of", "not", "one", "its"]), max_size=25)
)
def test_reading_is_total_and_steady(words):
    text = " ".join(words)
    assert read_widely(text) == read_widely(text) and isinstance(TRIVIAL(text), bool)
