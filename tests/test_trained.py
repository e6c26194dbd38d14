"""What is trained: weights in two halves, or adapters; what stays as it was; and what runs once for all passes."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_model import TINY, prompt_batch, tiny_params

from fgrpo_jax.fgrpo import optimizer
from fgrpo_jax.fgrpo.learner import Learner, LearnerConfig
from fgrpo_jax.fgrpo.optimizer import Halves, Rule
from fgrpo_jax.fgrpo.settings import Algorithm, Lora, Optimizer
from fgrpo_jax.fgrpo.trained import Adapters
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.records import Rollouts, Signals
from fgrpo_jax.weights import exporter

QUICK = {"xla_backend_optimization_level": 0}
MODEL = Model.create(TINY)
TARGETS = ("text/layers/attn/**/kernel", "text/layers/mlp/down/kernel")
M, G, T = 4, 2, 5


# ---------------------------------------------------------------------------------------------------- lost updates
def adamw(dtype: str, *, steps: int, compensated: bool = False) -> tuple[Any, Any, list[float]]:
    """(first parameters, last ones as float32 masters, moved shares) of AdamW at lr 1e-6 on like gradients."""
    config = Rule(Optimizer(compensated=compensated))
    start = jax.random.normal(jax.random.key(0), (4096,)) * 0.02
    params = {"w": start.astype(jnp.bfloat16).astype(dtype)}
    first, state, tx = params["w"].astype(jnp.float32), optimizer.init(config, params), optimizer.make(config)
    moved = []
    for number in range(steps):
        grads = {"w": jax.random.normal(jax.random.key(number), (4096,)) * 0.1 + 1.0}
        done = optimizer.apply_guarded(tx, grads, state, params)
        params, state = done.params, done.opt_state
        moved.append(float(done.moved_share))
    last = optimizer.join_master(params["w"], state.low["w"]) if compensated else params["w"].astype(jnp.float32)
    return np.asarray(first), np.asarray(last), moved


def test_bfloat16_halves_follow_the_float32_run_bit_for_bit() -> None:
    """CORRECTNESS: 20 steps at lr 1e-6 move over 99% of the weights; bfloat16 alone moves next to none."""
    first, want, _ = adamw("float32", steps=20)
    _, got, moved = adamw("bfloat16", steps=20, compensated=True)
    np.testing.assert_array_equal(got, want)
    assert (got != first).mean() > 0.99 and min(moved) > 0.99
    _, lost, moved = adamw("bfloat16", steps=20)
    assert (lost != first).mean() < 0.1 and max(moved) < 0.1


def test_halves_hold_every_float32() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32)
    x = bits.view(np.float32)
    x = x[np.isfinite(x) & (np.abs(x) < 1e38)]
    high, low = optimizer.split_master(jnp.asarray(x))
    assert high.dtype == jnp.bfloat16 and low.dtype == jnp.int16
    np.testing.assert_array_equal(np.asarray(optimizer.join_master(high, low)).view(np.uint32), x.view(np.uint32))
    nearest = np.abs(np.asarray(high, np.float64) - x) <= np.abs(np.asarray(x.astype(jnp.bfloat16), np.float64) - x)
    assert nearest.all(), "the upper half is a nearest bfloat16: what sampler and learner compute with"


def test_a_gradient_that_is_not_finite_leaves_both_halves() -> None:
    config = Rule(Optimizer(compensated=True))
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    state = optimizer.init(config, params)
    done = optimizer.apply_guarded(optimizer.make(config), {"w": jnp.array([1.0, jnp.nan, 0.0])}, state, params)
    assert not done.finite and done.moved_share == 0 and isinstance(done.opt_state, Halves)
    jax.tree.map(np.testing.assert_array_equal, (done.params, done.opt_state), (params, state))
    with pytest.raises(ValueError, match="'w' is float32"):
        optimizer.init(config, {"w": jnp.ones(3)})


def test_a_mean_in_bfloat16_is_stored_as_such() -> None:
    config = Rule(Optimizer(mean_dtype="bfloat16"))
    moments = (
        optax.tree.get(optimizer.init(config, {"w": jnp.ones(3)}), "mu"),
        optax.tree.get(optimizer.init(config, {"w": jnp.ones(3)}), "nu"),
    )
    assert [m["w"].dtype for m in moments] == [jnp.bfloat16, jnp.float32]


# ------------------------------------------------------------------------------------------------------- the whole step
@functools.cache
def inputs() -> tuple[Any, Rollouts, Signals]:
    rng = np.random.default_rng(3)
    tokens = jnp.asarray(rng.integers(0, 60, (M, G, T)), jnp.int32)
    mask = jnp.asarray(np.arange(T) < rng.integers(2, T + 1, (M, G))[..., None])
    rollouts = Rollouts(tokens, mask, jnp.zeros((M, G, T)), jnp.ones((M, G), bool))
    task = jnp.asarray(rng.random((M, G)), jnp.float32)
    empty = jnp.zeros((0, M, G))
    return prompt_batch(M, 8), rollouts, Signals(task, task, task, empty, empty.astype(bool))


@functools.cache
def learner(**fields: Any) -> Learner:
    names = {field.name for field in dataclasses.fields(Algorithm)}
    algorithm = Algorithm(**{"micro_batch_prompts": M // 2, **{k: v for k, v in fields.items() if k in names}})
    rest = {name: value for name, value in fields.items() if name not in names}
    config = LearnerConfig((), algorithm, Rule(Optimizer(learning_rate=1e-2)), **rest)
    return Learner(MODEL, config, jnp.zeros(TINY.text.vocab_size, bool), compiler_options=QUICK)


def lora(rank: int = 4, targets: tuple[str, ...] = TARGETS) -> Lora:
    return Lora(rank=rank, alpha=8.0, targets=targets)


@functools.cache
def run(made: Learner, steps: int = 2) -> tuple[Any, Any, Any]:
    """(state, reference, metrics of the last step) after some steps from the tiny weights."""
    params = jax.tree.map(jnp.copy, tiny_params())
    reference = made.reference(params)
    state = made.init(params)
    for _ in range(steps):
        state, metrics, _ = made.step(state, reference, *inputs())
    return state, reference, metrics


@pytest.mark.slow
def test_adapters_move_their_kernels_by_a_low_rank_and_nothing_else() -> None:
    state, reference, metrics = run(learner(lora=lora()))
    before, after = (optimizer.flatten(params) for params in (tiny_params(), state.params))
    targets = {path for path in before if optimizer.matches(path, TARGETS)}
    assert set(reference) == targets and len(targets) == 5
    for path, old in before.items():
        if path not in targets:
            np.testing.assert_array_equal(after[path], old, err_msg=path)
            continue
        np.testing.assert_array_equal(reference[path], old, err_msg=path)  # the base, not donated and not moved
        a, b = (state.opt_state.adapters[f"{path}/{side}"] for side in "ab")
        change = np.asarray(after[path] - old).reshape(2, -1, np.prod(b.shape[2:]))
        want = 8.0 / 4 * np.einsum("lir,lro->lio", np.reshape(a, (2, -1, 4)), np.reshape(b, (2, 4, -1)))
        np.testing.assert_allclose(change, want, atol=1e-6, err_msg=path)
        assert all(np.linalg.matrix_rank(layer, tol=1e-5) == 4 for layer in change), path
    assert metrics["loss/kl"] > 0 and metrics["optim/moved_share"] > 0.9


def test_the_gradient_of_adapters_is_that_of_the_sum() -> None:
    """With B = 0 the first update moves B alone: d loss / d B = alpha/rank · Aᵀ d loss / d W."""
    made = learner(lora=lora(), updates_per_batch=1, kl_coef=0.0)
    params = tiny_params()
    trained = made.trained
    _, opt_state = trained.begin(params, made.config.rule)
    parts = trained.split(params, opt_state, trained.reference(params, needed=False))
    path = "text/layers/mlp/down/kernel"
    kernel = parts.frozen[path]
    slope = jax.random.normal(jax.random.key(1), kernel.shape)
    grads = jax.grad(lambda w: jnp.sum(optimizer.flatten(trained.join(w, parts.frozen))[path] * slope))(parts.weights)
    a = parts.weights[f"{path}/a"]
    np.testing.assert_allclose(grads[f"{path}/b"], 2.0 * np.einsum("lir,lio->lro", a, slope), atol=1e-4)
    assert not np.any(grads[f"{path}/a"]) and not np.any(grads["text/layers/attn/q/kernel/b"])


@pytest.mark.slow
def test_an_export_of_adapters_loads_in_transformers_with_our_logits(tmp_path: Path) -> None:
    """Merged: no tensor is missing or unknown, and the logits are those of the state."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    state, _, _ = run(learner(lora=lora()))
    exporter.save_hf(tmp_path / "hf", state.params, MODEL)
    kind = transformers.Qwen2_5_VLForConditionalGeneration
    model, report = kind.from_pretrained(tmp_path / "hf", dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    tokens = np.random.default_rng(0).integers(0, 60, (1, 8))
    prompts = inputs()[0]
    batch = jax.tree.map(lambda x: x[:1], prompts)
    batch = batch.replace(
        tokens=jnp.asarray(tokens, jnp.int32), mask=jnp.ones((1, 8), bool), image_slot=jnp.full((1, 8), -1)
    )

    @functools.partial(jax.jit, compiler_options=QUICK)
    def logits(params: Any) -> jax.Array:
        hidden, _ = MODEL.prefix(params, batch, MODEL.encode(params, batch.vision))
        return MODEL.logits(params, hidden)

    with torch.inference_mode():
        want = model(input_ids=torch.tensor(tokens)).logits.numpy()
    np.testing.assert_allclose(logits(state.params), want, atol=2e-4)
    assert np.abs(logits(tiny_params()) - want).max() > 1e-2, "the adapters say something"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (lora(targets=("text/layer/**",)), "'text/layer/\\*\\*' matches no parameter; top-level names are lm_head"),
        (lora(targets=("text/layers/**",)), "is no kernel; narrow the rule"),
        (lora(targets=("visual/merger/**/kernel",)), "is frozen by 'visual/\\*\\*'; drop the target"),
        (lora(targets=()), "a rank but no targets"),
        (lora(rank=17), "rank 17 exceeds that of 'text/layers/attn/k/kernel', a 32 × 16 kernel"),
    ],
)
def test_targets_that_do_not_fit_are_named(config: Lora, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Adapters.of(config, MODEL.specs, freeze=("visual/**",))


def test_adapters_are_split_as_their_kernels_are() -> None:
    from fgrpo_jax import mesh as meshes

    if jax.device_count() < 8:
        pytest.skip("needs 8 devices (tests/conftest.py asks for 8 on CPU)")
    mesh = meshes.make_mesh(2, 2, 2)
    params = jax.device_put(tiny_params(), meshes.shardings(MODEL.specs, mesh))
    state = learner(lora=lora()).init(params)
    specs = {path: tuple(x.sharding.spec) for path, x in state.opt_state.adapters.items()}
    kernel = params["text"]["layers"]["attn"]["q"]["kernel"].sharding.spec
    assert tuple(kernel) == (None, "fsdp", "tensor")
    assert specs["text/layers/attn/q/kernel/a"][:2] == (None, "fsdp")
    assert specs["text/layers/attn/q/kernel/b"][:3] == (None, None, "tensor")
    moments = optax.tree.get(state.opt_state.inner, "mu")
    assert tuple(moments["text/layers/attn/q/kernel/b"].sharding.spec) == specs["text/layers/attn/q/kernel/b"]


# ------------------------------------------------------------------------------------------------------- frozen vision
FREEZE = {0: ("text/norm/**",), 1: ("visual/patch_embed/**",), 2: ("visual/patch_embed/**", "visual/blocks/**")}


@pytest.mark.parametrize("stages", FREEZE)
def test_frozen_stages_are_counted_from_the_first(stages: int) -> None:
    assert learner(freeze=FREEZE[stages])._frozen_stages == stages
    assert learner(freeze=("visual/blocks/**",))._frozen_stages == 0 and learner()._frozen_stages == 3
    assert learner(freeze=("visual/patch_embed/**",), lora=lora())._frozen_stages == 3


@pytest.mark.slow
def test_what_frozen_stages_give_is_computed_once_and_changes_nothing() -> None:
    """The encoder frozen, the projector trained: the same step as with every stage run in every pass."""
    shared = learner(freeze=FREEZE[2])
    repeated = learner(freeze=FREEZE[2], temperature=1.0, clip_high=0.28 + 1e-12)
    repeated.__dict__["_frozen_stages"] = 0
    (a, _, figures), (b, _, others) = run(shared, 1), run(repeated, 1)
    np.testing.assert_allclose(figures["optim/grad_norm"], others["optim/grad_norm"], rtol=1e-5)
    np.testing.assert_allclose(figures["loss/kl"], others["loss/kl"], rtol=1e-3, atol=1e-7)
    before, flat, other = (optimizer.flatten(params["visual"]) for params in (tiny_params(), a.params, b.params))
    for path in flat:
        moved = np.abs(flat[path] - before[path]).max() > 0
        assert moved == path.startswith("merger/"), path
        assert np.mean(np.abs(flat[path] - other[path]) > 1e-5) < 0.01, path
