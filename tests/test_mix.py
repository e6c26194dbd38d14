"""Mixes of sets and open answers: counts, masks by source, no example twice, the same for every process and order."""

import collections
import dataclasses

import numpy as np
import policies
import pytest
import runs
from tests import layouts

from fgrpo_jax import command, prepare, train
from fgrpo_jax.config import files
from fgrpo_jax.config import load as configs
from fgrpo_jax.configs import paper_mix
from fgrpo_jax.data.sets.catalogue import open_set
from fgrpo_jax.data.sets.choices import SettledSource, options_for, pools, settle
from fgrpo_jax.data.sets.mix import Member, MixSource
from fgrpo_jax.data.sets.published import Skipped
from fgrpo_jax.data.sets.readers.layout import Entry
from fgrpo_jax.data.sources import First, outline
from fgrpo_jax.records import Example, ImageSize
from fgrpo_jax.rewards.score import RewardConfig, score
from fgrpo_jax.rows import read_rows
from fgrpo_jax.training import datasets

ROOT = policies.ROOT


@dataclasses.dataclass(frozen=True)
class Listed:
    """A set of `size` examples with boxes, whose ids say where they stand."""

    name: str
    size: int
    skipped = Skipped()

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        image = np.zeros((28, 28, 3), np.uint8)
        return Example(f"{self.name}-{index}", (image,), "?", ("x", "y"), "A", ((0, 0, 9, 9),), source=self.name)

    @property
    def entries(self):
        return [Entry(f"{self.name}-{index}", "A", 2) for index in range(self.size)]


def mix(split="train", *, seed=0, sizes=(("sat", 40, 16), ("vgr", 20, 8), ("viscot", 30, 13))):
    return MixSource(
        [Member(name, Listed(name, size), count, boxes=name == "vgr") for name, size, count in sizes],
        split=split,
        seed=seed,
    )


def ids(source):
    return [source[index].id for index in range(len(source))]


def test_counts_masks_and_no_example_twice():
    source = mix()
    examples = [source[index] for index in range(len(source))]
    assert collections.Counter(e.source for e in examples) == {"sat": 16, "vgr": 8, "viscot": 13}
    assert all((e.boxes is not None) == (e.source == "vgr") for e in examples)
    assert len({e.id for e in examples}) == 37 == len(source)
    assert ids(source) == [entry.id for entry in source.entries]
    assert [outline(source, index).id for index in range(37)] == ids(source) and outline(source, 0).boxes is None
    assert str(source) == "train: 16 of 40 sat (no R_G), 8 of 20 vgr, 13 of 30 viscot (no R_G)"


def test_what_is_held_out_is_never_trained_on():
    train, held = mix(), mix("heldout")
    assert not set(ids(train)) & set(ids(held)) and len(held) == 90 - 37
    assert set(ids(train)) | set(ids(held)) == {
        f"{n}-{i}" for n, s in (("sat", 40), ("vgr", 20), ("viscot", 30)) for i in range(s)
    }


def test_the_first_of_a_mix_hold_their_share_of_every_member():
    for split, count in (("train", 37), ("heldout", 37)):
        first = First(mix(split), count)
        drawn = collections.Counter(first[index].source for index in range(count))
        assert all(abs(drawn[name] - share) <= 1 for name, share in (("sat", 16), ("vgr", 8), ("viscot", 13))), drawn


def test_the_draw_depends_on_seed_name_and_length_alone():
    assert ids(mix()) == ids(mix()) != ids(mix(seed=1))
    alone = mix(sizes=(("vgr", 20, 8),))
    assert sorted(ids(alone)) == sorted(name for name in ids(mix()) if name.startswith("vgr"))
    # Written down: the data of a run stay the same from release to release.
    assert ids(alone) == GOLDEN


GOLDEN = ["vgr-14", "vgr-3", "vgr-18", "vgr-0", "vgr-8", "vgr-17", "vgr-4", "vgr-5"]


def test_a_count_of_zero_takes_all():
    assert len(mix(sizes=(("sat", 5, 0), ("vgr", 4, 2)))) == 7
    held = mix("heldout", sizes=(("sat", 5, 0), ("vgr", 4, 2)))
    assert {name.partition("-")[0] for name in ids(held)} == {"vgr"}


def test_mixes_that_cannot_be():
    with pytest.raises(
        ValueError, match=r"asks for 7 examples of 'sat', which holds 5; lower config\.data\.mix\.sat\.count"
    ):
        mix(sizes=(("sat", 5, 7),))
    with pytest.raises(ValueError, match="holds nothing for split 'heldout'"):
        mix("heldout", sizes=(("sat", 5, 0),))
    with pytest.raises(ValueError, match="train and heldout, not 'test'"):
        mix("test")
    twice = [Member(name, Listed("sat", 5)) for name in ("one", "two")]
    with pytest.raises(ValueError, match="'one' and 'two' of the mix both hold an example 'sat-0'"):
        MixSource(twice, split="train", seed=0)


# --------------------------------------------------------------------------------------------------------- open answers
ANSWERS = ("red", "blue", "green", "Blue", "a long way off", "a very red car", "two open doors here", "up on the hill")
OPEN = [Entry(str(number), answer, 0) for number, answer in enumerate(ANSWERS)]


def test_wrong_answers_come_from_the_set_and_are_of_the_kind_of_the_right_one():
    others = pools(OPEN)
    options, letter = options_for(OPEN[0], others) or ((), "")
    assert options == () and letter == ""  # only two other colours, which makes no four options
    more = pools([*OPEN, Entry("9", "white", 0)])
    options, letter = options_for(OPEN[0], more)
    assert sorted(options, key=str.lower) == ["Blue", "green", "red", "white"]
    assert options["ABCD".index(letter)] == "red"
    assert options_for(OPEN[0], more) == options_for(OPEN[0], pools([Entry("9", "white", 0), *reversed(OPEN)]))
    options, letter = options_for(Entry("n", "7", 0), {})
    assert len(set(options)) == 4 and all(3 <= int(o) <= 11 for o in options) and options["ABCD".index(letter)] == "7"
    assert all(int(o) >= 0 for o in options_for(Entry("z", "0", 0), {})[0])
    assert sorted(options_for(Entry("y", "Yes", 0), {})[0]) == ["No", "Yes"]
    # An option that holds the right answer, or is held by it, might be right as well.
    assert "a very red car" not in (options_for(Entry("r", "a very red car at the", 0), pools(OPEN)) or ((),))[0]


def test_kept_dropped_or_turned_with_counts():
    entries = [*OPEN, Entry("9", "white", 0), Entry("m", "B", 3)]
    assert settle(entries, "keep").counts == {"kept": 9, "turned": 0, "dropped": 0}
    assert settle(entries, "drop").counts == {"kept": 0, "turned": 0, "dropped": 9}
    made = settle(entries, "choices")
    assert made.counts == {"kept": 0, "turned": 9, "dropped": 0} and list(made.places) == list(range(10))
    with pytest.raises(ValueError, match="all 8 questions are open, and open_answers='drop' leaves none"):
        settle(OPEN, "drop")


def test_a_set_with_open_answers(tmp_path):
    source = open_set("realworldqa", layouts.write("realworldqa", tmp_path))
    dropped, turned = SettledSource(source, "drop"), SettledSource(source, "choices")
    assert [e.id for e in map(dropped.__getitem__, range(len(dropped)))] == ["realworldqa-1", "realworldqa-3"]
    assert len(turned) == 4 and turned.settled.counts["turned"] == 2
    for index, entry in enumerate(turned.entries):
        example = turned[index]
        assert len(example.options) == entry.options > 2 and example.answer == entry.answer
        assert outline(turned, index).options == example.options
    example = turned[1]
    assert example.options["ABCD".index(example.answer)] == "2" and turned[0].options == source[0].options


# --------------------------------------------------------------------------------------------------------------- config
def published(tmp_path):
    for name in paper_mix.COUNTS:
        layouts.write(name, tmp_path / name)
    return tmp_path


def small(tmp_path, **fields):
    """The paper's mix with counts that the small files have."""
    counts = {"sat": 5, "vgr": 1, "viscot": 0, "treevgr_rl": 2}
    chosen = {f"data.mix.{name}.count": count for name, count in counts.items()}
    chosen |= {"data.path": published(tmp_path), "data.open_answers": "keep"}
    chosen |= {name.replace("__", "."): value for name, value in fields.items()}
    overrides = [f"--config.{name}={value}" for name, value in chosen.items()]
    return configs.load(files.load_config(ROOT / "configs" / "paper_mix.py", overrides))


def test_the_papers_mix_is_a_config(tmp_path, capsys):
    assert paper_mix.COUNTS == {"sat": 15_700, "vgr": 7_000, "viscot": 13_000, "treevgr_rl": 13_000}
    assert sum(paper_mix.COUNTS.values()) == 48_700
    config = small(tmp_path)
    train, held = (datasets.source(config, split) for split in ("train", "heldout"))
    assert (len(train), len(held)) == (5 + 1 + 2 + 2, 2 + 1 + 0 + 1) and not set(ids(train)) & set(ids(held))
    boxes = {e.source for e in map(train.__getitem__, range(len(train))) if e.boxes}
    assert boxes == {"vgr", "treevgr_rl"}
    assert (
        "mix, train: 5 of 7 sat (no R_G), 2 of 3 treevgr_rl, 1 of 2 vgr, 2 of 2 viscot (no R_G)"
        in capsys.readouterr().out
    )


def test_open_answers_of_a_mix_are_counted(tmp_path, capsys):
    config = small(tmp_path, data__open_answers="drop", data__mix__viscot__path=layouts.write("sat", tmp_path / "x"))
    with pytest.raises(ValueError, match="holds no"):
        datasets.source(config, "train")
    assert "open answers of vgr (train): 0 turned into choices, 1 dropped" in capsys.readouterr().out


def test_spatial_grounding_is_masked_by_source(tmp_path):
    """A right answer whose reasoning points at something: R_G applies on VGR and TreeVGR-RL, whose boxes are gold."""
    config = small(tmp_path)
    source = datasets.source(config, "train")
    examples = [source[index] for index in range(len(source))]
    texts = [[f"<think>A cup <bbox>[10,20,50,60]</bbox>.</think><answer>{e.answer}</answer>"] for e in examples]
    sizes = [ImageSize(e.images[0].shape[1], e.images[0].shape[0], 112, 84) for e in examples]
    signals, seen = score(examples, texts, sizes=sizes, config=RewardConfig())
    assert (signals.accuracy == 1).all()
    masked = {e.source: bool(m) for e, m in zip(examples, seen["spatial_mask"][:, 0], strict=True)}
    assert masked == {"sat": False, "vgr": True, "viscot": False, "treevgr_rl": True}


@pytest.mark.slow
def test_two_steps_on_the_mix(tmp_path, tiny_hf):
    """Published and prepared members, one image and two, choices and open answers, in one batch."""
    data = published(tmp_path / "data")
    argv = ["vgr", f"--src={data / 'vgr'}", f"--out={tmp_path / 'prepared'}", "--workers=0"]
    assert command.run(prepare.main, prepare.parser(), argv) == 0
    counts = {"sat": 5, "vgr": 1, "viscot": 0, "treevgr_rl": 2}
    given = {f"data.mix.{name}.count": count for name, count in counts.items()}
    given |= {"data.mix.vgr.path": tmp_path / "prepared", "data.path": data, "data.open_answers": "keep"}
    given |= {"data.max_prompt_tokens": 512, "data.buckets.prompt": (512,), "data.prompts_per_step": 10}
    given |= {"rollout.batch_prompts": 10, "algorithm.micro_batch_prompts": 5, "rollout.group_size": 2}
    given |= {"num_steps": 2, "rollout.max_new_tokens": 4, "eval.examples": 0, "checkpoint.every": 0}
    given |= {"constraints.semantic_grounding.enabled": False}  # rules do not read what these sets ask
    fields = {name.replace(".", "__"): value for name, value in given.items()}
    flags = [f"--config={ROOT / 'configs' / 'paper_mix.py'}:default", f"--workdir={tmp_path / 'run'}"]
    with runs.quick():
        code = command.run(train.main, train.parser(), [*flags, *policies.overrides(tiny_hf, **fields)])
    assert code == 0 and len(read_rows(tmp_path / "run" / "metrics.jsonl")) == 2
    trained = [[row["id"] for row in read_rows(f)] for f in sorted((tmp_path / "run" / "rollouts").glob("*"))]
    kinds = [collections.Counter(name.partition("-")[0] for name in step) for step in trained]
    assert kinds == [counts | {"viscot": 2}] * 2 and sorted(trained[0]) == sorted(trained[1]) != trained[1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(data__mix__sat__set="stat"), r"data\.mix\.sat\.set='stat' is no data set; did you mean 'sat'"),
        (dict(data__mix__sat__boxes=True), "boxes of 'sat' do not serve R_G; set it to False"),
        (dict(data__mix__sat__split="train["), r"data\.mix\.sat\.split: split 'train\[' reads as none"),
        (dict(data__eval_split="validation"), "a mix trains on 'train' and holds 'heldout' against it"),
        (dict(data__path=""), r"data\.mix\.sat has no folder; set config\.data\.path"),
        (dict(data__source="sat"), r"source='sat' does not read config\.data\.mix"),
    ],
)
def test_configs_that_cannot_be(fields, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        small(tmp_path, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(source="satt"), r"source='satt' is no data set; did you mean 'sat'"),
        (dict(source="mix"), r"source='mix' needs members in config\.data\.mix"),
        (dict(source="sat", path="x", train_split="train[:9]", eval_split="train[8:]"), "share examples"),
        (dict(source="sat", path="x", train_split="train[:90%]", eval_split="train[900:]"), "both in percent"),
        (
            dict(source="sat", path="x", train_split="train[", eval_split="b"),
            "train_split: split 'train.' reads as none",
        ),
        (dict(train_split="train[:9]"), "the built-in world is endless"),
        (dict(open_answers="drop"), "the built-in world asks no open questions"),
    ],
)
def test_data_that_cannot_be(fields, message):
    overrides = [f"--config.data.{name}={value}" for name, value in fields.items()]
    with pytest.raises(ValueError, match=message):
        configs.load(files.load_config(policies.BASE, overrides))


def test_parts_of_one_split_may_stand_against_each_other():
    overrides = ["--config.data.source=sat", "--config.data.path=x"]
    for trained, held in (
        ("train[500:]", "train[:500]"),
        ("train[:-500]", "train[-500:]"),
        ("train[:90%]", "train[90%:]"),
    ):
        fields = [*overrides, f"--config.data.train_split={trained}", f"--config.data.eval_split={held}"]
        assert configs.load(files.load_config(policies.BASE, fields)).data.train_split == trained
