"""The choice among verdict tokens: against transformers, against plain rows, over devices; what it refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import policies
import pytest
import verdicts
from checks import signals_local

from fgrpo_jax import mesh as meshes
from fgrpo_jax.data.buckets import Buckets
from fgrpo_jax.data.processor import Processor
from fgrpo_jax.data.prompts import collate
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.rewards.judges import scorer as module
from fgrpo_jax.rewards.judges.scorer import VerdictScorer
from fgrpo_jax.weights import importer

VERDICTS = signals_local.VERDICTS


@dataclasses.dataclass(frozen=True)
class Judge:
    processor: Processor
    model: Model
    params: Any

    def scorer(self, **settings: Any) -> VerdictScorer:
        settings = {"compiler_options": policies.QUICK, **settings}
        return VerdictScorer(self.model, self.params, self.processor, **settings)


@pytest.fixture(scope="module")
def folder(tiny_hf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return verdicts.random_weights(tiny_hf, tmp_path_factory.mktemp("judge") / "hf")


@pytest.fixture(scope="module")
def judge(folder: Path) -> Judge:
    processor = Processor.load(folder)
    model = Model.create(processor.config)
    return Judge(processor, model, importer.load_hf(folder, model, dtype="float32"))


@pytest.fixture(scope="module")
def prompts(judge: Judge) -> list[Any]:
    return signals_local.cases(judge.processor)[0]


@pytest.fixture(scope="module")
def plain(judge: Judge, prompts: list[Any]) -> np.ndarray:
    """Log-probs [n, K] of every prompt in a row of its own, by the logits of its last token."""
    ids = np.array(judge.scorer().first_tokens(VERDICTS))
    batch = collate(prompts, buckets=Buckets(), pad_id=judge.processor.pad_id)

    def last(params: Any, batch: Any) -> jax.Array:
        hidden, _ = judge.model.prefix(params, batch, judge.model.encode(params, batch.vision))
        rows = hidden[np.arange(len(prompts)), batch.mask.sum(axis=1) - 1]
        return jax.nn.log_softmax(judge.model.logits(params, rows))[:, ids]

    return np.asarray(jax.jit(last, compiler_options=policies.QUICK)(judge.params, batch))


@pytest.mark.slow
def test_choices_equal_those_of_transformers(folder: Path) -> None:
    pytest.importorskip("torch")
    found = verdicts.compare(folder, compiler_options=policies.QUICK)
    assert found.differing == 0 and found.error < 1e-3 and min(found.counts) >= 5, found


@pytest.mark.slow
def test_shared_beginnings_give_what_plain_rows_do(judge: Judge, prompts: list[Any], plain: np.ndarray) -> None:
    scorer = judge.scorer()
    found = scorer.choose(prompts, VERDICTS)
    np.testing.assert_allclose(found.logps, plain, atol=2e-4)
    np.testing.assert_array_equal(found.index, plain.argmax(axis=1))
    ordered = np.sort(plain, axis=1)
    np.testing.assert_allclose(found.margin, ordered[:, 2] - ordered[:, 1], atol=4e-4)
    compiled = scorer.compilations
    assert 1 < compiled <= 12
    again = scorer.choose(prompts[::-1], VERDICTS)
    assert scorer.compilations == compiled, "the same prompts in another order compile nothing"
    np.testing.assert_allclose(again.logps[::-1], found.logps, atol=1e-5)  # equal prompts may change places


@pytest.mark.slow
def test_over_eight_devices(judge: Judge, prompts: list[Any], plain: np.ndarray) -> None:
    """Two ways of data, two of weights that are whole while sampling, two of heads; the layout of the sampler."""
    mesh = meshes.make_mesh(2, 2, 2)
    layout = meshes.shardings(judge.model.specs, mesh, rules=meshes.SAMPLE_RULES)
    split = Judge(judge.processor, dataclasses.replace(judge.model, mesh=mesh), jax.device_put(judge.params, layout))
    found = split.scorer(mesh=mesh).choose(prompts[:20], VERDICTS)
    np.testing.assert_allclose(found.logps, plain[:20], atol=2e-4)


def test_a_wrong_image_or_place_is_seen(judge: Judge, prompts: list[Any], plain: np.ndarray) -> None:
    """The comparisons above would notice: another image of the same size, and positions that are off by one."""
    other = dataclasses.replace(prompts[1], patches=tuple(255 - part for part in prompts[1].patches))
    moved = [dataclasses.replace(prompt, positions=prompt.positions * 2) for prompt in (prompts[1], prompts[9])]
    scorer = judge.scorer()
    assert np.abs(scorer.choose([other], VERDICTS).logps - plain[1]).max() > 1e-2
    with pytest.raises(AssertionError, match="tokens are text"):
        scorer.choose(moved, VERDICTS)


def test_verdicts_must_differ_in_their_first_token(judge: Judge) -> None:
    scorer = judge.scorer()
    ids = scorer.first_tokens(VERDICTS)
    assert len(set(ids)) == 3
    with pytest.raises(ValueError, match=r"'YES' and 'YES, it does' both begin with the token 'Y' \(\d+\)"):
        scorer.first_tokens(("NO", "YES", "YES, it does"))
    with pytest.raises(ValueError, match="verdict '' has no tokens"):
        scorer.first_tokens(("YES", ""))


def test_weights_that_are_not_finite_are_refused(judge: Judge, prompts: list[Any]) -> None:
    broken = dataclasses.replace(judge, params=jax.tree.map(lambda x: x * np.nan, judge.params))
    with pytest.raises(FloatingPointError, match="log-probs are not finite"):
        broken.scorer().choose(prompts[:1], VERDICTS)


def test_nothing_is_compiled_for_nothing(judge: Judge) -> None:
    scorer = judge.scorer()
    assert scorer.choose([], VERDICTS).index.shape == (0,) and scorer.compilations == 0


def test_lengths_waste_a_third_at_worst() -> None:
    steps = [b / a for a, b in zip(module.LENGTHS, module.LENGTHS[1:], strict=False)]
    assert max(steps) == 1.5 and module.LENGTHS[0] == 16 and module.LENGTHS[-1] > 32768
