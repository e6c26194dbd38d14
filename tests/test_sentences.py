"""Which sentences no judge is asked about, and what an idle beginning hides from nobody."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgrpo_jax.reading.dialects import DIALECTS
from fgrpo_jax.reading.sentences import TRIVIAL_PREFIXES, Trivial
from fgrpo_jax.reading.words import SEEN_WORDS, VISUAL_WORDS
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


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([*sorted(VISUAL_WORDS)[:60], "the", "is", "than", "of", "not", "one", "its"]), max_size=25)
)
def test_reading_is_total(words):
    text = " ".join(words)
    assert read(text) == read(text) and isinstance(TRIVIAL(text), bool)
