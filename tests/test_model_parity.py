"""Our model against `transformers` 5.23 in float32: parts to 1e-5, logits to 1e-4, greedy tokens exactly.

The mutations at the end break the model on purpose and see that these comparisons notice.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

torch = pytest.importorskip("torch", reason="parity with transformers needs torch (the 'test' extra)")
import qwen_reference as ref  # noqa: E402

from fgrpo_jax.model import text, vision
from fgrpo_jax.model.attention import attend  # noqa: E402
from fgrpo_jax.model.config import ModelConfig  # noqa: E402
from fgrpo_jax.model.qwen2_5_vl import Model  # noqa: E402
from fgrpo_jax.weights import importer

# 2×2, 2×N, N×2, sides not divisible by 8, sides exactly divisible by 8, several images, a video of 2 frames, only text.
PROMPTS = [
    ref.make_prompt(0, [(1, 2, 2)]),
    ref.make_prompt(1, [(1, 2, 14)]),
    ref.make_prompt(2, [(1, 12, 2)]),
    ref.make_prompt(3, [(1, 10, 14)]),
    ref.make_prompt(4, [(1, 8, 16)]),
    ref.make_prompt(5, [(1, 4, 6), (1, 10, 12), (1, 2, 2)]),
    ref.make_prompt(6, [(2, 6, 10)], seconds=[1.5]),
    ref.make_prompt(7, []),
]
LOGITS = 1e-4
PART = 1e-5


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(reference, our model, our params), the weights carried over by save_pretrained and load_hf."""
    theirs = ref.reference_model()
    folder = tmp_path_factory.mktemp("reference")
    theirs.save_pretrained(folder)
    ours = Model.create(ModelConfig.load(folder))
    return theirs, ours, importer.load_hf(folder, ours, dtype=jnp.float32)


def run(model, params, prompts):
    features = model.encode(params, prompts.vision)
    hidden, kv = model.prefix(params, prompts, features)
    return model.logits(params, hidden), kv


def our_logits(model, params, prompts, **how) -> list[np.ndarray]:
    """Logits of each prompt's real tokens. Jitted anew each time, so that a mutation is not hidden by a cache."""
    inputs = ref.batch(prompts, model.config, **how)
    logits, _ = jax.jit(lambda params, inputs: run(model, params, inputs))(params, inputs)
    return [np.asarray(row)[np.asarray(mask)] for row, mask in zip(logits, inputs.mask, strict=True)]


def their_logits(model, prompt, extra=(), **changes) -> np.ndarray:
    inputs = ref.reference_inputs([prompt], extra=[np.asarray(extra, np.int64)]) | changes
    with torch.no_grad():
        return model(**{k: v for k, v in inputs.items() if v is not None}).logits[0].numpy()


def relative_error(ours, theirs) -> float:
    return float(np.max(np.abs(np.asarray(ours) - theirs)) / np.max(np.abs(theirs)))


@pytest.fixture(scope="module")
def golden(pair):
    return [their_logits(pair[0], prompt) for prompt in PROMPTS]


# ------------------------------------------------------------------------------------------------------------- logits
def test_logits(pair, golden):
    _, ours, params = pair
    errors = [relative_error(a, b) for a, b in zip(our_logits(ours, params, PROMPTS), golden, strict=True)]
    print("relative logit errors", errors)
    assert max(errors) <= LOGITS


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_padding_changes_nothing(pair, golden, left):
    """Neither its side, nor its amount, nor what it contains: tokens, positions, patches and empty image slots."""
    _, ours, params = pair
    padded = our_logits(ours, params, PROMPTS, pad_tokens=5, pad_patches=12, junk=1, left=left)
    assert max(relative_error(a, b) for a, b in zip(padded, golden, strict=True)) <= LOGITS


def test_logits_beyond_position_4000(pair):
    theirs, ours, params = pair
    prompt = PROMPTS[5]
    inputs = ref.batch([prompt], ours.config)
    inputs = inputs.replace(positions=inputs.positions + 4321)
    logits, _ = jax.jit(functools.partial(run, ours))(params, inputs)
    positions = torch.from_numpy(np.array(inputs.positions[0]).T[:, None].astype(np.int64))
    golden = their_logits(theirs, prompt, position_ids=positions, attention_mask=None)
    assert relative_error(logits[0], golden) <= LOGITS


def test_the_reference_needs_token_types(pair, golden):
    """Without `mm_token_type_ids` the reference falls back to text positions without a word."""
    wrong = their_logits(pair[0], PROMPTS[3], mm_token_type_ids=None)
    assert relative_error(wrong, golden[3]) > 100 * LOGITS


# -------------------------------------------------------------------------------------------------------------- parts
def one_layer(stacked: nnx.Module, index: int) -> nnx.Module:
    graph, state = nnx.split(stacked)
    return nnx.merge(graph, jax.tree.map(lambda x: x[index], state))


def record(modules: dict[str, torch.nn.Module], call) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(input, output) of each module during `call()`."""
    seen, hooks = {}, []
    for name, module in modules.items():

        def keep(_, args, kwargs, out, name=name):
            given = args[0] if args else kwargs["hidden_states"]
            seen[name] = (given.numpy(), (out[0] if isinstance(out, tuple) else out).numpy())

        hooks.append(module.register_forward_hook(keep, with_kwargs=True))
    with torch.no_grad():
        call()
    for hook in hooks:
        hook.remove()
    return seen


def test_parts_of_the_tower(pair):
    """Patch embedding, a window block, a full block and the merger, each given the reference's own input."""
    theirs, ours, params = pair
    tower = theirs.model.visual
    prompt = PROMPTS[3]
    (grid, patches) = prompt.images[0]
    parts = {"embed": tower.patch_embed, "window": tower.blocks[0], "full": tower.blocks[1], "merger": tower.merger}
    seen = record(parts, lambda: tower(torch.from_numpy(patches), grid_thw=torch.tensor([grid])))
    inputs = ref.batch([prompt], ours.config).vision
    flat = jax.tree.map(lambda x: x[:, 0], inputs)
    order = np.asarray(flat.windows[0]).reshape(-1)
    order = order[order < len(patches)]  # the reference works in window order

    def natural(x, rows=1):
        return np.concatenate([x[i : i + 1] for i in np.argsort(order[::rows])]) if rows > 1 else x[np.argsort(order)]

    @jax.jit
    def parts_of_ours(params, embed, window, full, merger):
        visual = ours.modules(params).visual
        config = visual.config
        rotation = vision.vision_rotation(flat.positions, head_dim=config.head_dim, theta=config.rope_theta)
        return {
            "embed": visual.patch_embed(embed),
            "window": one_layer(visual.blocks, 0)(window, rotation, flat, jnp.bool_(False)),
            "full": one_layer(visual.blocks, 1)(full, rotation, flat, jnp.bool_(True)),
            "merger": visual.merger(merger),
        }

    given = {name: patches if name == "embed" else natural(x[0]) for name, x in seen.items()}
    out = parts_of_ours(params, **{name: x[None] for name, x in given.items()})
    for name, (_, theirs_out) in seen.items():
        golden = {"embed": theirs_out, "merger": natural(theirs_out, rows=4)}.get(name)
        golden = natural(theirs_out) if golden is None else golden
        error = np.max(np.abs(np.asarray(out[name][0]) - golden))
        print(name, error, "of", np.max(np.abs(golden)))
        assert error <= PART, name


def test_decoder_layer(pair):
    theirs, ours, params = pair
    prompt = PROMPTS[5]
    layer = theirs.model.language_model.layers[1]
    given, golden = record({"layer": layer}, lambda: theirs(**ref.reference_inputs([prompt])))["layer"]
    inputs = ref.batch([prompt], ours.config)

    @jax.jit
    def layer_of_ours(params, x):
        model = ours.modules(params).text

        def causal(q, k, v):
            grouped = q.reshape(*q.shape[:2], k.shape[2], -1, q.shape[3])
            return attend(grouped, k, v, key_mask=inputs.mask, causal=True).out.reshape(q.shape), None

        return one_layer(model.layers, 1)(x, model.rotation(inputs.positions), causal)[0]

    error = np.max(np.abs(np.asarray(layer_of_ours(params, given)) - golden))
    print("decoder layer", error, "of", np.max(np.abs(golden)))
    assert error <= PART


# ----------------------------------------------------------------------------------------- shared prefix and decode
COMPLETED = [PROMPTS[5], PROMPTS[6], PROMPTS[1]]
GROUP, LENGTH = 2, 64


@pytest.fixture(scope="module")
def decoded(pair):
    """(tokens [M, G, T], logits of decode [M, G, T, V]): rollout 0 is greedy, rollout 1 greedy after a forced first."""
    _, ours, params = pair
    inputs = ref.batch(COMPLETED, ours.config, pad_tokens=3, junk=2)

    @jax.jit
    def generate(params, inputs):
        logits, kv = run(ours, params, inputs)
        last = jnp.take_along_axis(logits, jnp.sum(inputs.mask, -1)[:, None, None] - 1, axis=1)[:, 0]
        first = jnp.argsort(-last, axis=-1)[:, :GROUP]

        def step(carry, t):
            tokens, cache = carry
            hidden, cache = ours.decode(
                params, tokens, t, inputs.next_position, prefix=kv, prefix_mask=inputs.mask, cache=cache
            )
            logits = ours.logits(params, hidden)
            return (jnp.argmax(logits, -1), cache), (tokens, logits)

        cache = ours.empty_cache(len(COMPLETED), GROUP, LENGTH, jnp.float32)
        _, (tokens, logits) = jax.lax.scan(step, (first, cache), jnp.arange(LENGTH))
        return jnp.moveaxis(tokens, 0, -1), jnp.moveaxis(logits, 0, 2)

    return jax.tree.map(np.asarray, generate(params, inputs))


def test_greedy_tokens_equal(pair, decoded):
    """64 tokens after prompts with images and video, the reference run as a left-padded batch."""
    theirs, _, _ = pair
    inputs = ref.reference_inputs(COMPLETED)
    with torch.no_grad():
        out = theirs.generate(**inputs, max_new_tokens=LENGTH, do_sample=False, eos_token_id=[], pad_token_id=297)
    np.testing.assert_array_equal(decoded[0][:, 0], out[:, inputs["input_ids"].shape[1] :].numpy())


def test_decode_equals_the_whole_sequence(pair, decoded):
    """Every rollout of a group: step by step on a shared prefix = the reference on prompt and completion at once."""
    theirs, _, _ = pair
    tokens, logits = decoded
    for m, prompt in enumerate(COMPLETED):
        for g in range(GROUP):
            golden = their_logits(theirs, prompt, extra=tokens[m, g])[len(prompt.tokens) :]
            assert relative_error(logits[m, g], golden) <= LOGITS


def suffix_logits(model, params, inputs, tokens, mask):
    _, kv = run(model, params, inputs)
    hidden = model.suffix(params, tokens, mask, inputs.next_position, prefix=kv, prefix_mask=inputs.mask)
    return model.logits(params, hidden)


def test_suffix_equals_decode(pair, decoded):
    """The learner's pass gives what the sampler gave; masked completion tokens do not disturb those before them."""
    _, ours, params = pair
    tokens, logits = decoded
    inputs = ref.batch(COMPLETED, ours.config, pad_tokens=3, junk=3)
    lengths = np.random.default_rng(0).integers(1, LENGTH + 1, tokens.shape[:2])
    mask = np.arange(LENGTH) < lengths[..., None]
    tokens = np.where(mask, tokens, 5)
    ours_logits = jax.jit(functools.partial(suffix_logits, ours))(params, inputs, tokens, mask)
    assert relative_error(np.asarray(ours_logits)[mask], logits[mask]) <= LOGITS


# ---------------------------------------------------------------------------------------------------------- mutations
def everywhere_full(q, k, v, inputs):
    return vision._full_attention(q, k, v, inputs)


def windows_with_neighbours(x, windows, slots, valid):
    """Window rows gathered one patch off."""
    return vision._gather(x, (slots + 1) % (windows.shape[1] * 64), valid)


def pairs_interleaved(x, rotation):
    cos, sin = rotation.cos[..., None, :], rotation.sin[..., None, :]
    even, odd = x[..., ::2], x[..., 1::2]
    return jnp.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1).reshape(x.shape)


def sections_ignored(positions, *, head_dim, theta, sections):
    return text_rotation(positions, head_dim=head_dim, theta=theta, sections=(sum(sections),))


text_rotation = text.text_rotation
MUTATIONS = {
    "window mask missing": (vision, "_window_attention", everywhere_full),
    "windows one patch off": (vision, "_from_windows", windows_with_neighbours),
    "vision rotary halves swapped": (vision, "rotate", pairs_interleaved),
    "text rotary halves swapped": (text, "rotate", pairs_interleaved),
    "sections ignored": (text, "text_rotation", sections_ignored),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_breaks_parity(pair, golden, monkeypatch, name):
    _, ours, params = pair
    monkeypatch.setattr(*MUTATIONS[name])
    chosen = [3, 5]
    broken = our_logits(ours, params, [PROMPTS[i] for i in chosen])
    assert min(relative_error(a, golden[i]) for a, i in zip(broken, chosen, strict=True)) > 10 * LOGITS


@pytest.mark.slow
def test_dropped_position_delta_breaks_parity(pair, decoded):
    """Completion positions counted from the prompt's length instead of its largest position + 1."""
    _, ours, params = pair
    tokens, logits = decoded
    inputs = ref.batch(COMPLETED, ours.config, pad_tokens=3)
    wrong = inputs.replace(next_position=jnp.sum(inputs.mask, axis=-1).astype(jnp.int32))
    mask = np.ones(tokens.shape, bool)
    ours_logits = jax.jit(functools.partial(suffix_logits, ours))(params, wrong, tokens, mask)
    errors = [relative_error(a, b) for a, b in zip(ours_logits, logits, strict=True)]
    # The last image is one row of tokens, as long as it is wide: its delta is 0 and nothing may change.
    assert min(errors[:2]) > 10 * LOGITS and errors[2] <= LOGITS
