"""The judge behind an endpoint, against a real HTTP server that misbehaves on schedule."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import email.utils
import io
import itertools
import json
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scripted_judge
from PIL import Image
from test_rewards_score import EXAMPLE, RIGHT, SIZE

from fgrpo_jax.reading.parsing import parse
from fgrpo_jax.reading.verdict import Verdict
from fgrpo_jax.records import ImageSize
from fgrpo_jax.rewards.judges import gate, pictures, prompts, server
from fgrpo_jax.rewards.judges.protocol import Judgement, Request
from fgrpo_jax.rewards.judges.settings import Server

PARSED = parse(RIGHT)
KEY = "sk-very-secret-1234567890"
QUICK: dict[str, Any] = {"timeout": 5.0, "deadline": 30.0, "backoff": 0.02, "retries": 3, "concurrency": 8}


def semantic(sentence: str = "The red circle is left of the blue square.", **more: Any) -> Request:
    return Request("semantic", EXAMPLE, PARSED, SIZE, sentence=sentence, **more)


def consistency() -> Request:
    return Request("consistency", EXAMPLE, PARSED, SIZE)


def many(count: int) -> list[Request]:
    return [semantic(f"Sentence number {index} about the red circle.") for index in range(count)]


@dataclasses.dataclass
class Asked:
    judgements: list[Judgement]
    server: scripted_judge.Judge
    seconds: float

    @property
    def errors(self) -> str:
        return " | ".join(judgement.error for judgement in self.judgements)


def make(**settings: Any) -> server.ServerJudge:
    """A judge of an endpoint; `frame`, `wording` and `concurrency` are the judge's own."""
    own = {name: settings.pop(name) for name in ("frame", "wording", "concurrency") if name in settings}
    return server.ServerJudge(Server(**settings), **own)


def ask(*plan: str, requests: list[Request] | None = None, check: bool = False, **settings: Any) -> Asked:
    """What came of requests to a server with this plan; 'server__name' is a setting of the server."""
    own = {name.removeprefix("server__"): settings.pop(name) for name in list(settings) if name.startswith("server__")}
    with scripted_judge.serve(scripted_judge.Judge(plan=plan, **own)) as scripted:
        chosen = {"url": scripted.url, "model": scripted_judge.MODEL, **QUICK, **settings}
        judge = make(**chosen)
        try:
            if check:
                judge.check()
            began = time.monotonic()
            out = judge.judge([semantic()] if requests is None else requests)
            return Asked(out, scripted, time.monotonic() - began)
        finally:
            judge.close()


# ------------------------------------------------------------------------------------------------------ a good server
def test_verdicts_come_in_the_order_of_the_requests() -> None:
    requests = [*many(20), consistency()]
    asked = ask("good", requests=requests, check=True, server__latency=0.02)
    words = {scripted_judge.words(body): scripted_judge.drawn(body) for body in asked.server.bodies}
    for request, judgement in zip(requests, asked.judgements, strict=True):
        shown = f"| {request.sentence}\n" if request.sentence else "Does the reasoning lead"
        (said,) = [verdict for text, verdict in words.items() if shown in text]
        assert judgement.verdict is not None and judgement.verdict.name == said
        assert judgement.how == "model" and (judgement.tokens_in, judgement.tokens_out) == (100, 2)
        assert 0.02 < judgement.seconds < 5
    assert len({judgement.verdict for judgement in asked.judgements}) > 2
    assert asked.server.most <= QUICK["concurrency"]


def test_what_is_sent() -> None:
    body = ask("good").server.bodies[0]
    assert (body["model"], body["temperature"], body["max_tokens"], body["stream"]) == ("scripted", 0, 16, False)
    picture, text = body["messages"][1]["content"]
    url = picture["image_url"]["url"]
    assert url.startswith("data:image/png;base64,") and "red circle is left" in text["text"]
    sent = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    np.testing.assert_array_equal(np.asarray(sent), EXAMPLE.images[0])
    (system, user) = ask("good", requests=[consistency()]).server.bodies[0]["messages"]
    assert isinstance(user["content"], str) and "image" in system["content"] and system["role"] == "system"


def test_words_of_the_users_own_are_the_only_turn_and_say_what_may_be_answered() -> None:
    """Figure 6 of the paper asks for YES or NO: of a third verdict nothing may come."""
    own = prompts.Wording(consistency="{question} {think_part} {answer_part} YES or NO?")
    asked = ask("good", requests=[consistency(), semantic()], wording=own)
    (turn,), usual = sorted((body["messages"] for body in asked.server.bodies), key=len)
    assert turn["role"] == "user" and turn["content"].endswith("YES or NO?") and len(usual) == 2
    (judgement,) = ask("good", server__answer=lambda _: "UNCERTAIN", requests=[consistency()], wording=own).judgements
    assert judgement.failed and "no verdict: 'UNCERTAIN'" in judgement.error
    assert (
        ask("good", server__answer=lambda _: "UNCERTAIN", requests=[consistency()]).judgements[0].verdict
        is Verdict.UNCERTAIN
    )


def test_images_are_sent_as_the_policy_saw_them_or_as_published() -> None:
    size = ImageSize(SIZE.width, SIZE.height, 2 * SIZE.width, SIZE.height)
    request = dataclasses.replace(semantic(), size=size)
    for image, width in (("processed", 2 * SIZE.width), ("original", SIZE.width)):
        body = ask("good", requests=[request], image=image).server.bodies[0]
        url = body["messages"][1]["content"][0]["image_url"]["url"]
        assert Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).size == (width, SIZE.height)


def test_images_are_encoded_once_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    encode = pictures.data_urls

    def watched(request: Request, **more: Any) -> list[str]:
        made.append(request.example.id)
        time.sleep(0.05)  # all of them ask before it is through
        return encode(request, **more)

    monkeypatch.setattr(pictures, "data_urls", watched)
    other = dataclasses.replace(EXAMPLE, id="other")
    requests = [*many(12), *(dataclasses.replace(request, example=other) for request in many(3))]
    asked = ask("good", requests=requests)
    assert all(not judgement.failed for judgement in asked.judgements) and made == [EXAMPLE.id, "other"]
    assert len({json.dumps(body["messages"][1]["content"][0]) for body in asked.server.bodies}) == 1


def test_an_image_of_megabytes_is_sent_whole() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), np.uint8)
    example = dataclasses.replace(EXAMPLE, images=(noise,))
    request = dataclasses.replace(semantic(), example=example, size=ImageSize(1200, 900, 1200, 900))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asked = ask("good", requests=[request])
    assert not asked.judgements[0].failed, asked.errors
    url = asked.server.bodies[0]["messages"][1]["content"][0]["image_url"]["url"]
    sent = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    np.testing.assert_array_equal(np.asarray(sent), noise)


def test_connections_are_kept_and_cookies_are_not() -> None:
    """A cookie of a balancer would send all that follows to one replica."""
    with scripted_judge.serve(scripted_judge.Judge(plan=("cookie",))) as scripted:
        named = scripted.url.replace("127.0.0.1", "localhost")  # cookies of bare addresses are seldom kept anyway
        judge = make(url=named, model="scripted", **QUICK)
        assert all(not judgement.failed for judgement in judge.judge(many(40)))
        judge.close()
    assert not any("Cookie" in headers for headers in scripted.headers)
    assert 1 <= scripted.connections <= QUICK["concurrency"]


def test_further_fields_and_fields_taken_out() -> None:
    body = ask("good", extra='{"max_tokens": null, "max_completion_tokens": 2000, "seed": 3}').server.bodies[0]
    assert "max_tokens" not in body and (body["max_completion_tokens"], body["seed"]) == (2000, 3)


def test_done_is_told_of_each_judgement_as_it_comes() -> None:
    told: dict[int, Judgement] = {}
    with scripted_judge.serve(scripted_judge.Judge(plan=("good", "chatty"))) as scripted:
        judge = make(url=scripted.url, model="scripted", **QUICK)
        out = judge.judge(many(6), done=told.__setitem__)
        judge.close()
        judge.close()
    assert [told[index] for index in range(6)] == out


# ---------------------------------------------------------------------------------------------------- what may pass
PASSING = ["status_429", "status_500", "status_503", "drop", "drop_midway", "truncated", "html", "slow", "no_http"]


@pytest.mark.parametrize("behaviour", [*PASSING, "trickle", "headers_trickle"])
def test_what_may_pass_is_tried_again(behaviour: str) -> None:
    asked = ask(behaviour, behaviour, "good", server__pause=4.0, server__retry_after=0, timeout=0.6)
    assert asked.judgements[0].verdict is not None, asked.errors
    assert len(asked.server.bodies) == 3 and asked.seconds < 4


@pytest.mark.parametrize("behaviour", ["status_500", "drop", "truncated", "slow"])
def test_what_does_not_pass_has_no_verdict(behaviour: str) -> None:
    asked = ask(behaviour, server__pause=1.0, retries=2, timeout=0.2)
    (judgement,) = asked.judgements
    assert judgement.failed and "attempts: 3" in judgement.error and len(asked.server.bodies) == 3


FINAL = {
    "chatty": "no verdict: 'The sentence is",
    "ambiguous": "no verdict: 'CORRECT or INCORRECT'",
    "empty": "an empty answer",
    "null": "an empty answer",
    "cut_off": "cut off at 16 tokens",
    "no_choices": "without one choice",
    "huge": "more than 2,000,000 bytes",
    "status_400": "status 400",
    "status_401": "status 401",
    "elsewhere": "status 307",
}


@pytest.mark.parametrize("behaviour", FINAL)
def test_what_another_attempt_would_repeat_is_asked_once_and_has_no_verdict(behaviour: str) -> None:
    asked = ask(behaviour, "good")
    assert asked.judgements[0].failed and FINAL[behaviour] in asked.errors
    assert len(asked.server.bodies) == 1


def test_emphasis_and_case_are_no_chatter() -> None:
    assert ask("decorated").judgements[0].verdict in (Verdict.CORRECT, Verdict.INCORRECT, Verdict.SKIP)


def test_one_failure_costs_no_other_request_its_verdict() -> None:
    asked = ask("good", "chatty", "status_400", "empty", requests=many(40))
    assert sum(not judgement.failed for judgement in asked.judgements) == 10
    assert all(isinstance(judgement, Judgement) for judgement in asked.judgements)


# ------------------------------------------------------------------------------------------------------- how it waits
@pytest.mark.parametrize("dated", [False, True])
def test_retry_after_holds_everything_back(dated: bool) -> None:
    """Whoever was told to wait, others wait too: they share a rate limit."""
    plan = ("status_429", *["good"] * 9)
    asked = ask(*plan, requests=many(6), concurrency=2, server__retry_after=2, server__dated=dated, server__latency=0.1)
    assert all(not judgement.failed for judgement in asked.judgements), asked.errors
    held = 0.9 if dated else 1.9  # a date has whole seconds
    early = [at for at in asked.server.times if at < asked.server.times[0] + held]
    assert len(early) <= 2, "no more than were under way when it was said"


def test_a_retry_after_beyond_the_deadline_fails_at_once() -> None:
    asked = ask("status_429", server__retry_after=3600)
    assert asked.judgements[0].failed and asked.seconds < 10 and len(asked.server.bodies) == 1


def test_pauses_grow_and_differ() -> None:
    asked = ask("status_500", backoff=0.1, retries=3, requests=many(4))
    came: dict[str, list[float]] = {}
    for body, at in zip(asked.server.bodies, asked.server.times, strict=True):
        came.setdefault(scripted_judge.words(body), []).append(at)
    first = []
    for times in came.values():
        waits = [after - before for before, after in itertools.pairwise(times)]
        first.append(waits[0])
        assert len(waits) == 3
        for attempt, wait in enumerate(waits):
            assert 0.05 * 2**attempt <= wait < 0.1 * 2**attempt + 2
    assert len(came) == 4 and max(first) - min(first) > 1e-4


def test_the_deadline_holds_over_all_attempts() -> None:
    asked = ask("slow", server__pause=1.0, timeout=0.3, deadline=0.8, retries=50)
    assert asked.judgements[0].failed and asked.seconds < 3 and len(asked.server.bodies) < 5


def test_the_rate_is_kept() -> None:
    asked = ask("good", requests=many(6), requests_per_minute=600)
    waits = [after - before for before, after in itertools.pairwise(sorted(asked.server.times))]
    assert min(waits) > 0.02 and asked.seconds >= 0.5


def test_a_server_that_fails_again_and_again_is_left_alone() -> None:
    asked = ask("status_500", requests=many(60), retries=0, concurrency=4)
    assert all(judgement.failed for judgement in asked.judgements)
    assert len(asked.server.bodies) < 16, "8 in a row, and what was under way"
    assert "not asked: the server failed 8 times in a row, the last time: status 500" in asked.errors


def test_after_its_pause_it_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "PATIENCE", 0.2)
    with scripted_judge.serve(scripted_judge.Judge(plan=[*["status_500"] * 8, "good"])) as scripted:
        judge = make(url=scripted.url, model="scripted", **QUICK | {"retries": 0})
        judge._gate = gate.Gate(0, enough=8)
        assert all(judgement.failed for judgement in judge.judge(many(8)))
        assert judge.judge([consistency()])[0].failed and len(scripted.bodies) == 8
        time.sleep(0.25)
        assert not judge.judge([consistency()])[0].failed
        judge.close()


def test_closing_breaks_off_what_is_under_way() -> None:
    with scripted_judge.serve(scripted_judge.Judge(plan=("slow",), pause=5.0)) as scripted:
        judge = make(url=scripted.url, model="scripted", **QUICK | {"timeout": 9, "deadline": 9})
        raised: list[BaseException] = []

        def wait() -> None:
            try:
                judge.judge([consistency()])
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.1)
        began = time.monotonic()
        judge.close()
        thread.join(timeout=2)
        assert time.monotonic() - began < 3 and len(raised) == 1


def test_retry_after_is_seconds_or_a_date() -> None:
    assert [gate.retry_after(value) for value in (None, "7", " 7 ", "soon", "-3", "")] == [0, 7, 7, 0, 0, 0]
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=30)
    assert 28 < gate.retry_after(email.utils.format_datetime(later, usegmt=True)) <= 30
    assert gate.retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0


# -------------------------------------------------------------------------------------------------- before the run
def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"the judge at http://127.0.0.1:9/v1 does not answer .* start the server"):
        checked("http://127.0.0.1:9/v1")


def checked(url: str, **settings: Any) -> None:
    judge = make(url=url, **{"model": "scripted", **QUICK, **settings})
    try:
        judge.check()
    finally:
        judge.close()


def test_a_model_that_is_not_served() -> None:
    with scripted_judge.serve(scripted_judge.Judge()) as scripted:
        checked(scripted.url)
        checked(scripted.url + "/")
        with pytest.raises(ValueError, match=r"does not serve 'other' but scripted; correct config.judge.server.model"):
            checked(scripted.url, model="other")
        with pytest.warns(UserWarning, match="gives no list of models"):
            checked(scripted.url + "/chat", model="other")


# -------------------------------------------------------------------------------------------------------- the key
@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("FGRPO_TEST_KEY", f" {KEY}\n")
    yield "FGRPO_TEST_KEY"


def test_the_key_travels_in_its_header_alone(key: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(0):
        asked = ask("status_401", "good", requests=many(2), key_env=key, check=True)
    assert {headers["Authorization"] for headers in asked.server.headers} == {f"Bearer {KEY}"}
    assert KEY not in json.dumps(asked.server.bodies)
    failed = [judgement for judgement in asked.judgements if judgement.failed]
    assert len(failed) == 1 and KEY not in failed[0].error and "bad Bearer ***" in failed[0].error, "it was sent back"
    assert KEY not in caplog.text
    judge = make(url=asked.server.url, model="scripted", key_env=key)
    assert KEY not in repr(judge.settings) + repr(dict(judge.identity)) + repr(judge)
    judge.close()


def test_a_key_that_is_missing_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FGRPO_TEST_KEY", raising=False)
    with pytest.raises(ValueError, match="FGRPO_TEST_KEY .* is not set"):
        checked("http://127.0.0.1:9/v1", key_env="FGRPO_TEST_KEY")
    for bad in ("two words", "schlüssel", "a\x00b"):
        monkeypatch.setattr(server.os, "environ", {"FGRPO_TEST_KEY": bad})
        with pytest.raises(ValueError, match="holds characters that no API key has") as found:
            checked("http://127.0.0.1:9/v1", key_env="FGRPO_TEST_KEY")
        assert bad not in str(found.value)
