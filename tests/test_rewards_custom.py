"""Rewards of the user's own: what they are given and may return, how they fail, and that None is never a number."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import http.server
import json
import math
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import policies
import pytest
import runs
from test_rewards_score import EMPTY, EXAMPLE, IDLE, RIGHT, SIZE, WRONG

from fgrpo_jax import train
from fgrpo_jax.config import load as configs
from fgrpo_jax.configs import default
from fgrpo_jax.fgrpo import advantages, multipliers
from fgrpo_jax.rewards import custom as module
from fgrpo_jax.rewards.custom import Custom, CustomRewards, gather, resolve, signal
from fgrpo_jax.rewards.score import RewardConfig, score
from fgrpo_jax.rewards.signals import SIGNALS, Measure
from fgrpo_jax.rows import read_rows
from fgrpo_jax.training import judges, scoring, setup

OTHER = dataclasses.replace(EXAMPLE, id="other")
TEXTS = [[RIGHT, WRONG, EMPTY, IDLE], [WRONG, WRONG, RIGHT, EMPTY]]


def made(function: Callable[..., Any], *, name: str = "mine", **declared: Any) -> Custom:
    found = function if isinstance(function, Custom) else signal("a test", **declared)(function)
    return dataclasses.replace(found, name=name, path=f"tests.rewards:{name}")


@pytest.fixture
def run() -> Iterator[Callable[..., Any]]:
    """Scores TEXTS with functions, each weighed 1 and bounded; closes what was started."""
    started = []

    def scored(*functions: Custom, measures: Sequence[Measure] = (), **settings: Any) -> Any:
        own = CustomRewards(functions, **{"concurrency": 8, "timeout": 20.0, **settings})
        started.append(own)
        config = RewardConfig(weights={one.name: 1.0 for one in functions}, custom=own)
        bounded = measures or [Measure(one.name) for one in functions]
        lengths, finished = np.arange(8).reshape(2, 4), np.ones((2, 4), bool)
        return score(
            *([EXAMPLE, OTHER], TEXTS),
            sizes=[SIZE] * 2,
            config=config,
            measures=bounded,
            lengths=lengths,
            finished=finished,
        )

    yield scored
    for one in started:
        one.close()
        one.close()


# ------------------------------------------------------------------------------------------------ what they are given
def test_a_batch_is_lists_of_one_length_and_values_come_back_in_place(run) -> None:
    seen: dict[str, Any] = {}

    def numbered(examples, texts, parsed, metadata):
        seen.update(examples=examples, texts=texts, parsed=parsed, metadata=metadata)
        return [10 * one.prompt + one.member for one in metadata]

    signals, figures = run(made(numbered))
    np.testing.assert_array_equal(signals.values[0], [[0, 1, 2, 3], [10, 11, 12, 13]])
    assert signals.mask.all() and signals.values.dtype == np.float32
    assert [e.id for e in seen["examples"]] == [EXAMPLE.id] * 4 + ["other"] * 4 and seen["texts"] == [
        *TEXTS[0],
        *TEXTS[1],
    ]
    assert seen["parsed"][0].answer is not None and seen["parsed"][2].sentences == ()
    facts = seen["metadata"][5]
    assert (facts.prompt, facts.member, facts.tokens, facts.finished, facts.size) == (1, 1, 5.0, True, SIZE)
    assert [one.judged.accuracy for one in seen["metadata"]] == [1, 0, 1, 1, 0, 0, 1, 1]
    np.testing.assert_array_equal(figures["custom/mine"], signals.values[0])


def test_weights_add_to_the_task_reward_and_none_adds_nothing(run) -> None:
    plain, _ = score([EXAMPLE, OTHER], TEXTS, sizes=[SIZE] * 2, config=RewardConfig())
    signals, figures = run(made(lambda metadata, **_: [None if one.member == 1 else 3 for one in metadata]))
    np.testing.assert_allclose(signals.task - plain.task, [[3, 0, 3, 3]] * 2)
    np.testing.assert_array_equal(signals.mask[0], [[True, False, True, True]] * 2)
    np.testing.assert_array_equal(signals.values[0], [[3, 0, 3, 3]] * 2)
    assert np.isnan(figures["custom/mine"][:, 1]).all()
    assert scoring.custom_means(figures) == {"reward/custom/mine": 3.0}
    none, figures = run(made(lambda texts, **_: [None] * len(texts)))
    assert not none.mask.any() and scoring.custom_means(figures) == {"reward/custom/mine": None}
    np.testing.assert_array_equal(none.task, plain.task)


def test_right_answers_only_where_it_is_declared(run) -> None:
    ones = made(lambda texts, **_: [1.0] * len(texts), correct_only=True)
    signals, _ = run(ones, measures=[Measure("mine"), Measure("mine", "all")])
    np.testing.assert_array_equal(signals.mask[0], [[1, 0, 1, 1], [0, 0, 1, 1]])
    assert signals.mask[1].all()
    plain, _ = score([EXAMPLE, OTHER], TEXTS, sizes=[SIZE] * 2, config=RewardConfig())
    np.testing.assert_array_equal(signals.task - plain.task, signals.mask[0])


def test_only_what_is_read_is_called() -> None:
    def never(**_):
        raise AssertionError("called for nothing")

    own = CustomRewards([made(never)])
    config = RewardConfig(custom=own, weights={"mine": 0.0})
    score([EXAMPLE], [[RIGHT]], sizes=[SIZE], config=config)
    assert own.signals.keys() - SIGNALS.keys() == {"mine"}
    with pytest.raises(ValueError, match=r"unknown constraints \['mine'\]"):
        score([EXAMPLE], [[RIGHT]], sizes=[SIZE], config=RewardConfig(), measures=[Measure("mine")])


def test_one_response_alone() -> None:
    own = CustomRewards([made(lambda texts, **_: [len(text) for text in texts])])
    signals, figures = score([EXAMPLE], [[RIGHT]], sizes=[SIZE], config=RewardConfig(weights={"mine": 1.0}, custom=own))
    assert figures["custom/mine"].item() == len(RIGHT) and signals.task.item() == 1 + len(RIGHT)


# --------------------------------------------------------------------------------------------- None is never a number
def none_is_masked(run: Callable[..., Any]) -> None:
    """The mean that the multiplier answers to, and the advantages, are those of the values 1, 0.5 and 0 alone."""
    values = [1.0, None, 0.5, 0.0]
    signals, _ = run(made(lambda metadata, **_: [values[one.member] for one in metadata]))
    mean, applicable = multipliers.constraint_means(signals.values, signals.mask)
    assert mean.tolist() == [0.5] and applicable.tolist() == [6]
    found = advantages.group_normalise(signals.values[0], signals.mask[0])
    np.testing.assert_allclose(found, [[1, 0, 0, -1]] * 2, atol=1e-5)


def test_none_never_enters_a_mean_and_a_zero_in_its_place_would_be_seen(run, monkeypatch) -> None:
    none_is_masked(run)
    right = module._number
    monkeypatch.setattr(module, "_number", lambda *args: 0.0 if args[-1] is None else right(*args))
    with pytest.raises(AssertionError):
        none_is_masked(run)


# --------------------------------------------------------------------------------------------------- how they may fail
def returning(value: Any) -> Callable[..., Any]:
    """Ones, but `value` for the second response to the second example."""
    return lambda texts, **_: [value if row == 5 else 1.0 for row in range(len(texts))]


BAD = {
    "text": (returning("high"), r"returned 'high' for response 1 to example 'other', a str; return a number, or None"),
    "nan": (returning(math.nan), r"returned nan for response 1 to example 'other', which is not finite"),
    "inf": (returning(-math.inf), "returned -inf for response 1 to example 'other', which is not finite"),
    "too large for float32": (returning(1e39), r"1e\+39 .* not finite in float32"),
    "a list": (returning([1.0]), r"returned \[1.0\] for response 1 to example 'other', a list"),
    "complex": (returning(1j), "a complex"),
    "array": (returning(np.ones(2)), "a ndarray; return a number"),
    "above": (returning(2.5), r"returned 2.5 for response 1 .*, outside its declared range \[-2, 2\]"),
    "short": (
        lambda texts, **_: [1.0],
        r"returned 1 values for a batch of 8 responses to 2 examples \('.*', 'other'\)",
    ),
    "dict": (lambda texts, **_: dict.fromkeys(texts, 1.0), "returned a dict for a batch of 8 responses"),
    "number": (lambda **_: 1.0, "returned a float for a batch"),
    "nothing": (lambda **_: None, "returned a NoneType for a batch of 8"),
    "generator": (lambda texts, **_: (1.0 for _ in texts), "returned a generator"),
    "matrix": (lambda texts, **_: np.ones((len(texts), 1)), "a ndarray; return a number"),
    "coroutine": (lambda **_: asyncio.sleep(0), "returned a coroutine; define it with 'async def'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_number_or_none_is_an_error(case: str, run) -> None:
    function, message = BAD[case]
    with pytest.raises(ValueError, match=r"reward function 'tests\.rewards:mine' .*" + message):
        run(made(function, low=-2, high=2))


def test_numbers_of_every_kind_will_do(run) -> None:
    kinds = [1, 1.0, True, np.float32(1), np.float64(1), np.int64(1), np.bool_(True), np.float16(1)]
    for returned in (kinds, tuple(kinds), np.ones(8), np.ones(8, bool)):
        signals, _ = run(made(lambda returned=returned, **_: returned))
        np.testing.assert_array_equal(signals.values[0], np.ones((2, 4)))


def test_an_exception_names_function_batch_and_line(run) -> None:
    def breaks(examples, **_):
        return [1 / (one.id != "other") for one in examples]

    line = breaks.__code__.co_firstlineno + 1
    batch = r"a batch of 8 responses to 2 examples \('.*', 'other'\)"
    message = rf"'tests\.rewards:mine' failed on {batch}: ZeroDivisionError: .*\(.*\.py:{line}\)"
    with pytest.raises(ValueError, match=message) as caught:
        run(made(breaks))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)

    async def late(examples, **_):
        await asyncio.sleep(0)
        return breaks(examples)

    with pytest.raises(ValueError, match=message):
        run(made(late))


# --------------------------------------------------------------------------------------------------------- async ones
def test_async_functions_run_together_and_no_more_than_allowed(run) -> None:
    """Five calls in threes: twice 0.1 s and not five times; never more than three under way."""
    running, most = 0, 0

    def waiting(name: str) -> Custom:
        async def wait(texts, **_):
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.1)
            running -= 1
            return [None if not text else 1.0 for text in texts]

        return made(wait, name=name)

    began = time.perf_counter()
    signals, _ = run(*(waiting(f"w{number}") for number in range(5)), concurrency=3)
    assert most == 3 and 0.2 <= time.perf_counter() - began < 0.45
    assert signals.mask.all()


def test_a_call_that_takes_too_long_ends_the_run_and_not_its_patience(run) -> None:
    async def forever(texts, **_):
        await asyncio.sleep(60)

    async def its_own(texts, **_):
        raise TimeoutError("the service's")

    began = time.perf_counter()
    with pytest.raises(ValueError, match=r"took more than 0\.05 s for a batch of 8 .*config\.rewards\.custom_timeout"):
        run(made(forever), timeout=0.05)
    assert time.perf_counter() - began < 5
    with pytest.raises(ValueError, match=r"failed on a batch of 8 .*: TimeoutError: the service's"):
        run(made(its_own))


def test_gather_keeps_order_and_limit() -> None:
    under_way, most = 0, 0

    async def one(number: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001 * (5 - number % 5))
        under_way -= 1
        return number

    assert asyncio.run(gather(map(one, range(20)), limit=4)) == list(range(20)) and most == 4


def test_from_several_threads_one_loop(run) -> None:
    loops = set()

    async def where(texts, **_):
        loops.add(id(asyncio.get_running_loop()))
        return [1.0] * len(texts)

    own = CustomRewards([made(where)])
    config = RewardConfig(weights={"mine": 1.0}, custom=own)
    threads = [
        threading.Thread(target=score, args=([EXAMPLE], [[RIGHT]]), kwargs={"sizes": [SIZE], "config": config})
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    own.close()
    assert len(loops) == 1 and not any(thread.name == "custom-rewards" for thread in threading.enumerate())


# ---------------------------------------------------------------------------------------------------- by import path
@pytest.fixture
def package(tmp_path: Path, monkeypatch) -> str:
    """The name of a module of the user's own that can be imported."""
    name = f"rewards_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        "from fgrpo_jax.rewards.custom import signal\n"
        "def politeness(texts, **_):\n    return [1.0] * len(texts)\n"
        "@signal('a share', low=0, high=1)\ndef share(texts, parsed, **_):\n    return [0.5] * len(texts)\n"
        "class Kept:\n    @staticmethod\n    def inner(**_):\n        return []\n"
        "def narrow(texts):\n    return []\n"
        "number = 3\n"
    )
    (tmp_path / f"{name}_broken.py").write_text("x = 1\nraise RuntimeError('on import')\n")
    (tmp_path / f"{name}_needs.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_functions_are_found_by_path(package: str) -> None:
    found = resolve("politeness", f"{package}:politeness")
    assert (found.signal.low, found.signal.high) == (-math.inf, math.inf)
    assert (
        resolve("share", f"{package}:share").signal == dataclasses.replace(resolve("share", f"{package}:share").signal)
        or resolve("share", f"{package}:share").signal.high == 1
    )
    assert resolve("deep", f"{package}:Kept.inner").function() == []


@pytest.mark.parametrize(
    ("name", "path", "message"),
    [
        ("mine", "nowhere", "is no import path; write 'package.module:function'"),
        ("mine", "nowhere:f", r"there is no module 'nowhere'; run the command from the folder .* PYTHONPATH"),
        ("mine", "json.nowhere:f", r"there is no module 'json\.nowhere'"),
        ("mine", "{}_broken:f", r"importing '.*_broken' failed: RuntimeError: on import \(.*_broken\.py:2\)"),
        ("mine", "{}_needs:f", r"failed: it needs 'not_installed_anywhere', which is not installed"),
        ("mine", "{}:politness", r"has no 'politness'; did you mean 'politeness'\?"),
        ("mine", "{}:zzz", r"has no 'zzz'; it has Kept, narrow, politeness, share"),
        ("mine", "{}:number", "is a int, not a function"),
        ("mine", "{}:narrow", r"takes \(texts\), but is called with examples=, texts=, parsed=, metadata= .*\*\*_"),
        ("accuracy", "{}:politeness", "there is a built-in signal of that name"),
        ("a/b", "{}:politeness", "has letters, digits and _ only"),
    ],
)
def test_paths_that_lead_nowhere(name: str, path: str, message: str, package: str) -> None:
    with pytest.raises(ValueError, match=rf"config\.rewards\.custom\.{name}=.*{message}"):
        resolve(name, path.format(package))


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(ValueError, match="which holds nothing"):
        signal("wrong way round", low=1, high=0)


# ------------------------------------------------------------------------------------------------------- in a config
def raw(package: str, **changes: Any) -> Any:
    config: Any = default.get_config()
    config.rewards.custom.share = f"{package}:share"
    config.rewards.weights.share = 0.5
    for name, value in changes.items():
        *path, last = name.split("__")
        here: Any = config
        for part in path:
            here = here[part]
        here[last] = value
    return config


def test_a_config_names_and_reads_them(package: str) -> None:
    config = raw(package)
    config.constraints.half = default.constraint(0.5)
    config.constraints.half.signal = "share"
    checked = configs.load(config)
    assert checked.rewards.custom == {"share": f"{package}:share"} and configs.load(configs.to_dict(checked)) == checked
    rewards = setup.rewards(checked)
    assert rewards.signals["share"].about == "a share" and setup.measures(checked)[-1] == Measure("share")
    config.constraints.half.threshold = 1.5
    with pytest.raises(
        ValueError, match=r"constraints\.half: mean >= 1\.5 cannot be met, 'share' lies in \[0\.0, 1\.0\]"
    ):
        configs.load(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards__weights__shar": 1.0}, r"config\.rewards\.weights\.shar=1\.0: unknown signal; did you mean 'share'"),
        ({"rewards__weights__share": 0.0}, r"config\.rewards\.custom\.share='.*' is read by nothing"),
        ({"rewards__custom__share": "nowhere:share"}, "there is no module 'nowhere'"),
        ({"rewards__custom_timeout": 0.0}, r"config\.rewards\.custom_timeout=0\.0 is out of range"),
    ],
)
def test_mistakes_are_told_at_the_door(changes: dict[str, Any], message: str, package: str) -> None:
    with pytest.raises(ValueError, match=message):
        configs.load(raw(package, **changes))


def test_evaluation_needs_no_function_of_the_users_own() -> None:
    """A run is evaluated elsewhere, where its module may not be."""
    checked = configs.load(raw("nowhere"), door="evaluate")
    policy: Any = None  # the rules judge needs none
    with contextlib.closing(judges.scorer(checked, policy, Path("nowhere"), purpose="eval")) as scorer:
        assert scorer._custom is not None and not scorer._custom.functions


# ------------------------------------------------------------------------------------------------------- the page
class Service(http.server.BaseHTTPRequestHandler):
    """Scores answers by whether they are known; refuses one of them."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps({"score": 1.0 if asked["answer"] == RIGHT else 0.25}).encode()
        self.send_response(503 if asked["answer"] == IDLE else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def test_the_page_runs_as_it_stands(tmp_path: Path, monkeypatch) -> None:
    """Its module against a service that answers, its config lines, and the run command's file."""
    pytest.importorskip("httpx")
    page = (policies.ROOT / "docs" / "rewards.md").read_text(encoding="utf8")
    code, lines = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert all(len(body.strip().splitlines()) <= 15 for body in code.split("@signal")[1:])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "my_rewards.py").write_text(code.replace("localhost:9000", f"127.0.0.1:{server.server_address[1]}"))
    monkeypatch.syspath_prepend(str(tmp_path))
    config: Any = default.get_config()
    exec(lines, {"config": config, "default": default})
    checked = configs.load(config)
    rewards = setup.rewards(checked)
    polite = RIGHT.replace("</think>", " Please look.</think>")
    texts = [[RIGHT, WRONG, IDLE, polite]]
    try:
        signals, figures = score([EXAMPLE], texts, sizes=[SIZE], config=rewards, measures=setup.measures(checked))
    finally:
        assert rewards.custom is not None
        rewards.custom.close()
        server.shutdown()
        server.server_close()
        sys.modules.pop("my_rewards", None)
    np.testing.assert_allclose(figures["custom/politeness"], [[0, 0, 0, 1]])
    np.testing.assert_allclose(figures["custom/helpfulness"], [[1, 0.25, np.nan, 0.25]])
    np.testing.assert_array_equal(signals.mask[3], [[True, False, False, True]])
    plain, _ = score([EXAMPLE], texts, sizes=[SIZE], config=RewardConfig())
    np.testing.assert_allclose(signals.task - plain.task, [[0, 0, 0, 0.2]], atol=1e-6)
    assert "configs/custom_reward.py" in page and (policies.ROOT / "configs" / "custom_reward.py").is_file()


# ------------------------------------------------------------------------------------------------------------ trained
FILE = policies.ROOT / "configs" / "custom_reward.py"


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    with runs.quick() as patch:
        patch.setattr(policies, "BASE", FILE)
        yield


FIELDS: dict[str, Any] = {"eval__examples": 0, "log__tensorboard": False, "num_steps": 2, "optim__schedule": "constant"}


@pytest.mark.slow
def test_a_run_learns_with_them_and_goes_on_where_it_stopped(quick: None, tiny_hf: Path, tmp_path: Path) -> None:
    code, _, err = runs.run(train, tmp_path / "whole", tiny_hf, **FIELDS)
    assert code == 0, err
    found = read_rows(tmp_path / "whole" / "metrics.jsonl")
    for row in found:
        assert row["constraint/brevity/applicable"] == 32 and 0 <= row["constraint/brevity/mean"] <= 1
        assert "reward/custom/points" in row and row["reward/custom/brevity"] == row["constraint/brevity/mean"]
    for steps in (1, 2):
        code, _, err = runs.run(train, tmp_path / "parts", tiny_hf, **{**FIELDS, "num_steps": steps})
        assert code == 0, err
    assert runs.rows(tmp_path / "parts") == runs.rows(tmp_path / "whole")
    saved = read_rows(tmp_path / "whole" / "rollouts" / "000001.jsonl")
    assert {"brevity"} <= saved[0]["rollouts"][0].keys()


@pytest.mark.slow
def test_a_function_that_breaks_ends_the_run_with_one_line(
    quick: None, tiny_hf: Path, tmp_path: Path, monkeypatch
) -> None:
    from fgrpo_jax.configs import custom_reward

    def broken(parsed, **_):
        raise RuntimeError("no such word")

    monkeypatch.setattr(custom_reward, "brevity", broken)
    code, _, err = runs.run(train, tmp_path / "w", tiny_hf, **FIELDS)
    said = err.splitlines()[-1]
    assert code == 1 and "Traceback" not in err
    assert re.search(
        r"reward function 'fgrpo_jax\.configs\.custom_reward:brevity' failed on a batch of .*no such word", said
    ), err
