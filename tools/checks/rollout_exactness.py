"""Rollouts that can be reproduced: noise and tokens under other layouts, shared prefix against repeated computation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from checks import runs
from checks.record import Check, at_most, same

VOCAB = 1000


def noise(_: runs.Context) -> Iterator[Check]:
    """Noise of a rollout is the same bits in every batch it can stand in, and other bits for any other key."""
    import jax

    from fgrpo_jax.rollout.noise import gumbel, key_words, noise_keys

    ids: Any = np.arange(6, dtype=np.uint32) * 77
    again: Any = np.zeros(6, np.uint32)

    def draw(rows: list[int], *, group: int = 5, step: int = 2, seed: int = 5, t: int = 3) -> np.ndarray:
        words: Any = key_words(seed, purpose="train", step=step)
        keys = noise_keys(words, prompt_id=ids[rows], occurrence=again[rows], group_size=group)
        return np.asarray(jax.jit(gumbel, static_argnums=2)(keys, t, VOCAB)).view(np.uint32)

    whole = draw(list(range(6)))
    layouts = [([5, 3, 1, 0], 5), ([2], 5), ([4, 0, 2], 2), ([1, 2, 3], 1)]
    unlike = sum(int((draw(rows, group=group) != whole[rows, :group]).sum()) for rows, group in layouts)
    yield same(f"noise/bits that differ in {len(layouts)} other layouts", unlike, 0)
    others = [draw([0, 1], step=3), draw([0, 1], seed=6), draw([0, 1], t=4), whole[[1, 0]], np.roll(whole, 1, 1)[:2]]
    repeated = sum(bool((other == whole[:2]).mean() > 0.01) for other in others)
    yield same("noise/other step, seed, token, prompt or member with the same noise", repeated, 0)


QUICK = {"xla_backend_optimization_level": 0}
"""Of programs that are compiled for longer than they run."""


@dataclasses.dataclass(frozen=True)
class Policy:
    """The policy under test with mixed prompts: images of several sizes, two images, none."""

    model: Any
    processor: Any
    params: Any
    prompts: Any

    @classmethod
    def load(cls, context: runs.Context) -> Policy:
        import jax.numpy as jnp

        from fgrpo_jax.data.buckets import Buckets
        from fgrpo_jax.data.processor import Processor
        from fgrpo_jax.data.prompts import collate
        from fgrpo_jax.model.qwen2_5_vl import Model
        from fgrpo_jax.weights import importer
        from fgrpo_jax.world.examples import World

        processor = Processor.load(context.policy)
        world = World("tiny")
        examples = [world.example(index) for index in range(8)]
        examples[2] = dataclasses.replace(examples[2], images=examples[2].images + examples[3].images)
        examples[5] = dataclasses.replace(examples[5], images=())
        limits: dict[str, Any] = {"min_pixels": 56 * 56, "max_pixels": 112 * 112}
        encoded = [processor.encode(example, style="tiny", **limits) for example in examples]
        model = Model.create(processor.config)
        prompts = collate(encoded, buckets=Buckets(prompt=(96,), patches=(64,)), pad_id=processor.pad_id)
        return cls(model, processor, importer.load_hf(context.policy, model, dtype=jnp.float32), prompts)

    def sampler(self, **settings: Any) -> Any:
        from fgrpo_jax.rollout.sampler import Sampler

        processor = self.processor
        known = {"eos_ids": processor.eos_ids, "pad_id": processor.pad_id, "banned": processor.banned}
        sizes = {"group_size": 4, "max_new_tokens": 48, "check_every": 4, "compiler_options": QUICK}
        return Sampler(self.model, **{**known, **sizes, **settings})

    def draw(self, sampler: Any, prompts: Any = None, *, step: int = 0) -> Any:
        import jax

        prompts = self.prompts if prompts is None else prompts
        return jax.device_get(sampler.sample(self.params, prompts, seed=0, purpose="check", step=step))


def layouts(context: runs.Context) -> Iterator[Check]:
    """The same rollouts in another order, in smaller batches, after a restart, and compacted."""
    import jax

    policy = Policy.load(context)
    sampler = policy.sampler()
    want = policy.draw(sampler)
    pick = lambda rows: jax.tree.map(lambda x: x[rows], policy.prompts)  # noqa: E731
    unlike = lambda rollouts, rows: int((rollouts.tokens != want.tokens[rows]).any(-1).sum())  # noqa: E731
    everything, order = list(range(8)), [5, 2, 7, 0, 1, 6, 3, 4]
    fewer = [(policy.draw(sampler, pick(rows)), rows) for rows in (order[:4], order[4:])]
    name = f"layouts/rollouts of {want.finished.size} that differ"
    yield same(f"{name} in another order", unlike(policy.draw(sampler, pick(order)), order), 0)
    yield same(f"{name} in batches of 4", sum(unlike(*part) for part in fewer), 0)
    policy.draw(sampler, step=1)
    compacted = policy.sampler(compact=True)
    yield same(
        f"{name} after another step, by a new sampler that compacts", unlike(policy.draw(compacted), everything), 0
    )
    other = policy.draw(sampler, step=1).tokens
    alike = int((other == want.tokens).all(-1).sum() + (want.tokens[:, :1] == want.tokens[:, 1:]).all(-1).sum())
    yield at_most(
        "layouts/rollouts that another step or member repeats, share", alike / (7 / 4 * want.finished.size), 0.4
    )


def shared_prefix(context: runs.Context) -> Iterator[Check]:
    """Greedy rollouts against prompt and completion run as one sequence, with padding on either side."""
    import jax
    import jax.numpy as jnp

    policy = Policy.load(context)
    sampler, prompts = policy.sampler(temperature=0.0, group_size=2, max_new_tokens=32), policy.prompts
    right = policy.draw(sampler)
    shift = prompts.mask.shape[1] - prompts.mask.sum(1)
    fields = ("tokens", "mask", "positions", "image_slot")
    left = prompts.replace(
        **{
            k: np.stack([np.roll(x, n, axis=0) for x, n in zip(getattr(prompts, k), shift, strict=True)])
            for k in fields
        }
    )
    yield same(
        "shared_prefix/rollouts that differ with padding on the left",
        int((policy.draw(sampler, left).tokens != right.tokens).any(-1).sum()),
        0,
    )
    window = right.tokens.shape[-1]
    follow = prompts.next_position[:, None] + np.arange(window)
    whole = left.replace(
        tokens=np.concatenate([left.tokens, right.tokens[:, 1]], axis=1),
        mask=np.concatenate([left.mask, right.mask[:, 1]], axis=1),
        positions=np.concatenate([left.positions, np.repeat(follow[..., None], 3, axis=-1)], axis=1).astype(np.int32),
        image_slot=np.pad(left.image_slot, ((0, 0), (0, window)), constant_values=-1),
    )

    def repeated(params: Any, whole: Any) -> tuple[jax.Array, jax.Array]:
        hidden, _ = policy.model.prefix(params, whole, policy.model.encode(params, whole.vision))
        before = hidden[:, -window - 1 : -1]
        scores = sampler.scores(policy.model.logits(params, before), index=0)
        return jnp.argmax(scores, axis=-1), jax.nn.log_softmax(scores)

    best, logps = jax.device_get(jax.jit(repeated, compiler_options=QUICK)(policy.params, whole))
    tokens, mask = right.tokens[:, 1], right.mask[:, 1]
    yield same(
        "shared_prefix/greedy tokens that differ from the repeated computation", int((best != tokens)[mask].sum()), 0
    )
    found = np.take_along_axis(logps, tokens[..., None], axis=-1)[..., 0]
    yield at_most(
        "shared_prefix/log-probs, worst difference", float(np.abs(found - right.logps[:, 1])[mask].max()), 1e-5
    )
