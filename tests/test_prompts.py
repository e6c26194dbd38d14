"""Tokenizer, chat text, placeholders, reference responses, padding."""

import itertools
import json
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import small_tokenizer

from fgrpo_jax.data import images
from fgrpo_jax.data.buckets import Buckets, ladder
from fgrpo_jax.data.processor import Processor
from fgrpo_jax.data.prompts import collate, collate_supervised, count_occurrences
from fgrpo_jax.data.styles import STYLES, find_style
from fgrpo_jax.records import Example, ImageSize, Video
from tests.folders import texts, write_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("folder"))


@pytest.fixture(scope="module")
def processor(folder):
    return Processor.load(folder)


def example(
    *sizes, question="Where is the red circle relative to the blue square?", options=("left", "right"), **kwargs
):
    rng = np.random.default_rng(0)
    pictures = tuple(rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in sizes)
    values = {"id": "ex-1", "answer": "A", "source": "test"} | kwargs
    return Example(images=pictures, question=question, options=options, **values)


# ---------------------------------------------------------------------------------------------------------- tokenizer
def test_what_must_be_one_token_is_one(processor):
    def pieces(text):
        return [processor.tokenizer.decode([i]) for i in processor.tokenizer(text)["input_ids"]]

    for number in range(0, 141, 7):
        assert pieces(str(number)) == [str(number)]
    got = pieces("<think>The red circle is at <bbox>[0,14,140,7]</bbox>.</think><answer>A</answer>")
    assert got == [
        *("<think>", "The", " red", " circle", " is at <bbox>[", "0,", "14,", "140,", "7", "]</bbox>."),
        *("</think><answer>", "A", "</answer>"),
    ]


def test_parts_of_glued_tokens_are_tokens_too(processor):
    """What a policy may write a little otherwise stays cheap: tags alone, a number before a bracket."""
    for text in ("<think>", "</think>", "<answer>", "</answer>", "<bbox>[", "]</bbox>", "140", "140,", "\nB."):
        assert len(processor.tokenizer(text + (" " if text[0] == "\n" else ""))["input_ids"]) <= 2, text


@pytest.mark.parametrize("text", ["héllo wörld 日本 🙂", "  two  blanks\t\n\n", "12345678 [1,2,3,4] <b>&amp;</b>", ""])
def test_any_text_survives(processor, text):
    assert processor.decode(processor.tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_vocabulary_has_the_size_asked_for_and_is_reproducible():
    one, two = (small_tokenizer.train(texts(), vocab_size=400) for _ in range(2))
    assert one.get_vocab_size() <= 400
    assert one.to_str() == two.to_str()
    assert all(one.token_to_id(token) is not None for token in (*small_tokenizer.SPECIAL, *small_tokenizer.ADDED))


def test_impossible_vocabularies():
    with pytest.raises(ValueError, match="vocab_size 250 is below"):
        small_tokenizer.train(texts(), vocab_size=250)
    with pytest.raises(ValueError, match="'two words' is 2 pieces"):
        small_tokenizer.train(texts(), atoms=("two words",))


# ---------------------------------------------------------------------------------------------------------- chat text
def test_chat_text_and_placeholders(processor):
    prompt = processor.encode(example((56, 84), (28, 28)), style="tiny")
    assert prompt.text == (
        "<|im_start|>system\nThink, then answer.<|im_end|>\n<|im_start|>user\n"
        "<|vision_start|><|image_pad|><|vision_end|><|vision_start|><|image_pad|><|vision_end|>"
        "Where is the red circle relative to the blue square?\nA. left\nB. right<|im_end|>\n<|im_start|>assistant\n"
    )
    assert prompt.grids == ((1, 4, 6), (1, 2, 2))
    places = np.flatnonzero(prompt.tokens == processor.config.image_token_id)
    assert len(places) == 6 + 1
    np.testing.assert_array_equal(prompt.image_index[places], [0] * 6 + [1])
    np.testing.assert_array_equal(prompt.feature_index[places], [*range(6), 0])
    assert (np.delete(prompt.image_index, places) == -1).all()
    np.testing.assert_array_equal(prompt.image_slot(16)[places], [*range(6), 16])
    assert prompt.positions.shape == (len(prompt.tokens), 3)
    assert prompt.next_position == prompt.positions.max() + 1 < len(prompt.tokens)


def test_system_turn_is_configurable(processor):
    assert (
        "<|im_start|>system\nBe brief.<|im_end|>" in processor.encode(example(), style="tiny", system="Be brief.").text
    )
    assert "You are a helpful assistant." in processor.encode(example(), style="tiny", system="").text


def test_another_text_about_the_same_images(processor):
    """As if encoded by itself, but that the patches are the very same."""
    frames = np.random.default_rng(1).integers(0, 256, (3, 56, 56, 3), np.uint8)
    asked = example((56, 84), (28, 28), videos=(Video(frames, fps=1.0),))
    first = processor.encode(asked, style="tiny")
    user = find_style("paper").user_text(asked.question, asked.options)
    other = processor.reworded(first, system="Be brief.", user=user)
    want = processor.encode(asked, style="paper", system="Be brief.")
    assert other.text == want.text and other.next_position == want.next_position and other.patches is first.patches
    for name in ("tokens", "positions", "image_index", "feature_index", "seconds"):
        np.testing.assert_array_equal(getattr(other, name), getattr(want, name), err_msg=name)
    blind = processor.reworded(first, system="Be brief.", user=user, blind=True)
    assert blind.grids == blind.patches == blind.seconds == () and "<|vision_start|>" not in blind.text
    with pytest.raises(ValueError, match=r"'ex-1': a turn holds the reserved token '<\|im_end\|>'"):
        processor.reworded(first, system="", user="stop<|im_end|>")


def test_styles():
    paper = find_style("paper")
    assert paper.user_text("Why?", ("x", "y")).startswith("Question: Why?\nOptions:\nA. x\nB. y\n")
    assert "Options" not in paper.user_text("Why?", ()) and paper.user_text("Why?", ()).count("\n") == 1
    assert all(tag in paper.system for tag in ("<think>", "</answer>", "<bbox>[x1,y1,x2,y2]</bbox>"))
    assert STYLES["tiny"].user_text("{braces} stay", ()) == "{braces} stay"
    with pytest.raises(ValueError, match="unknown prompt style 'papr'"):
        find_style("papr")


def test_a_prefill_ends_the_prompt_and_begins_as_a_response_does(processor):
    """Token by token, with positions that go on, and nothing of it fed by an image."""
    plain = processor.encode(example((56, 84)), style="tiny")
    given = processor.encode(example((56, 84)), style="tiny", prefill="<think>")
    response = processor.encode_response("<think>The red circle", None)
    n, more = len(plain.tokens), len(given.tokens) - len(plain.tokens)
    assert more > 0 and given.text == plain.text + "<think>"
    np.testing.assert_array_equal(given.tokens, [*plain.tokens, *response[:more]])
    assert processor.decode(given.tokens[n:]) == "<think>" and (given.image_index[n:] == -1).all()
    np.testing.assert_array_equal(given.positions[n:, 0], plain.next_position + np.arange(more))
    assert given.next_position == plain.next_position + more and given.prompt_id == plain.prompt_id
    with pytest.raises(ValueError, match="a prefill holds the reserved token"):
        processor.encode(example(), style="tiny", prefill="<|im_end|>")


def test_every_token_says_its_bytes(processor):
    """Put together they are the text, however it is cut, with letters of several bytes; special tokens say nothing."""
    said = processor.token_bytes
    assert len(said) == processor.config.text.vocab_size
    for text in ("The answer is</answer>", "naïve 日本\n\t<bbox>[1,2]</bbox> x"):
        ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert b"".join(said[i] for i in ids) == text.encode()
    assert said[processor.eos_ids[0]] == said[processor.config.image_token_id] == b""


def test_prompt_without_images(processor):
    prompt = processor.encode(example(), style="tiny")
    assert not prompt.grids and (prompt.image_index == -1).all()
    assert prompt.next_position == len(prompt.tokens)


def test_too_long_a_prompt_names_both_numbers(processor):
    count = len(processor.encode(example((56, 84)), style="tiny").tokens)
    processor.encode(example((56, 84)), style="tiny", max_prompt_tokens=count)
    with pytest.raises(
        ValueError, match=rf"'ex-1'.*{count} tokens \(6 of images\).*max_prompt_tokens {count - 1}; raise"
    ):
        processor.encode(example((56, 84)), style="tiny", max_prompt_tokens=count - 1)


@pytest.mark.parametrize("field", ["question", "options"])
@pytest.mark.parametrize("reserved", ["<|image_pad|>", "<|im_end|>"])
def test_reserved_text_is_refused(processor, field, reserved):
    text = f"Ignore this {reserved} please"
    bad = example((28, 28), **{field: (text, "b") if field == "options" else text})
    with pytest.raises(ValueError, match=r"'ex-1'.*reserved token"):
        processor.encode(bad, style="tiny")


def test_a_template_that_loses_images_is_noticed(processor, monkeypatch):
    template = processor.tokenizer.chat_template.replace("<|image_pad|>", "")
    monkeypatch.setattr(processor.tokenizer, "chat_template", template)
    with pytest.raises(ValueError, match="'ex-1': 0 image placeholders for 1 images"):
        processor.encode(example((28, 28)), style="tiny")


def test_pixel_limits_may_be_overridden(processor):
    assert processor.encode(example((112, 112)), style="tiny", max_pixels=56 * 56).grids == ((1, 4, 4),)


def test_ids_depend_on_source_and_id_only(processor):
    ids = [processor.encode(example(id=i, source=s), style="tiny").prompt_id for i, s in ("ax", "bx", "ay", "ax")]
    assert len(set(ids)) == 3 and ids[0] == ids[3] and all(0 <= i < 2**32 for i in ids)


# ---------------------------------------------------------------------------------------------------- what is sampled
def test_banned_ids(processor):
    assert processor.banned.shape == (512,)
    ids = {token: processor.tokenizer.convert_tokens_to_ids(token) for token in small_tokenizer.SPECIAL}
    assert {token for token, index in ids.items() if processor.banned[index]} == {"<|image_pad|>", "<|video_pad|>"}
    assert processor.banned[len(processor.tokenizer) :].all()
    assert not processor.banned[processor.tokenizer(texts()[1])["input_ids"]].any()
    assert processor.eos_ids == (ids["<|im_end|>"], ids["<|endoftext|>"])
    assert processor.pad_id == ids["<|endoftext|>"]


def test_response_is_moved_into_the_processed_frame(processor):
    size = ImageSize(400, 100, 392, 112)
    ids = processor.encode_response("<think>It is at <bbox>[0,0,400,100]</bbox>.</think><answer>A</answer>", size)
    assert ids[-1] == processor.eos_ids[0]
    assert processor.decode(ids) == "<think>It is at <bbox>[0,0,392,112]</bbox>.</think><answer>A</answer>"
    assert "[0,0,400,100]" in processor.decode(processor.encode_response("[0,0,400,100]", None))
    with pytest.raises(ValueError, match="reserved token"):
        processor.encode_response("oops <|im_end|>", None)


def test_processor_travels_between_processes(processor):
    there = pickle.loads(pickle.dumps(processor))
    np.testing.assert_array_equal(there.encode(example((28, 28))).tokens, processor.encode(example((28, 28))).tokens)


# ------------------------------------------------------------------------------------------------------------ folders
def edited(folder, tmp_path, name, change):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    content = json.loads((copy / name).read_text())
    change(content)
    (copy / name).write_text(json.dumps(content))
    return copy


def test_other_dialect_of_pixel_limits(folder, tmp_path):
    def change(content):
        content["size"] = {"shortest_edge": content.pop("min_pixels"), "longest_edge": content.pop("max_pixels")}

    loaded = Processor.load(edited(folder, tmp_path, "preprocessor_config.json", change))
    assert (loaded.min_pixels, loaded.max_pixels) == (28 * 28, 448 * 448)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("preprocessor_config.json", lambda c: c.pop("min_pixels"), "neither min_pixels"),
        ("preprocessor_config.json", lambda c: c.update(patch_size=16), "patch_size is 16"),
        ("tokenizer_config.json", lambda c: c.pop("chat_template"), "no chat template"),
        ("config.json", lambda c: c.update(vocab_size=300), "but the model 300"),
    ],
)
def test_folders_that_do_not_fit(folder, tmp_path, name, change, message):
    with pytest.raises(ValueError, match=message):
        Processor.load(edited(folder, tmp_path, name, change))


def test_missing_file_is_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=r"preprocessor_config\.json does not exist"):
        Processor.load(tmp_path / "copy")


def test_a_single_eos_is_enough(folder, tmp_path):
    copy = edited(folder, tmp_path, "generation_config.json", lambda c: c.pop("eos_token_id"))
    assert Processor.load(copy).eos_ids == Processor.load(folder).eos_ids[:1]


# ------------------------------------------------------------------------------------------------------------ batches
def test_padding_changes_nothing_but_shapes(processor):
    """A prompt's rows are the same alone and beside a larger one; what is added is masked."""
    small, large = example((56, 84)), example((112, 140), (28, 28), question="Is it?", id="ex-2")
    encoded = [processor.encode(e, style="tiny") for e in (small, large)]
    alone, both = collate(encoded[:1], buckets=Buckets()), collate(encoded, buckets=Buckets())
    n, patches = len(encoded[0].tokens), 24
    for name in ("tokens", "mask", "positions"):
        np.testing.assert_array_equal(getattr(alone, name)[0, :n], getattr(both, name)[0, :n])
    assert both.mask.sum(1).tolist() == [len(e.tokens) for e in encoded]
    for name in ("patches", "positions", "valid"):
        np.testing.assert_array_equal(
            getattr(alone.vision, name)[0, 0, :patches], getattr(both.vision, name)[0, 0, :patches]
        )
    assert both.vision.valid.sum((1, 2)).tolist() == [24, 80 + 4]
    assert not both.vision.valid[0, 1].any() and (both.image_slot[~both.mask] == -1).all()


def test_batch_layout(processor):
    encoded = [processor.encode(example((112, 140), (56, 84)), style="tiny")]
    batch = collate(encoded, buckets=Buckets(), pad_id=3)
    vision, room = batch.vision, batch.vision.patches.shape[2]
    assert room == 128 and vision.windows.shape == (1, 2, 2, 64) and batch.tokens.shape[1] % 32 == 0
    assert (batch.tokens[~batch.mask] == 3).all()
    for i, (_, h, w) in enumerate(encoded[0].grids):
        n = h * w
        used = vision.windows[0, i][vision.windows[0, i] < room]
        assert sorted(used.tolist()) == list(range(n))
        np.testing.assert_array_equal(vision.windows[0, i].reshape(-1)[vision.slots[0, i, :n]], np.arange(n))
        np.testing.assert_array_equal(vision.positions[0, i, :n], images.patch_positions(h, w))
        want = images.two_frames(encoded[0].patches[i])
        np.testing.assert_array_equal(vision.patches[0, i, :n], want)
    fed = batch.image_slot[0][batch.image_slot[0] >= 0]
    np.testing.assert_array_equal(fed, [*range(20), *(room // 4 + np.arange(6))])
    dtypes = {leaf.dtype.name for leaf in (batch.tokens, batch.positions, batch.next_position, batch.image_slot)}
    assert dtypes == {"int32"} and batch.prompt_id.dtype == batch.occurrence.dtype == np.uint32


def test_text_only_batch_has_one_empty_image(processor):
    batch = collate([processor.encode(example(), style="tiny")], buckets=Buckets())
    assert batch.vision.patches.shape == (1, 1, 64, 1176) and not batch.vision.valid.any()
    assert (batch.vision.windows == 64).all()


def test_supervised_batch(processor):
    prompt = processor.encode(example((28, 28)), style="tiny")
    answers = [processor.encode_response(text, None) for text in ("left", "The red circle is left.")]
    batch, tokens, mask = collate_supervised([(prompt, ids) for ids in answers], buckets=Buckets(), pad_id=9)
    assert tokens.shape == mask.shape == (2, 1, 32)
    assert mask.sum(2).reshape(-1).tolist() == [len(ids) for ids in answers]
    assert [tokens[i, 0][mask[i, 0]].tolist() for i in range(2)] == [ids.tolist() for ids in answers]
    assert (tokens[~mask] == 9).all() and batch.occurrence.tolist() == [0, 1]


def test_occurrences():
    assert count_occurrences([5, 7, 5, 5, 7]).tolist() == [0, 0, 1, 2, 1]


def test_ladder_wastes_little():
    rungs = ladder(128, 20000, multiple=128)
    assert rungs[0] == 128 and rungs[-1] >= 20000 and all(rung % 128 == 0 for rung in rungs)
    assert all(b <= max(a + 128, 1.25 * a + 128) for a, b in itertools.pairwise(rungs))


def test_windows_always_fit_their_bucket():
    buckets = Buckets()
    for h in range(2, 60, 2):
        for w in (2, 4, 8, 10, 18, 34, 200):
            room = next(rung for rung in buckets.patches if rung >= h * w)
            assert images.count_windows(h, w) <= buckets.windows(room)[-1]


def test_buckets_too_small(processor):
    prompt = processor.encode(example((112, 140)), style="tiny")
    with pytest.raises(ValueError, match=r"80 patches of an image do not fit the largest bucket, 64"):
        collate([prompt], buckets=Buckets(patches=(64,)))
    with pytest.raises(ValueError, match="prompt tokens do not fit"):
        collate([prompt], buckets=Buckets(prompt=(8,)))
    with pytest.raises(ValueError, match=r"buckets\.patches must be multiples of 4"):
        Buckets(patches=(65,))
    with pytest.raises(ValueError, match="must rise"):
        Buckets(prompt=(64, 32))
    with pytest.raises(ValueError, match="at least one prompt"):
        collate([], buckets=Buckets())


@pytest.mark.slow
def test_torch_is_not_needed(folder):
    """A process that can import neither torch nor torchvision loads and encodes."""
    code = (
        "import sys; sys.modules['torch'] = sys.modules['torchvision'] = None\n"
        "import numpy as np\n"
        "from fgrpo_jax.data.processor import Processor\n"
        "from fgrpo_jax.records import Example\n"
        f"processor = Processor.load({str(folder)!r})\n"
        "example = Example('1', (np.zeros((56, 56, 3), np.uint8),), 'Where?', (), 'here')\n"
        "print(len(processor.encode(example).patches[0]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.split()[-1] == "16", done.stderr[-2000:]
