"""Between scorer and judges: rules, then cache, then model; equal requests once; failures are masks and are counted."""

from __future__ import annotations

import dataclasses
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
import policies
import pytest
import scripted_judge
from test_rewards_score import BROKEN, EMPTY, EXAMPLE, IDLE, RIGHT, SIZE, WRONG

from fgrpo_jax.reading.parsing import parse
from fgrpo_jax.reading.verdict import Verdict
from fgrpo_jax.rewards.judges import prompts
from fgrpo_jax.rewards.judges.cache import Cache
from fgrpo_jax.rewards.judges.dispatch import Case, Dispatcher
from fgrpo_jax.rewards.judges.protocol import Done, Judgement, Request
from fgrpo_jax.rewards.judges.tally import Counts, FailureGuard, NoClaimWatch, Tally
from fgrpo_jax.rewards.score import RewardConfig, score
from fgrpo_jax.rewards.signals import Measure
from fgrpo_jax.training import judges, scoring, setup
from fgrpo_jax.world.oracle import Oracle

PHOTO = dataclasses.replace(EXAMPLE, scene=None, query=None)
"""The same question where nothing is known of the image but its pixels."""

C, S, YES, NO = Verdict.CORRECT, Verdict.SKIP, Verdict.YES, Verdict.NO
FAILED = Judgement(None, error="no answer")


def cheerful(request: Request) -> Judgement:
    """All is well."""
    return Judgement(YES if request.kind == "consistency" else C, tokens_in=10, tokens_out=1, seconds=0.5)


@dataclasses.dataclass
class Fake:
    """A model that answers as it is told to, and remembers what it was asked."""

    answer: Callable[[Request], Judgement] = cheerful
    latency: float = 0.0
    overlaps: bool = True
    asked: list[Request] = dataclasses.field(default_factory=list)
    identity: Mapping[str, str] = dataclasses.field(default_factory=lambda: {"backend": "fake", "model": "m"})

    def judge(self, requests: Sequence[Request], *, done: Done | None = None) -> list[Judgement]:
        self.asked += requests
        time.sleep(self.latency)
        out = []
        for index, request in enumerate(requests):
            out.append(self.answer(request))
            if done is not None:
                done(index, out[-1])
        return out

    def close(self) -> None:
        pass


def key(request: Request) -> bytes:
    return prompts.fingerprint(request, {"backend": "fake"}, frame="processed")


def dispatcher(fake: Fake, store: Cache | None = None, **more: object) -> Dispatcher:
    return Dispatcher(model=fake, store=store, key=key, **more)  # type: ignore[arg-type]


def scored(
    fake: Fake, *texts: str, example=PHOTO, store: Cache | None = None, judges: Dispatcher | None = None, **more
):
    judges = dispatcher(fake, store) if judges is None else judges
    signals, seen = score([example], [list(texts)], sizes=[SIZE], config=RewardConfig(), judges=judges, **more)
    return signals, seen, judges.tally.take()


# ------------------------------------------------------------------------------------------------------- who is asked
def test_the_model_is_asked_only_where_a_verdict_counts() -> None:
    """Right answers alone under the default masks; never for an empty reasoning, which entails nothing by rule."""
    fake = Fake()
    signals, seen, counts = scored(fake, RIGHT, WRONG, EMPTY, BROKEN, judges=dispatcher(fake, precheck=False))
    assert {request.parsed for request in fake.asked} == {parse(RIGHT)}
    assert [request.kind for request in fake.asked].count("consistency") == 1
    assert len(fake.asked) == 1 + len(parse(RIGHT).sentences)
    np.testing.assert_array_equal(signals.mask[:2, 0], [[1, 0, 1, 0], [1, 0, 0, 0]])
    np.testing.assert_array_equal(signals.values[:2, 0], [[1, 0, 0, 0], [1, 0, 0, 0]])
    assert seen["judge_failed"].sum() == 0 and (counts.rule, counts.model) == (1, len(fake.asked))


def test_other_masks_and_evaluation_ask_of_wrong_answers_too() -> None:
    every = Fake()
    scored(every, RIGHT, WRONG, judges=dispatcher(every, precheck=False), everyone=True)
    assert {request.parsed for request in every.asked} == {parse(RIGHT), parse(WRONG)}
    all_masks = Fake()
    measures = [Measure("consistency", "all"), Measure("semantic_grounding")]
    scored(all_masks, RIGHT, WRONG, judges=dispatcher(all_masks, precheck=False), measures=measures)
    assert {(r.kind, r.parsed == parse(WRONG)) for r in all_masks.asked} == {
        ("consistency", False), ("consistency", True), ("semantic", False)}  # fmt: skip
    none = Fake()
    scored(none, RIGHT, judges=dispatcher(none, precheck=False), measures=[Measure("spatial_grounding")])
    assert not none.asked


def test_rules_decide_what_is_clear() -> None:
    fake = Fake(lambda request: Judgement(NO if request.kind == "consistency" else S))
    clear = "<think>So the answer is A.</think><answer>A</answer>"
    vague = "<think>There is a thing.</think><answer>A</answer>"
    example = dataclasses.replace(PHOTO, answer="A")
    signals, _, counts = scored(fake, clear, vague, example=example)
    assert [r.parsed for r in fake.asked if r.kind == "consistency"] == [parse(vague)]
    np.testing.assert_array_equal(signals.values[0], [[1, 0]])
    asked = Fake(fake.answer)
    signals, *_ = scored(asked, clear, vague, example=example, judges=dispatcher(asked, precheck=False))
    np.testing.assert_array_equal(signals.values[0], [[0, 0]])
    assert counts.rule == 2, "the conclusion is a trivial sentence, too"


def test_trivial_sentences_are_skipped_without_asking() -> None:
    fake = Fake()
    judges = dispatcher(fake)
    _, seen, _ = scored(fake, IDLE, judges=judges)
    assert not [r for r in fake.asked if r.kind == "semantic"] and seen["skipped"].item() == 1
    assert seen["no_claim"].item() and seen["judged"].item()


def test_each_sentence_is_judged_after_those_before_it() -> None:
    fake = Fake()
    scored(fake, RIGHT)
    asked = [request for request in fake.asked if request.kind == "semantic"]
    sentences = parse(RIGHT).sentences
    assert [(r.before, r.sentence) for r in asked] == [(sentences[:i], s) for i, s in enumerate(sentences)]


def test_equal_requests_are_asked_once() -> None:
    fake = Fake()
    signals, _, counts = scored(fake, RIGHT, RIGHT, RIGHT, judges=dispatcher(fake, precheck=False))
    each = 1 + len(parse(RIGHT).sentences)
    assert len(fake.asked) == each and signals.mask[1].all()
    assert (counts.model, counts.cache, counts.tokens_in) == (each, 2 * each, 10 * each)


def test_the_oracle_needs_no_model() -> None:
    fake = Fake()
    judges = Dispatcher(oracle=Oracle(), model=fake, key=key)
    (opinion,) = judges.judge([Case(EXAMPLE, parse(RIGHT), SIZE)])
    assert not fake.asked and all(judgement.how == "rule" for judgement in opinion.judgements)


# ---------------------------------------------------------------------------------------------------- failed verdicts
def test_a_failed_verdict_is_a_mask_and_never_a_zero() -> None:
    fake = Fake(lambda request: FAILED if request.kind == "consistency" else cheerful(request))
    signals, seen, counts = scored(fake, RIGHT, EMPTY, judges=dispatcher(fake, precheck=False))
    np.testing.assert_array_equal(signals.mask[0], [[False, True]])
    assert signals.mask[1, 0, 0] and signals.values[1, 0, 0] == 1
    assert seen["judge_failed"].tolist() == [[1, 0]] and counts.failed == 1
    np.testing.assert_array_equal(seen["consistent_mask"], [[False, True]])


def test_one_failed_sentence_masks_the_grounding_of_its_response() -> None:
    """A share over the others would reward what confuses the judge."""
    last = parse(RIGHT).sentences[-1]
    fake = Fake(lambda request: FAILED if request.sentence == last else cheerful(request))
    signals, seen, _ = scored(fake, RIGHT, RIGHT.replace(last, "So it is."), judges=dispatcher(fake, precheck=False))
    np.testing.assert_array_equal(signals.mask[1], [[False, True]])
    assert seen["judge_failed"].tolist() == [[1, 0]]
    assert not seen["no_claim"].any() and seen["judged"].tolist() == [[False, True]], "it is not silent, it is unknown"
    weighed, _ = score([PHOTO], [[RIGHT]], sizes=[SIZE], judges=dispatcher(fake),
                       config=RewardConfig(weights={"semantic_grounding": 1.0}, no_claim="zero"))  # fmt: skip
    assert weighed.task.item() == 1.0 and not weighed.mask[1].any()


def test_a_judgement_is_a_verdict_or_an_error() -> None:
    with pytest.raises(ValueError, match="a verdict or an error text"):
        Judgement(None)
    with pytest.raises(ValueError, match="a verdict or an error text"):
        Judgement(C, error="but")


def test_a_model_that_miscounts_is_found_out() -> None:
    class Short(Fake):
        def judge(self, requests: Sequence[Request], *, done: Done | None = None) -> list[Judgement]:
            return super().judge(requests)[:-1]

    with pytest.raises(ValueError, match="gave .* judgements for"):
        scored(Short(), RIGHT)


# ----------------------------------------------------------------------------------------------------------- the cache
def test_what_was_asked_before_is_not_asked_again(tmp_path: Path) -> None:
    first, second = Fake(), Fake(lambda request: FAILED)
    one, _, _ = scored(first, RIGHT, IDLE, store=Cache(tmp_path / "judge.sqlite"))
    two, _, counts = scored(second, RIGHT, IDLE, store=Cache(tmp_path / "judge.sqlite"))
    assert first.asked and not second.asked and counts.model == 0 and counts.cache == len(first.asked)
    np.testing.assert_array_equal(one.values, two.values)
    np.testing.assert_array_equal(one.mask, two.mask)


def test_failures_are_not_kept(tmp_path: Path) -> None:
    store, fake = Cache(tmp_path / "c.sqlite"), Fake(lambda request: FAILED)
    scored(fake, RIGHT, store=store)
    again = Fake()
    signals, *_ = scored(again, RIGHT, store=store)
    assert len(again.asked) == len(fake.asked) and signals.mask[1].all()
    with pytest.raises(ValueError, match="is not kept"):
        store.put(b"k", FAILED)


def test_verdicts_are_kept_as_they_come(tmp_path: Path) -> None:
    """A run that dies with a batch half judged has kept that half."""

    class Dying(Fake):
        def judge(self, requests: Sequence[Request], *, done: Done | None = None) -> list[Judgement]:
            super().judge(requests[:2], done=done)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scored(Dying(), RIGHT, store=Cache(tmp_path / "c.sqlite"))
    fake = Fake()
    _, _, counts = scored(fake, RIGHT, store=Cache(tmp_path / "c.sqlite"))
    assert counts.cache == 2 and len(fake.asked) == counts.model > 0


def test_a_cache_gives_back_what_it_was_given(tmp_path: Path) -> None:
    store = Cache(tmp_path / "deep" / "c.sqlite", judge="fake: m")
    assert not store.path.parent.exists(), "nothing is written before it is used"
    assert store.get([b"a"]) == {} and store.get([]) == {}
    keys = [bytes([index // 256, index % 256]) for index in range(1200)]
    for index, name in enumerate(keys):
        store.put(name, Judgement(list(Verdict)[index % 6], confidence=0.25 if index % 2 else None, tokens_in=9))
    store.close()
    found = store.get([*keys, b"other"])
    assert len(found) == 1200 and found[keys[1]] == Judgement(list(Verdict)[1], how="cache", confidence=0.25)
    assert found[keys[6]].confidence is None
    store.close()


_WRITER = """
import sys
from pathlib import Path
from fgrpo_jax.rewards.judges.cache import Cache
from fgrpo_jax.rewards.judges.protocol import Judgement
from fgrpo_jax.reading.verdict import Verdict
store = Cache(Path(sys.argv[1]))
for index in range(100):
    store.put(f"{sys.argv[2]}-{index}".encode(), Judgement(Verdict.SKIP))
"""


def test_threads_and_processes_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    processes = [subprocess.Popen([sys.executable, "-c", _WRITER, str(path), name]) for name in "ab"]
    store = Cache(path)

    def write(name: str) -> None:
        for index in range(50):
            store.put(f"{name}-{index}".encode(), Judgement(C))
            store.get([f"{name}-{index}".encode()])

    threads = [threading.Thread(target=write, args=(name,)) for name in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait() for process in processes] == [0, 0]
    every = [f"{name}-{index}".encode() for name in "abxyz" for index in range(100)]
    assert len(store.get(every)) == 350
    store.close()


def test_a_file_that_is_no_cache_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, but long enough to have a header" * 10)
    with pytest.raises(ValueError, match="can't be used .* remove it or name another file"):
        Cache(tmp_path / "text").get([b"a"])
    other = sqlite3.connect(tmp_path / "other")
    other.execute("CREATE TABLE things (x)")
    other.close()
    with pytest.raises(ValueError, match="has format 0, this version reads 1"):
        Cache(tmp_path / "other").get([b"a"])


def test_a_cache_that_breaks_costs_money_and_not_the_run(tmp_path: Path) -> None:
    store = Cache(tmp_path / "c.sqlite")
    store.put(b"a", Judgement(C))
    store._open().execute("DROP TABLE verdicts")
    with pytest.warns(UserWarning, match="the run goes on without") as said:
        store.put(b"b", Judgement(C))
        store.put(b"c", Judgement(C))
        assert store.get([b"a"]) == {}
    assert len(said) == 1
    store.close()


# --------------------------------------------------------------------------------------------------------- in threads
def test_two_threads_do_not_ask_the_same() -> None:
    fake = Fake(latency=0.2)
    judges = dispatcher(fake, precheck=False)
    cases = [Case(PHOTO, parse(RIGHT), SIZE)]
    opinions = []
    threads = [threading.Thread(target=lambda: opinions.extend(judges.judge(cases))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    each = 1 + len(parse(RIGHT).sentences)
    assert len(fake.asked) == each and judges.tally.take().model == each
    assert {tuple(j.verdict for j in opinion.judgements) for opinion in opinions} == {(YES, *[C] * (each - 1))}


def test_an_exception_reaches_all_who_wait() -> None:
    def broken(request: Request) -> Judgement:
        raise RuntimeError("broken judge")

    judges = dispatcher(Fake(broken, latency=0.1))
    raised = []

    def run() -> None:
        try:
            judges.judge([Case(PHOTO, parse(RIGHT), SIZE)])
        except RuntimeError as error:
            raised.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=5)
    assert raised == ["broken judge"] * 3
    judges.model = Fake()
    (opinion,) = judges.judge([Case(PHOTO, parse(RIGHT), SIZE)])
    assert not any(judgement.failed for judgement in opinion.judgements), "and is forgotten"


class Prompt:
    first_size, sizes = SIZE, (SIZE,)


class Drawn:
    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        self.mask = np.array([[np.arange(200) < len(text) % 200 for text in group] for group in texts])
        self.finished = self.mask[..., -1] == 0


@pytest.mark.parametrize("overlaps", [True, False])
def test_scores_in_parts_are_those_of_the_whole(overlaps: bool) -> None:
    """Bit for bit, whatever order the parts are ready in."""
    texts = [[RIGHT, WRONG], [IDLE, RIGHT], [EMPTY, BROKEN], [WRONG, IDLE]]
    lag = {id(texts[row][0]): 0.3 * (4 - row) for row in range(4)}

    def slow(examples, texts, **settings):
        time.sleep(lag[id(texts[0][0])] if overlaps else 0)
        return score(examples, texts, **settings)

    scorer = scoring.Scorer(
        RewardConfig(window=200), dispatcher(Fake(overlaps=overlaps)), measures=[Measure("boxes")] * 2
    )
    began = time.monotonic()
    parts = [
        scorer.submit(slow, [PHOTO], [Prompt()], texts[row : row + 1], Drawn(texts[row : row + 1]))  # type: ignore
        for row in range(4)
    ]
    assert time.monotonic() - began < 1.2 or not overlaps, "submitting waits for nothing"
    joined = scoring.joined([part.result() for part in parts])
    whole = scorer.submit(score, [PHOTO] * 4, [Prompt()] * 4, texts, Drawn(texts)).result()  # type: ignore
    assert jax.tree.structure(joined) == jax.tree.structure(whole)
    for ours, theirs in zip(jax.tree.leaves(joined), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
    scorer.close()


def test_judging_goes_on_beside_sampling() -> None:
    """The judge of each part waits until the next part is being drawn: it would wait for ever, were they in turn."""
    words = ("big", "small", "tiny", "huge")
    drawing = [threading.Event() for _ in words]

    def patient(request: Request) -> Judgement:
        part = next(at for at, word in enumerate(words) if f" {word} " in request.parsed.think)
        beside = part + 1 == len(words) or drawing[part + 1].wait(timeout=60)
        return cheerful(request) if beside else Judgement(None, error="nothing was drawn beside it")

    scorer = scoring.Scorer(RewardConfig(), dispatcher(Fake(patient), precheck=False))
    waiting = []
    for event, word in zip(drawing, words, strict=True):
        event.set()
        texts = [[RIGHT.replace("The ", f"The {word} ", 1), WRONG]]
        waiting.append(scorer.submit(score, [PHOTO], [Prompt()], texts, Drawn(texts)))  # type: ignore
    signals, seen = scoring.joined([part.result() for part in waiting])
    assert signals.mask[0].sum() == 4 and seen["judge_failed"].sum() == 0
    scorer.close()


# ----------------------------------------------------------------------------------------------------------- the counts
def test_counts_become_metrics() -> None:
    tally = Tally()
    tally.add([Judgement(C, how="rule"), Judgement(C, how="cache"), FAILED])
    tally.add([Judgement(S, tokens_in=5, tokens_out=1, seconds=1.0)])
    assert tally.take().metrics() == {
        "judge/share_rule": 0.25, "judge/share_cache": 0.25, "judge/share_model": 0.5, "judge/requests": 2,
        "judge/failure_rate": 0.5, "judge/latency_p50": 0.5, "judge/latency_p95": pytest.approx(0.95),
        "judge/tokens_in": 5, "judge/tokens_out": 1, "judge/abstained": 0,
    }  # fmt: skip
    nothing = tally.take().metrics()
    assert nothing.pop("judge/requests") == 0 == nothing.pop("judge/abstained") and set(nothing.values()) == {None}
    assert Counts().metrics()["judge/failure_rate"] is None


def test_what_the_rules_leave_open_is_counted_and_is_no_failure() -> None:
    """Only where it counts: of wrong answers nobody would have been asked."""
    vague = "<think>There is a thing.</think><answer>{}</answer>"
    right, wrong = (vague.format(letter) for letter in (PHOTO.answer, "B" if PHOTO.answer == "A" else "A"))
    signals, seen, counts = scored(Fake(), right, right, wrong, judges=Dispatcher())
    assert not signals.mask[:2].any()
    assert (counts.abstained, counts.failed, counts.metrics()["judge/failure_rate"]) == (2, 0, None)
    assert seen["judge_abstained"].tolist() == [[1, 1, 1]] and not seen["judge_failed"].any()
    failing = Fake(lambda request: FAILED)
    _, seen, counts = scored(failing, right, judges=dispatcher(failing, precheck=False))
    assert counts.abstained == 0 < counts.failed and not seen["judge_abstained"].any()


def test_a_run_says_what_the_rules_cannot_judge(tiny_hf: Path) -> None:
    section = policies.config(tiny_hf).judge
    said = judges.masked_by_rules(section, [PHOTO], at="config.judge")
    assert said is not None and "masked and counted" in said and "config.judge.backend to 'local' or 'server'" in said
    assert judges.masked_by_rules(section, [PHOTO, EXAMPLE], at="config.judge") is None
    asks = dataclasses.replace(section, backend="server")
    assert judges.masked_by_rules(asks, [PHOTO], at="config.judge") is None


def test_the_world_is_not_needed_where_nobody_asks_about_it(tiny_hf: Path, tmp_path: Path) -> None:
    config = policies.config(tiny_hf)
    assert judges.judges(config, None, config.judge, tmp_path).oracle is not None  # type: ignore[arg-type]
    elsewhere = dataclasses.replace(config, data=dataclasses.replace(config.data, source="nlvr", path="x"))
    assert judges.judges(elsewhere, None, config.judge, tmp_path).oracle is None  # type: ignore[arg-type]
    sets = dataclasses.replace(elsewhere, eval=dataclasses.replace(config.eval, sets=("mmvp", "world:test")))
    assert judges.judges(sets, None, config.judge, tmp_path).oracle is not None  # type: ignore[arg-type]


def test_too_many_failures_in_a_window() -> None:
    guard = FailureGuard(most=0.2, least=5, window=3)
    assert [guard.add(2, 10), guard.add(2, 10), guard.add(1, 10)] == [None] * 3, "5 of 30"
    assert guard.add(4, 10) is not None, "7 of 30"
    assert "7 of 30 requests of the last 3 steps (23%, the limit is 20%)" in guard.add(2, 10)  # type: ignore[operator]
    assert FailureGuard(most=0.2, least=5, window=3).add(4, 4) is None, "too few to say"
    assert FailureGuard(most=0.0, least=1, window=1).add(0, 10) is None
    assert FailureGuard(most=1.0, least=1, window=1).add(10, 10) is None


def test_a_warning_when_claims_vanish() -> None:
    steady, rising, quiet = NoClaimWatch(window=3), NoClaimWatch(window=3), NoClaimWatch(window=3)
    assert not any(steady.add(share) for share in [0.1, None, 0.12, 0.1, 0.15, 0.15, 0.15, 0.19])
    said = [rising.add(share) for share in [0.1, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.3]]
    assert [text is not None for text in said] == [False] * 5 + [True, False, False], "once"
    assert "from 10.0% to 23.3%" in said[5]  # type: ignore[operator]
    assert not any(quiet.add(share) for share in [0.0, 0.0, 0.0, 0.01, 0.02, 0.03, 0.04]), "twice nothing is nothing"


# ----------------------------------------------------------------------------------------------------- from the config
def test_who_judges_is_said_by_the_config(tiny_hf: Path, tmp_path: Path) -> None:
    """Each backend with its cache and its frame; evaluation by the judge of training, or by its own."""
    config = policies.config(tiny_hf)
    assert judges.judges(config, None, config.judge, tmp_path).about == {"backend": "rules"}  # type: ignore[arg-type]
    silent = policies.config(tiny_hf, judge__backend="none", constraints__semantic_grounding__enabled=False)
    assert judges.judges(silent, None, silent.judge, tmp_path).about == {"backend": "none"}  # type: ignore[arg-type]
    with scripted_judge.serve(scripted_judge.Judge()) as scripted:
        fields = {"judge__backend": "server", "judge__server__url": scripted.url, "judge__server__model": "scripted"}
        served = policies.config(tiny_hf, **fields, judge__frame="thousand")
        train = judges.scorer(served, None, tmp_path, purpose="train")  # type: ignore[arg-type]
        shared = judges.scorer(served, None, tmp_path, purpose="eval", shared=train.judges)  # type: ignore[arg-type]
        assert shared.judges is train.judges and train.judges.about["model"] == "scripted"
        assert (
            train.judges.about["frame"] == "thousand" and train.judges.about["prompt_version"] == prompts.PROMPT_VERSION
        )
        assert train.judges.store.path == tmp_path / "judge.sqlite"  # type: ignore[union-attr]
        assert not list(tmp_path.iterdir())
        own = policies.config(tiny_hf, **fields, eval__judge__backend="rules")
        other = judges.scorer(own, None, tmp_path, purpose="eval", shared=train.judges)  # type: ignore[arg-type]
        assert other.judges.about == {"backend": "rules"}
        train.close()
    with pytest.raises(ValueError, match="does not answer"):
        judges.judges(served, None, served.judge, tmp_path)  # type: ignore[arg-type]


def test_images_travel_where_a_server_is_to_see_them(tiny_hf: Path) -> None:
    policy = policies.policy(policies.config(tiny_hf))
    url = {"server__url": "http://localhost:8000/v1", "server__model": "m", "backend": "server"}
    for at, kept in (("judge__", True), ("eval__judge__", True), ("", False)):
        config = policies.config(tiny_hf, **({f"{at}{name}": value for name, value in url.items()} if at else {}))
        assert setup.encoder(config, policy).keep_images is kept
