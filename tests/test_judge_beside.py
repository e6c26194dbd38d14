"""The judge beside the policy: from the config and on its mesh."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import policies
import pytest
import verdicts

from fgrpo_jax.rewards.judges import scorer as scorers
from fgrpo_jax.rewards.judges.dispatch import Dispatcher
from fgrpo_jax.rewards.judges.local import LocalJudge
from fgrpo_jax.rewards.score import score
from fgrpo_jax.rollout.sampler import Sampler
from fgrpo_jax.training import judges, setup
from fgrpo_jax.world.examples import World

EXAMPLES = [World("tiny", flawed=0.0).example(number) for number in range(4)]


@dataclasses.dataclass(frozen=True)
class Beside:
    config: Any
    policy: setup.Policy
    judges: Dispatcher

    @property
    def scorer(self) -> scorers.VerdictScorer:
        assert isinstance(self.judges.model, LocalJudge)
        return self.judges.model.scorer

    def score(self, encoded: list[Any]) -> Any:
        """Reference traces, which are right and have several sentences, judged by the model alone."""
        bare = [dataclasses.replace(example, images=(), scene=None) for example in EXAMPLES]
        return score(
            bare,
            [[example.trace or ""] * 2 for example in EXAMPLES],
            sizes=[prompt.first_size for prompt in encoded],
            config=setup.rewards(self.config),
            judges=self.judges,
            encoded=encoded,
        )


@pytest.fixture(scope="module")
def folder(tiny_hf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return verdicts.random_weights(tiny_hf, tmp_path_factory.mktemp("beside") / "hf")


def beside(hf: Path, judge: Path, workdir: Path, **fields: Any) -> Beside:
    local = {"judge__backend": "local", "judge__local__hf": judge, "judge__local__dtype": "float32"}
    config = policies.config(hf, **{**local, "judge__precheck": False, **fields})
    policy = policies.policy(config)
    return Beside(config, policy, judges.judges(config, policy, config.judge, workdir))


@pytest.fixture(scope="module")
def encoded(folder: Path) -> list[Any]:
    config = policies.config(folder)
    encode = setup.encoder(config, policies.policy(config))
    return [encode(example)[1] for example in EXAMPLES]


@pytest.mark.slow
def test_it_judges_once_and_a_second_start_asks_nothing(
    folder: Path, encoded: list[Any], tmp_path: Path, monkeypatch
) -> None:
    """The whole way from the config to signals; the cache gives the same ones, and so does a judge without cache."""
    monkeypatch.setattr(jax, "jit", _quickly(jax.jit))
    ours = beside(folder, folder, tmp_path)
    found, seen = ours.score(encoded)
    counts = ours.judges.tally.take()
    assert counts.model > 8 and counts.failed == 0 and seen["judged"].all()
    assert judges.compilations(ours.judges) == ours.scorer.compilations > 0
    ours.judges.close()

    again = beside(folder, folder, tmp_path)
    same, _ = again.score(encoded)
    assert again.judges.tally.take().model == 0 and judges.compilations(again.judges) == 0
    again.judges.close()

    alone = beside(folder, folder, tmp_path, judge__cache="")
    own, _ = alone.score(encoded)
    for name in ("values", "mask", "task"):
        np.testing.assert_array_equal(getattr(same, name), getattr(found, name))
        np.testing.assert_array_equal(getattr(own, name), getattr(found, name))
    alone.judges.close()
    assert judges.compilations(Dispatcher()) == 0


def _quickly(jit: Any) -> Any:
    """`jax.jit` without optimisation: these programs run once."""
    return lambda function, **settings: jit(function, **{**settings, "compiler_options": policies.QUICK})


def test_weights_lie_as_for_sampling(folder: Path, tmp_path: Path) -> None:
    ours = beside(folder, folder, tmp_path, judge__local__dtype="bfloat16")
    leaves = jax.tree.leaves(ours.scorer.params)
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("bfloat16")}
    assert all(leaf.sharding.is_fully_replicated for leaf in leaves)
    assert isinstance(setup.sampler(ours.config, ours.policy, purpose="eval"), Sampler)
