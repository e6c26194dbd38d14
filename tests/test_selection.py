"""What training reads of its source: the length filter with its cache, and lists of kept ids."""

import dataclasses
import json
import os

import policies
import pytest
import runs
from ml_collections import ConfigDict
from tests.folders import write_folder

from fgrpo_jax.config import files
from fgrpo_jax.config import load as configs
from fgrpo_jax.configs import default
from fgrpo_jax.data import lengths
from fgrpo_jax.data.pipeline import Encoder, PromptIterator
from fgrpo_jax.data.processor import Processor
from fgrpo_jax.data.sets import subsets
from fgrpo_jax.data.sets.catalogue import open_set
from fgrpo_jax.training import datasets, selection

ROOT = policies.ROOT
LONG = "Where is the thing that stands beside the other thing that stands behind it? " * 4


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    return Processor.load(write_folder(tmp_path_factory.mktemp("folder")))


@pytest.fixture
def data(tmp_path):
    """A folder of six questions, the third and the last of them long; and a cache of its own."""
    folder = tmp_path / "data"
    lines = runs.write_questions(folder, count=6)
    for index in (2, 5):
        lines[index]["question"] = LONG * (1 + index)
    runs.write_lines(folder, lines)
    return folder


def made(processor, data, **fields):
    """(config, source, encoder) of the questions."""
    chosen = {"data__source": "jsonl", "data__path": data, "data__eval_split": "held"}
    chosen |= {"data__max_prompt_tokens": 200, "data__length_cache": data.parent / "cache"}
    config = policies.config("unused", **chosen | fields)
    limits = {"min_pixels": config.data.min_pixels, "max_pixels": config.data.max_pixels}
    encoder = Encoder(processor, style="tiny", max_prompt_tokens=config.data.max_prompt_tokens, **limits)
    return config, open_set("jsonl", data, split="train"), encoder


def ids(source):
    return [source[index].id for index in range(len(source))]


# -------------------------------------------------------------------------------------------------------- length filter
def test_nothing_is_chosen_or_measured_unless_asked(processor, data):
    config, source, encoder = made(processor, data)
    chosen = selection.select(config, source, encoder)
    assert chosen.source is source and chosen.known is None and chosen.digest == ""
    assert not (data.parent / "cache").exists()


def test_longer_prompts_are_left_out_and_counted(processor, data, capsys):
    config, source, encoder = made(processor, data, data__overlong="drop")
    chosen = selection.select(config, source, encoder)
    assert ids(chosen.source) == ["q0", "q1", "q3", "q4"]
    longest = encoder.measure(source[5]).prompt
    said = capsys.readouterr().out
    assert "2 of 6 prompts exceed 200 tokens and are left out" in said and f"{longest:,} tokens" in said
    lines = [encoder(chosen.source[index])[1].need for index in range(4)]
    assert chosen.known.tolist() == [[n.prompt, n.patches, n.images, n.windows] for n in lines]


def test_without_the_filter_a_longer_prompt_is_an_error(processor, data):
    config, source, encoder = made(processor, data)
    iterator = PromptIterator(selection.select(config, source, encoder).source, encoder, batch_size=6)
    with pytest.raises(ValueError, match="exceeds max_prompt_tokens 200"):
        next(iterator)
    iterator.close()


def test_no_prompt_left_is_an_error(processor, data):
    config, source, encoder = made(processor, data, data__overlong="drop", data__max_prompt_tokens=8)
    with pytest.raises(ValueError, match=r"every prompt exceeds config.data.max_prompt_tokens=8 \(the shortest has"):
        selection.select(config, source, encoder)


@pytest.fixture
def counted(monkeypatch):
    """The ids that are measured, as they are."""
    seen, measure = [], Encoder.measure

    def counting(self, example):
        seen.append(example.id)
        assert all(image.strides == (0, 0, 0) for image in example.images), "an image was decoded to be measured"
        return measure(self, example)

    monkeypatch.setattr(Encoder, "measure", counting)
    return seen


def test_the_second_run_measures_nothing(processor, data, counted):
    drop = {"data__overlong": "drop"}
    selection.select(*made(processor, data, **drop))
    assert counted == [f"q{index}" for index in range(6)]
    first = selection.select(*made(processor, data, **drop, data__max_prompt_tokens=300, data__prompts_per_step=16))
    assert len(counted) == 6 and len(first.source) == 4
    grouped = {"data__buckets__group": 4, "data__buckets__prompt": (), "data__buckets__patches": ()}
    selection.select(*made(processor, data, **grouped))  # grouping reads the same figures
    assert len(counted) == 6


@pytest.mark.parametrize("what", ["pixels", "style", "file", "rows"])
def test_what_changes_the_figures_has_them_measured_anew(processor, data, counted, what):
    config, source, encoder = made(processor, data, data__overlong="drop")
    selection.select(config, source, encoder)
    if what == "pixels":
        config, source, encoder = made(processor, data, data__overlong="drop", data__max_pixels=84 * 84)
    elif what == "style":
        encoder = Encoder(**{**vars(encoder), "style": "paper"})
    elif what == "file":
        os.utime(data / "train.jsonl", ns=(1, 1))
    else:
        runs.write_questions(data, count=7)
        source = open_set("jsonl", data, split="train")
    selection.needs(config, source, encoder)
    assert len(counted) == 6 + len(source)


def test_a_killed_measurement_goes_on(processor, data, counted, monkeypatch):
    config, source, encoder = made(processor, data, data__overlong="drop")
    monkeypatch.setattr(lengths, "SAVED_EVERY", -1.0)
    measure = Encoder.measure

    def killed(self, example):
        if example.id == "q4":
            raise KeyboardInterrupt
        return measure(self, example)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Encoder, "measure", killed)
        selection.select(config, source, encoder)
    assert ids(selection.select(config, source, encoder).source) == ["q0", "q1", "q3", "q4"]
    assert counted == ["q0", "q1", "q2", "q3", "q4", "q5"]


def test_the_endless_world_is_not_measured(processor):
    with pytest.raises(ValueError, match="the built-in world has no end"):
        policies.config("unused", data__overlong="drop")


def test_grouping_for_one_shape_is_refused():
    for fields in ({}, {"data__buckets__prompt": (), "data__buckets__patches": (), "data__buckets__choose": 1}):
        with pytest.raises(ValueError, match="puts prompts of one size together, but there is one shape"):
            policies.config("unused", data__buckets__group=4, **fields)


# ----------------------------------------------------------------------------------------------------------- kept lists
def keep(folder, config, source, names, **changes):
    """A list of kept ids in `folder`, as the filter writes it."""
    rows = [subsets.row_of(i, source[i]) for i in range(len(source)) if source[i].id in names]
    folder.mkdir(exist_ok=True)
    (folder / subsets.KEPT).write_text("".join(json.dumps(row | changes) + "\n" for row in rows))
    summary = {"data": selection.description(config, source), "examples": len(source), "policy": {"hf": "shipped"}}
    (folder / subsets.SUMMARY).write_text(json.dumps(summary))
    return folder


def test_training_reads_what_was_kept(processor, data, tmp_path, capsys):
    config, source, encoder = made(processor, data)
    kept = keep(tmp_path / "filter", config, source, {"q1", "q4", "q5"})
    for path in (kept, kept / subsets.KEPT, tmp_path):
        chosen = selection.select(*made(processor, data, data__filter=path))
        assert ids(chosen.source) == ["q1", "q4", "q5"]
        assert "filter: 3 of 6 examples kept" in capsys.readouterr().out
    both = selection.select(*made(processor, data, data__filter=kept, data__overlong="drop"))
    assert ids(both.source) == ["q1", "q4"] and both.digest != chosen.digest
    assert both.known.tolist() == [
        list(vars(encoder.measure(example)).values()) for example in map(source.__getitem__, (1, 4))
    ]


def test_rows_are_found_wherever_they_stand(processor, data, tmp_path):
    config, source, _ = made(processor, data)
    kept = keep(tmp_path / "filter", config, source, {"q1", "q4"})
    lines = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    runs.write_lines(data, lines[::-1])
    chosen = selection.select(*made(processor, data, data__filter=kept))
    assert sorted(ids(chosen.source)) == ["q1", "q4"]


def change(lines, what):
    if what == "id":
        lines[4]["id"] = "another"
    elif what == "question":
        lines[4]["question"] = "What else?"
    elif what == "options":
        lines[4]["options"] = ["right", "left"]
    else:
        lines.append(dict(lines[0], id="more"))
    return lines


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("id", "keeps 'train/q4', which the data does not have"),
        ("question", "keeps 'train/q4', which asks something else"),
        ("options", "keeps 'train/q4', which asks something else"),
        ("more", r"made for other data \(examples: 6 there, 7 here\)"),
    ],
)
def test_a_list_for_other_data_is_refused(processor, data, tmp_path, what, message):
    config, source, _ = made(processor, data)
    kept = keep(tmp_path / "filter", config, source, {"q1", "q4"})
    lines = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    runs.write_lines(data, change(lines, what))
    with pytest.raises(ValueError, match=message):
        selection.select(*made(processor, data, data__filter=kept))


def test_a_list_of_another_split_is_refused(processor, data, tmp_path):
    config, source, _ = made(processor, data)
    kept = keep(tmp_path / "filter", config, source, {"q1"})
    with pytest.raises(ValueError, match=r"other data \(data.train_split: train there, more here\)"):
        selection.select(*made(processor, data, data__filter=kept, data__train_split="more"))


def test_what_is_no_list_is_refused(processor, data, tmp_path):
    with pytest.raises(ValueError, match=r"config.data.filter='.*nowhere' is no list of kept ids"):
        selection.select(*made(processor, data, data__filter=tmp_path / "nowhere"))
    config, source, _ = made(processor, data)
    kept = keep(tmp_path / "filter", config, source, {"q1"})
    (kept / subsets.KEPT).write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        selection.select(*made(processor, data, data__filter=kept))
    (kept / subsets.SUMMARY).unlink()
    with pytest.raises(ValueError, match=r"has no summary.json beside it"):
        selection.select(*made(processor, data, data__filter=kept))


def test_a_list_that_keeps_nothing_is_refused(processor, data, tmp_path):
    config, source, _ = made(processor, data)
    kept = keep(tmp_path / "filter", config, source, set())
    with pytest.raises(ValueError, match="keeps no example"):
        selection.select(*made(processor, data, data__filter=kept))


def mixed(root, *, count=4):
    """The config of a mix of two files, of which the second gives `count` of its six questions."""
    overrides = [f"--config.data.path={root}", "--config.model.hf=unused"]
    raw = files.load_config(ROOT / "configs" / "paper_mix.py", overrides)
    members = {name: default.member("jsonl", count=n, boxes=True) for name, n in (("a", 6), ("b", count))}
    raw.data.mix = ConfigDict(members)
    return configs.load(raw)


def write_mix(root):
    for name in ("a", "b"):
        lines = runs.write_questions(root / name, count=6)
        runs.write_lines(root / name, [{**line, "id": f"{name}-{line['id']}", "source": name} for line in lines])


def test_a_mix_is_filtered_wherever_its_sets_lie(processor, tmp_path):
    write_mix(tmp_path / "here")
    config = mixed(tmp_path / "here")
    source = datasets.source(config, "train")
    kept = keep(tmp_path / "filter", config, source, {"a-q1", "a-q4", *(f"b-q{index}" for index in range(6))})
    (tmp_path / "here").rename(tmp_path / "there")
    config = mixed(tmp_path / "there")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, filter=str(kept)))
    chosen = selection.select(config, datasets.source(config, "train"), Encoder(processor))
    assert {"a-q1", "a-q4"} < set(ids(chosen.source)) and len(chosen.source) == 6
    other = mixed(tmp_path / "there", count=3)
    other = dataclasses.replace(other, data=dataclasses.replace(other.data, filter=str(kept)))
    with pytest.raises(ValueError, match="made for other data"):
        selection.select(other, datasets.source(other, "train"), Encoder(processor))


def test_the_state_of_another_choice_is_refused(processor, data, tmp_path):
    config, source, encoder = made(processor, data)
    states, iterators = [], []
    for names in ({"q0", "q1"}, {"q0", "q4"}):
        kept = keep(tmp_path / "filter", config, source, names)
        chosen = selection.select(*made(processor, data, data__filter=kept))
        iterators.append(PromptIterator(chosen.source, encoder, batch_size=2, selection=chosen.digest))
        states.append(iterators[-1].get_state())
    iterators[0].set_state(states[0])
    with pytest.raises(ValueError, match="the stored data position has selection"):
        iterators[1].set_state(states[0])
