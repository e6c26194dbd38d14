"""The door `python -m fgrpo_jax.generate`, on a small random checkpoint; greedy tokens against transformers."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
import small_tokenizer as tokenizers
from checks.nlvr import their_inputs
from folders import two_templates
from PIL import Image
from policies import SMALL_TEXT

from fgrpo_jax import command
from fgrpo_jax import generate as door
from fgrpo_jax.data import images
from fgrpo_jax.data.buckets import Buckets
from fgrpo_jax.data.processor import Processor
from fgrpo_jax.data.prompts import collate
from fgrpo_jax.evaluation import asking
from fgrpo_jax.model.config import ModelConfig, TextConfig, VisionConfig
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.records import ImageSize, Rollouts
from fgrpo_jax.rollout.generate import Generation
from fgrpo_jax.rollout.sampler import Sampler
from fgrpo_jax.rollout.settings import Sampling
from fgrpo_jax.weights import exporter, importer

TEXTS = ["The red circle is left of the blue square. What is it?", "user assistant system You are a helpful assistant."]


def small_config(vocab: int, ids: dict[str, int]) -> ModelConfig:
    text = TextConfig(
        **SMALL_TEXT,
        vocab_size=vocab,
        rope_theta=10000.0,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
    )
    vision = VisionConfig(
        depth=2,
        hidden_size=16,
        num_heads=2,
        intermediate_size=24,
        fullatt_block_indexes=(1,),
        out_hidden_size=32,
        tokens_per_second=2,
    )
    return ModelConfig(text=text, vision=vision, **{k: v for k, v in ids.items() if k != "vision_token_id"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint folder in HF format whose logits are far from flat, and two images."""
    root = tmp_path_factory.mktemp("generate")
    tokenizer = tokenizers.train(TEXTS, vocab_size=560)
    config = small_config(560, tokenizers.token_ids(tokenizer))
    model = Model.create(config)
    params = model.init(jax.random.key(0))
    params["text"]["embed"]["table"] = params["text"]["embed"]["table"] * 20
    (root / "source").mkdir()
    tokenizers.save(root / "source", tokenizer, min_pixels=28 * 28, max_pixels=112 * 112)
    two_templates(root / "source")
    (root / "source" / "config.json").write_text(json.dumps(config.to_hf()))
    exporter.save_hf(root / "hf", params, model, source=root / "source")
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (90, 130)), ("b.png", (60, 60))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / name)
    return root


def run(folder, *flags: str) -> int:
    return command.run(door.main, door.parser(), [f"--hf={folder / 'hf'}", *flags])


def test_json_is_one_line_of_the_documented_form(folder, capsys):
    images = [f"--image={folder / name}" for name in ("a.png", "b.png")]
    assert run(folder, *images, "--prompt=What is {it}?", "--num=3", "--max_new_tokens=6", "--json") == 0
    first = capsys.readouterr().out
    assert first.count("\n") == 1
    out = json.loads(first)
    assert out["prompt"] == "What is {it}?" and len(out["samples"]) == 3
    processor = Processor.load(folder / "hf")
    for sample in out["samples"]:
        assert list(sample) == ["text", "tokens", "logprob", "boxes"]
        assert 1 <= len(sample["tokens"]) <= 6 and processor.decode(sample["tokens"]) == sample["text"]
        assert sample["logprob"] < 0
    assert len({tuple(s["tokens"]) for s in out["samples"]}) == 3
    assert run(folder, *images, "--prompt=What is {it}?", "--num=3", "--max_new_tokens=6", "--json") == 0
    assert capsys.readouterr().out == first  # same seed, same line


def test_text_output_says_what_a_person_wants(folder, capsys):
    assert run(folder, "--prompt=What?", "--temperature=0", "--max_new_tokens=3", "--dtype=bfloat16") == 0
    out = capsys.readouterr().out
    assert "--- sample 1: 3 tokens" in out and "log-prob -" in out and "tokens/s" in out


def test_boxes_are_shown_in_the_frame_of_the_text_and_of_the_file(capsys):
    text = "<think>the cube <bbox>[14,28,56,84]</bbox> and <bbox>[bad]</bbox></think>"
    rollouts = Rollouts(
        tokens=np.array([[[5, 6]]]),
        mask=np.ones((1, 1, 2), bool),
        logps=np.full((1, 1, 2), -0.25, np.float32),
        finished=np.ones((1, 1), bool),
    )
    drawn = Generation(rollouts=rollouts, texts=((text,),), tokens=2, seconds=0.5)
    assert asking.samples(drawn) == [
        {"text": text, "tokens": [5, 6], "logprob": -0.5, "boxes": ((14.0, 28.0, 56.0, 84.0),)}
    ]
    asking.report(drawn, images=["a.png"], sizes=[ImageSize(224, 224, 112, 112)])
    out = capsys.readouterr().out
    assert "box [14, 28, 56, 84] = [28, 56, 112, 168] in a.png" in out and "4.0 tokens/s" in out


def test_the_prompt_is_one_bare_user_turn(folder):
    processor = Processor.load(folder / "hf")
    plain = asking.encode(processor, "Where?", images=[str(folder / "a.png")], system="")
    user = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Where?<|im_end|>\n<|im_start|>assistant\n"
    assert plain.text.endswith(user)
    told = asking.encode(processor, "Where?", images=[], system="Be brief.")
    assert "system\nBe brief.<|im_end|>" in told.text and "Be brief." not in plain.text


@pytest.mark.slow
def test_an_answer_is_begun_and_ended_as_asked(folder, capsys):
    """Greedy from a prefill; a stop sequence that the answer holds cuts it there, and not before --min_new_tokens."""
    flags = ["--prompt=What?", "--prefill=The red", "--temperature=0", "--max_new_tokens=12", "--json"]

    def tokens(*more: str) -> list[int]:
        assert run(folder, *flags, *more) == 0
        return json.loads(capsys.readouterr().out)["samples"][0]["tokens"]

    processor = Processor.load(folder / "hf")
    prompt = asking.encode(processor, "What?", images=[], system="", prefill="The red")
    assert prompt.text.endswith("<|im_start|>assistant\nThe red")
    whole = tokens()
    said = processor.token_bytes[whole[2]].decode()
    stops = [n + 1 for n, token in enumerate(whole) if said in processor.token_bytes[token].decode(errors="replace")]
    assert len(whole) == 12 and tokens(f"--stop={said}") == whole[: stops[0]]
    assert len(tokens(f"--stop={said}", "--min_new_tokens=12")) == 12


def test_what_a_token_says(folder):
    processor = Processor.load(folder / "hf")
    text = "The red circle is left of the blue square: é, 日 and \x07.<tool_call>"
    ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert b"".join(processor.token_bytes[index] for index in ids) == text.encode()
    assert processor.token_bytes[processor.eos_ids[0]] == b"" and len(processor.token_bytes) == 560


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--image=nowhere.png"], "nowhere.png does not exist"),
        (["--temperature=-1"], "temperature is -1.0"),
        (["--max_new_tokens=0"], "0 is less than 1"),
        (["--seed=-1"], "outside 0"),
        (["--dtype=int8"], "invalid choice"),
    ],
)
def test_mistakes_end_in_a_message_and_an_exit_code(folder, capsys, flags, message):
    try:
        code = run(folder, "--prompt=What?", *flags)
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert code not in (0, None) and message in captured.err and not captured.out


def test_a_missing_folder_is_named(tmp_path, capsys):
    assert command.run(door.main, door.parser(), [f"--hf={tmp_path / 'none'}", "--prompt=What?"]) == 1
    assert "none" in capsys.readouterr().err


def test_the_checkpoints_dtype_is_read_in_every_dialect(tmp_path):
    for config, want in (
        ({"torch_dtype": "bfloat16"}, "bfloat16"),
        ({"dtype": "float16"}, "float16"),
        ({"text_config": {"dtype": "bfloat16"}}, "bfloat16"),
        ({}, "float32"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert asking.checkpoint_dtype(tmp_path) == want


@pytest.mark.slow
def test_greedy_tokens_equal_those_of_transformers(folder):
    """Image prompts and a text-only one, 24 tokens each; what we ban is suppressed there, and nothing is penalised."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    processor = Processor.load(folder / "hf")
    prompts = [
        asking.encode(processor, text, images=[str(folder / name) for name in names], system="")
        for text, names in (("What is it?", ["a.png"]), ("The blue square", ["b.png", "a.png"]), ("What is left?", []))
    ]
    model = Model.create(processor.config)
    sampler = Sampler(
        model,
        Sampling(group_size=1, max_new_tokens=24, temperature=0.0),
        eos_ids=processor.eos_ids,
        pad_id=processor.pad_id,
        banned=processor.banned,
    )
    params = importer.load_hf(folder / "hf", model, dtype="float32")
    batch = collate(prompts, buckets=Buckets(), pad_id=processor.pad_id)
    ours = jax.device_get(sampler.sample(params, batch, seed=0, purpose="eval", step=0))
    theirs = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(folder / "hf", dtype=torch.float32)
    for row, prompt in enumerate(prompts):
        image = {}
        if prompt.grids:
            pixels = [images.normalise_patches(patches) for patches in prompt.patches]
            image = {"pixel_values": torch.tensor(np.concatenate(pixels)), "image_grid_thw": torch.tensor(prompt.grids)}
        inputs = their_inputs(prompt, image, model.config.image_token_id)
        out = theirs.generate(
            **inputs,
            max_new_tokens=24,
            do_sample=False,
            repetition_penalty=1.0,
            suppress_tokens=np.flatnonzero(processor.banned).tolist(),
            eos_token_id=list(processor.eos_ids),
            pad_token_id=processor.pad_id,
        )[0, len(prompt.tokens) :].tolist()
        mask = ours.mask[row, 0]
        assert out == ours.tokens[row, 0][mask].tolist()
