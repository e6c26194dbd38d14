"""Attention kernels: splash in interpret mode beside the XLA form, what is told to cuDNN, the trial at the start."""

from __future__ import annotations

import dataclasses
import functools
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_model import TINY, prompt_batch, tiny_params

from fgrpo_jax import mesh as meshes
from fgrpo_jax.model import kernel_trial, kernels
from fgrpo_jax.model.attention import Keys
from fgrpo_jax.model.kernels import XLA, Cudnn, Splash, Xla
from fgrpo_jax.model.qwen2_5_vl import Model

SPLASH = Splash(interpret=True)
DEVICES = {
    "cpu": types.SimpleNamespace(platform="cpu", device_kind="cpu"),
    "h200": types.SimpleNamespace(platform="gpu", device_kind="NVIDIA H200"),
    "rocm": types.SimpleNamespace(platform="gpu", device_kind="AMD Instinct MI300X"),
    "v5e": types.SimpleNamespace(platform="tpu", device_kind="TPU v5 lite"),
}


def small() -> Any:
    """Four heads over two kv heads; the trial's inputs are of this shape."""
    return dataclasses.replace(TINY, text=dataclasses.replace(TINY.text, num_heads=4, num_kv_heads=2))


@pytest.mark.parametrize(
    ("setting", "device", "dtype", "name"),
    [
        ("auto", "cpu", "float32", "xla"),
        ("auto", "cpu", "bfloat16", "xla"),
        ("auto", "h200", "bfloat16", "cudnn"),
        ("auto", "h200", "float32", "xla"),
        ("auto", "rocm", "bfloat16", "xla"),
        ("auto", "v5e", "float32", "splash"),
        ("auto", "v5e", "bfloat16", "splash"),
        ("xla", "h200", "bfloat16", "xla"),
        ("cudnn", "h200", "bfloat16", "cudnn"),
        ("splash", "v5e", "float32", "splash"),
    ],
)
def test_what_a_setting_means(setting, device, dtype, name):
    chosen = kernels.for_device(setting, device=DEVICES[device], dtype=dtype)
    assert type(chosen) is type(kernels.NAMED[name])
    assert not isinstance(chosen, Xla) or chosen.block == (128 if device == "v5e" else XLA.block)


@pytest.mark.parametrize(
    ("setting", "device", "dtype"),
    [
        ("cudnn", "cpu", "bfloat16"),
        ("cudnn", "h200", "float32"),
        ("cudnn", "rocm", "bfloat16"),
        ("splash", "h200", "bfloat16"),
    ],
)
def test_a_kernel_that_cannot_be_had_is_an_error(setting, device, dtype):
    kind = DEVICES[device].device_kind
    with pytest.raises(
        ValueError, match=f"config.model.attention='{setting}' needs .*{kind}.*'{dtype}'; choose 'auto'"
    ):
        kernels.for_device(setting, device=DEVICES[device], dtype=dtype)


def test_xla_on_a_tpu_takes_fewer_keys_at_a_time():
    assert kernels.for_device("xla", device=DEVICES["v5e"], dtype="float32") == Xla(128)


# --------------------------------------------------------------------------------------------------------------- splash
ALL = ("prompts", "completions", "single tokens", "images", "windows")


@pytest.fixture
def only(monkeypatch):
    """Leaves some cases of the trial: a program of all takes long to compile."""
    every = kernel_trial.cases
    some = lambda names: lambda *args: [one for one in every(*args) if one.name in names]  # noqa: E731
    return lambda *names: monkeypatch.setattr(kernel_trial, "cases", some(names))


@pytest.mark.parametrize("names", [("completions",), pytest.param(ALL, marks=pytest.mark.slow)])
def test_splash_equals_the_reference(names, only):
    """Values and gradients, on the inputs of the trial: groups, single tokens, padding, holes, prompts of nothing."""
    only(*names)
    found = kernel_trial.compare(SPLASH, small(), dtype=jnp.float32)
    assert tuple(found) == names and max(found.values()) <= 1e-5, found


def test_splash_sees_any_mask():
    """Keys that are missing anywhere, causally too; rows that see no key do not count."""
    rng = np.random.default_rng(3)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    mask = rng.random((2, 150)) < 0.6
    mask[:, 0] = True
    keys = Keys(draw(2, 150, 1, 16), draw(2, 150, 1, 16), jnp.asarray(mask))
    q, probe = draw(2, 150, 3, 16), draw(2, 150, 3, 16)

    def loss(forms, form, q, k, v):
        return jnp.sum(getattr(forms, form)(q, Keys(k, v, keys.mask), mesh=None) * probe)

    for form in ("causal", "full"):
        ours, theirs = (
            jax.jit(jax.value_and_grad(functools.partial(loss, forms, form), (0, 1, 2)))(q, keys.k, keys.v)
            for forms in (SPLASH, XLA)
        )
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5)


def loss(model: Model, params: Any, prompts: Any, tokens: jax.Array, mask: jax.Array) -> jax.Array:
    hidden, prefix = model.prefix(params, prompts, model.encode(params, prompts.vision))
    shared = {"prefix": prefix, "prefix_mask": prompts.mask}
    completions = model.suffix(params, tokens, mask, prompts.next_position, **shared)
    both = jnp.sum(jnp.sin(hidden) * prompts.mask[..., None]), jnp.sum(jnp.sin(completions) * mask[..., None])
    return sum(both)  # type: ignore[return-value]


def completions() -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(1)
    mask = np.arange(7) < rng.integers(1, 8, (2, 3))[..., None]
    return jnp.asarray(rng.integers(0, 60, (2, 3, 7)), jnp.int32), jnp.asarray(mask)


def assert_same_model(forms: Any, *, remat: Any) -> None:
    """Loss and every weight's gradient to 1e-5 of its largest number."""
    prompts, rows = prompt_batch(2, 9), completions()
    models = [Model.create(TINY, remat=remat, attention=one) for one in (forms, "xla")]
    both = lambda params: [jax.value_and_grad(loss, 1)(one, params, prompts, *rows) for one in models]  # noqa: E731
    ours, theirs = jax.jit(both)(tiny_params())
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.max(jnp.abs(b))), err_msg=jax.tree_util.keystr(path))
    assert float(jnp.max(jnp.abs(ours[1]["visual"]["blocks"]["attn"]["qkv"]["kernel"]))) > 0


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["none", "full"])
def test_a_model_with_splash_is_the_model(remat):
    """Images, prompts, completions; loss and the gradient of every weight, the tower's included."""
    assert_same_model(SPLASH, remat=remat)


@pytest.mark.parametrize(("remat", "kept"), [("none", True), ("full", False)])
def test_what_a_kernel_gives_is_kept(remat, kept):
    """The log-sum-exp of 2 layers, 4 heads and 9 tokens filled up to 128 stands between the passes, or nowhere."""
    model, prompts = Model.create(TINY, remat=remat, attention=SPLASH), prompt_batch(1, 9)
    features = jnp.zeros((1, 0, 32))
    total = lambda params: jnp.sum(model.prefix(params, prompts, features)[0])  # noqa: E731
    program = str(jax.make_jaxpr(jax.grad(total))(model.abstract()))
    assert ("f32[2,1,4,128]" in program) == kept


# ---------------------------------------------------------------------------------------------------------------- cuDNN
def as_cudnn(q, k, v, bias, lengths, causal):
    """What cuDNN is asked for, in plain jax: a softmax over the first keys of each row, with a bias."""
    assert q.shape[1] % 128 == 0 and k.shape[1] % 128 == 0
    k, v = (jnp.repeat(x, q.shape[2] // x.shape[2], axis=2) for x in (k, v))
    scores = jnp.einsum("btnh,bsnh->bnts", q, k) * q.shape[-1] ** -0.5 + (0 if bias is None else bias)
    seen = (jnp.arange(k.shape[1]) < lengths[:, None])[:, None, None]
    if causal:
        seen = seen & jnp.tril(jnp.ones(scores.shape[2:], bool))
    return jnp.einsum("bnts,bsnh->btnh", jax.nn.softmax(jnp.where(seen, scores, -jnp.inf)), v)


@pytest.mark.parametrize("names", [("completions", "windows"), pytest.param(ALL, marks=pytest.mark.slow)])
def test_what_cudnn_is_told_is_the_reference(names, only, monkeypatch):
    monkeypatch.setattr(kernels, "_cudnn", as_cudnn)
    only(*names)
    found = kernel_trial.compare(Cudnn(), small(), dtype=jnp.float32)
    assert tuple(found) == names and max(found.values()) <= 1e-5, found


@pytest.mark.slow
def test_a_model_with_cudnn_is_the_model(monkeypatch):
    monkeypatch.setattr(kernels, "_cudnn", as_cudnn)
    assert_same_model(Cudnn(), remat="none")


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices (tests/conftest.py asks for 8 on CPU)")
@pytest.mark.parametrize("sizes", [(2, 1, 2), (1, 2, 4), (1, 4, 1)])
def test_kernels_are_split_over_devices_by_hand(sizes, monkeypatch):
    """Heads over 2 devices with their kv heads, over 4 with two to a kv head, and prompts that do not divide."""
    monkeypatch.setattr(kernels, "_cudnn", as_cudnn)
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    q, own, far = draw(2, 2, 5, 4, 8), (2, 2, 5, 2, 8), (2, 9, 2, 8)
    pairs = [(draw(*shape), draw(*shape)) for shape in (own, far)]
    masks = np.ones(own[:3], bool), np.arange(9) < np.array([[9], [4]])
    mesh = meshes.make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))])

    def total(forms, mesh, q, pairs):
        sets = (Keys(k, v, jnp.asarray(mask)) for (k, v), mask in zip(pairs, masks, strict=True))
        return jnp.sum(jnp.sin(forms.shared(q, *sets, mesh=mesh)))

    ours, theirs = (
        jax.jit(jax.value_and_grad(functools.partial(total, *forms), (0, 1)))(q, pairs)
        for forms in ((Cudnn(), mesh), (XLA, None))
    )
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_cudnn_answers_a_hole_with_nan(monkeypatch):
    """It knows lengths only: a row whose real keys are not the first ones must not pass for a right one."""
    monkeypatch.setattr(kernels, "_cudnn", as_cudnn)
    x = jnp.ones((2, 6, 1, 8))
    mask = jnp.asarray([[True, True, False, False, False, False], [True, False, True, True, False, False]])
    for out in (Cudnn().causal(x, Keys(x, x, mask)), Cudnn().full(x, Keys(x, x, mask))):
        assert np.isfinite(out[0]).all() and np.isnan(out[1]).all()


# ------------------------------------------------------------------------------------------------------------ the trial
class Fake:
    """A right kernel."""

    def causal(self, q, keys, *, mesh=None):
        return XLA.causal(q, keys)

    def shared(self, q, own, shared, *, mesh=None):
        return XLA.shared(q, own, shared)

    def full(self, q, keys, *, mesh=None):
        return XLA.full(q, keys)

    def windows(self, q, keys, *, mesh=None):
        return XLA.windows(q, keys)


class Blind(Fake):
    """Looks at no mask of the prompts."""

    def shared(self, q, own, shared, *, mesh=None):
        return XLA.shared(q, own, shared._replace(mask=jnp.ones_like(shared.mask)))


class Broken(Fake):
    """Its gradient is not a number at lengths of 64 beyond a multiple of 128."""

    def full(self, q, keys, *, mesh=None):
        out = XLA.full(q, keys)
        return out + jnp.sqrt(0 * q) if q.shape[1] % 128 == 64 else out


class Missing(Fake):
    def causal(self, q, keys, *, mesh=None):
        raise RuntimeError("no such library")


@pytest.fixture
def tried(only):
    """The trial on this machine's own device, with the named cases alone."""

    def run(forms: Any, *names: str) -> Any:
        only(*names)
        return kernel_trial.tried(forms, small(), dtype=jnp.bfloat16, device=jax.devices()[0])

    return run


@pytest.mark.parametrize(
    ("kind", "cases", "says"),
    [
        (
            Blind,
            ("completions", "single tokens"),
            r"differs .* than 0.03 .*: completions by [\d.]+, single tokens by [\d.]+",
        ),
        (Broken, ("images",), "differs from the XLA form by .*: images by inf"),
        (Missing, ("prompts",), "fails: RuntimeError: no such library"),
    ],
)
def test_a_kernel_that_is_wrong_is_not_used(kind, cases, says, tried):
    name = kind.__name__.lower()
    with pytest.warns(UserWarning, match=f"attention kernel {name} on cpu {says}; XLA is used") as caught:
        assert tried(kind(), *cases) == XLA
    assert len(caught) == 1


def test_a_kernel_that_is_right_is_used(recwarn, tried):
    right = Fake()
    assert tried(right, "single tokens") is right and not recwarn.list


def test_nothing_is_tried_where_xla_runs(monkeypatch, tried):
    monkeypatch.setattr(kernel_trial, "compare", lambda *_, **__: pytest.fail("tried"))
    assert tried(XLA) is XLA
