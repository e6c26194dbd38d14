"""Whether an attention kernel is right on the device at hand: its values and gradients beside those of the XLA form.

Kernels of attention have been wrong without a word: gradients that are not a number at some lengths or at a single
query, masks that were not looked at. So a run tries its kernel before the first step, on small inputs that hold each of
these cases, and goes on with XLA where the two differ.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fgrpo_jax.model.attention import Keys
from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.model.kernels import XLA, Forms, Xla, reference

TOLERANCE = 0.03
"""Largest difference that passes, as a share of the largest number of the reference.

bfloat16 keeps 8 bits: a right kernel stays well below a hundredth, and one that sees a wrong key is off by a tenth.
"""


Inputs = tuple[jax.Array, tuple[Keys, ...]]
"""q and its sets of keys."""


@dataclasses.dataclass(frozen=True)
class Case:
    """Inputs of one form; what masked queries yield does not count."""

    name: str
    form: Callable[[Forms], Callable[..., jax.Array]]
    inputs: Inputs
    counts: np.ndarray  # bool, the shape of q without heads: queries that are real


def cases(config: ModelConfig, dtype: Any) -> list[Case]:
    """Small inputs of every form, with the head sizes and groups of a model.

    Prompts and images of 192 (64 beyond a multiple of 128), of single tokens and of none; completions of 64 and of one
    token after prompts of 192, of 65 and of none; windows with holes, as at the edge of an image. What is masked holds
    larger numbers than what is real, so that a mask that is not looked at shows.
    """
    text, tower = config.text, config.vision
    kv = min(text.num_kv_heads, 2)
    heads = (kv * (text.num_heads // text.num_kv_heads), kv, text.head_dim)
    flat = (min(tower.num_heads, 2), min(tower.num_heads, 2), tower.head_dim)
    seeds = iter(range(100))

    def keys(mask: np.ndarray, sizes: tuple[int, int, int]) -> Keys:
        k, v = (_draw(next(seeds), (*mask.shape, *sizes[1:]), dtype) for _ in "kv")
        k, v = (jnp.where(mask[..., None, None], x, 3 * x) for x in (k, v))
        return Keys(k, v, jnp.asarray(mask))

    def case(name: str, form: Any, sizes: tuple[int, int, int], queries: np.ndarray, *others: np.ndarray) -> Case:
        q = _draw(next(seeds), (*queries.shape, sizes[0], sizes[2]), dtype)
        return Case(name, form, (q, tuple(keys(mask, sizes) for mask in (queries, *others))), queries)

    holes = np.arange(64) % 16 < np.array([16, 8, 12])[:, None]
    prompts = _lengths(192, 65, 0, of=192)
    return [
        case("prompts", lambda forms: forms.causal, heads, _lengths(192, 100, 1, 0, of=192)),
        case("completions", lambda f: f.shared, heads, _lengths(64, 9, 1, 0, 64, 30, of=64).reshape(3, 2, 64), prompts),
        case("single tokens", lambda f: f.shared, heads, np.ones((3, 2, 1), bool), prompts),
        case("images", lambda forms: forms.full, flat, _lengths(192, 64, 1, 0, of=192)),
        case("windows", lambda forms: forms.windows, flat, np.stack([holes, holes[::-1]])),
    ]


def compare(forms: Forms, config: ModelConfig, *, dtype: Any) -> dict[str, float]:
    """Largest difference from the XLA form in float32 by case, as a share of the largest number; inf if not finite.

    One compiled program of all cases: outputs and the gradients of q, k and v.
    """

    made = cases(config, dtype)

    def differences(inputs: list[Inputs]) -> list[jax.Array]:
        with jax.default_matmul_precision("highest"):
            right = [_pass(XLA, case, one, jnp.float32) for case, one in zip(made, inputs, strict=True)]
        ours = [_pass(forms, case, one, dtype) for case, one in zip(made, inputs, strict=True)]
        return [_apart(*pair) for pair in zip(ours, right, strict=True)]

    shares = jax.jit(differences)([case.inputs for case in made])
    return {case.name: float(share) for case, share in zip(made, shares, strict=True)}


def tried(forms: Forms, config: ModelConfig, *, dtype: Any, device: Any) -> Forms:
    """The kernel if it is right on the device, else the XLA form, with a warning that has the figures.

    All processes of a run decide alike: a kernel that fails on one of them is taken by none.
    """
    if isinstance(forms, Xla):
        return forms
    try:
        with jax.default_device(device):
            found = compare(forms, config, dtype=dtype)
        wrong = {name: share for name, share in found.items() if not share <= TOLERANCE}
        trouble = ", ".join(f"{name} by {share:.2g}" for name, share in wrong.items())
        trouble = trouble and f"differs from the XLA form by more than {TOLERANCE} of the largest number: {trouble}"
    except Exception as error:  # a compiler or a library may fail in any way, and XLA does as well
        trouble = f"fails: {type(error).__name__}: {str(error)[:300]}"
    if not _anywhere(bool(trouble)):
        return forms
    trouble = trouble or "fails or differs from the XLA form in another process"
    name = type(forms).__name__.lower()
    warnings.warn(f"attention kernel {name} on {device.device_kind} {trouble}; XLA is used instead", stacklevel=2)
    return reference(device.platform)


def _lengths(*lengths: int, of: int) -> np.ndarray:
    """bool [rows, of]: the first so many of each row."""
    return np.arange(of) < np.array(lengths)[:, None]


def _draw(seed: int, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def _pass(forms: Forms, case: Case, inputs: Inputs, dtype: Any) -> list[jax.Array]:
    """Output of a case and its gradients of q, k and v in float32, zero where nothing is real."""
    q, sets = inputs

    def mixed(q: jax.Array, pairs: list[tuple[jax.Array, jax.Array]]) -> jax.Array:
        of_sets = (Keys(k, v, keys.mask) for (k, v), keys in zip(pairs, sets, strict=True))
        return case.form(forms)(q, *of_sets, mesh=None)

    q, pairs = jax.tree.map(lambda x: x.astype(dtype), (q, [keys[:2] for keys in sets]))
    counts = jnp.asarray(case.counts)[..., None, None]
    out, back = jax.vjp(mixed, q, pairs)
    probe = _draw(7, out.shape, jnp.float32)
    gradients = back(jnp.where(counts, probe, 0.0).astype(out.dtype))
    finite = jnp.all(jnp.isfinite(out))  # of masked queries too: what is not a number spreads
    out = jnp.where(finite, jnp.where(counts, out, 0.0), jnp.nan)
    return [x.astype(jnp.float32) for x in jax.tree.leaves((out, gradients))]


def _apart(ours: list[jax.Array], right: list[jax.Array]) -> jax.Array:
    shares = [jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b)) for a, b in zip(ours, right, strict=True)]
    finite = jnp.stack([jnp.all(jnp.isfinite(a)) for a in ours])  # asked first: a maximum may pass over NaN
    return jnp.where(jnp.all(finite), jnp.max(jnp.stack(shares)), jnp.inf)


def _anywhere(here: bool) -> bool:
    """Whether it is so in any process."""
    if jax.process_count() == 1:
        return here
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.array(here))))
