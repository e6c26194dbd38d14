"""Every set by name: what it is, under which licence, where it is published, and how it is opened.

    open_set("cv_bench_2d", FOLDER)                          the published files, or a folder that `prepare` made
    open_set("mindcube", FOLDER, split="train[:500]")        rows of a split, as numbers or percent

`FOLDER` holds the files as published (docs/data.md shows each layout). A prepared folder is known by its
`dataset_info.json` and opens the same examples, decoded from the same bytes.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from fgrpo_jax.data import hub
from fgrpo_jax.data.sets import prepared
from fgrpo_jax.data.sets.doubts import doubts
from fgrpo_jax.data.sets.published import PublishedSource, Skipped
from fgrpo_jax.data.sets.readers import benchmarks, files, own, training
from fgrpo_jax.data.sets.readers.files import Reading
from fgrpo_jax.data.sets.readers.layout import Entry, Layout, Published, Rows
from fgrpo_jax.data.sets.readers.records import BadRow
from fgrpo_jax.data.sources import Part, Source


class SetSource(Source, Protocol):
    """A source that knows its examples without their pixels, and the rows that `bad='skip'` left out."""

    @property
    def skipped(self) -> Skipped: ...

    @property
    def entries(self) -> Sequence[Entry]: ...


@dataclasses.dataclass(frozen=True)
class SetSpec:
    """One data set."""

    name: str  # by which config and commands know it; `Example.source` too, but for users' own files
    kind: Literal["train", "benchmark", "format"]  # 'format' is a layout that many sets come in
    layout: Layout  # reads a split of the published files
    licence: str = ""  # SPDX id; '' where none is known or it is the user's own
    hub: str = ""  # dataset id on the Hugging Face hub, '' for none
    redistributable: bool = True  # whether a converted copy may be passed on
    splits: tuple[str, ...] = ()  # those that are published, the usual one first; () where the user names them
    files: tuple[str, ...] = ()  # patterns of what is fetched of the hub's repository
    archives: tuple[str, ...] = ()  # patterns of archives that are unpacked after fetching
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)  # {split: examples} of the published set
    boxes: bool = False  # whether its boxes serve R_G
    note: str = ""  # what a data card says besides

    def read(self, path: pathlib.Path, split: str, reading: Reading | None = None) -> Rows:
        """The rows of a split of the published files, with source and licence filled in."""
        layout, reading = self.layout, reading or Reading()
        if layout is files.read_files:
            layout = functools.partial(files.read_files, reading=reading)
        elif reading.columns or reading.images:
            what = "data.columns" if reading.columns else "data.images"
            raise ValueError(f"{what} is for your own files, and {self.name} has a layout of its own; drop it")
        if self.splits and split not in self.splits:
            raise ValueError(f"{self.name} has the splits {', '.join(self.splits)}, not {split!r}")
        for row in layout(path, split):
            if isinstance(row, Published):
                example = row.example
                filled = {"source": example.source or self.name, "licence": example.licence or self.licence}
                row = dataclasses.replace(row, example=dataclasses.replace(example, **filled))
                if reading.traces and example.trace is None:
                    why = "has no trace, which supervised training needs; add a reference response or remove the row"
                    row = BadRow(row.place, why, kind="no trace")
            yield row


_ND = (
    "CC BY-ND 4.0 lets nobody pass on an adapted copy: keep what is made of this set to yourself, and point others to "
    "the original."
)
_NC = "CC BY-NC 4.0: for non-commercial use."
_IMAGES = "The licence is that of the annotations; the images come from other data sets under terms of their own."
_FIRST = "The right answer is published first: options are shuffled by the question's id."
_UNKNOWN = "No licence is known here: read the set's own page before passing anything on."
_OWN = "The licence is that of the one who brings the data."

# fmt: off
_ALL = (
    SetSpec("cv_bench_2d", "benchmark", functools.partial(benchmarks.read_cv_bench, kind="2D"), "Apache-2.0",
            "nyu-visionx/CV-Bench", splits=("test",), files=("test_2d.parquet",), counts={"test": 1438}),
    SetSpec("cv_bench_3d", "benchmark", functools.partial(benchmarks.read_cv_bench, kind="3D"), "Apache-2.0",
            "nyu-visionx/CV-Bench", splits=("test",), files=("test_3d.parquet",), counts={"test": 1200}),
    SetSpec("mindcube", "benchmark", benchmarks.read_mindcube, "MIT",
            "MLL-Lab/MindCube", splits=tuple(benchmarks.MINDCUBE_FILES), files=("data.zip",), archives=("data.zip",),
            counts={"tinybench": 1050}),
    SetSpec("mmvp", "benchmark", benchmarks.read_mmvp, "MIT",
            "MMVP/MMVP", splits=("test",), files=("Questions.csv", "MMVP Images/*.jpg"), counts={"test": 300},
            note="Four labels are corrected: questions 99 (b), 100 (a), 279 (b) and 280 (a)."),
    SetSpec("omnispatial", "benchmark", benchmarks.read_omnispatial, "CC-BY-NC-4.0",
            "qizekun/OmniSpatial", splits=("test",), files=("OmniSpatial-test.zip",),
            archives=("OmniSpatial-test.zip",), counts={"test": 1533}, note=_NC),
    SetSpec("realworldqa", "benchmark", benchmarks.read_realworldqa, "CC-BY-ND-4.0",
            "xai-org/RealworldQA", redistributable=False, splits=("test",), files=("data/*.parquet",),
            counts={"test": 765}, note=_ND),
    SetSpec("sat_real", "benchmark", benchmarks.read_sat_real, "MIT",
            "array/SAT", splits=("test",), files=("SAT_test.parquet", "data/test-*.parquet"),
            counts={"test": 150 * benchmarks.SAT_ROTATIONS},
            note=f"{_FIRST} Every question stands in two rotations of its options."),
    SetSpec("sat", "train", benchmarks.read_sat, "MIT",
            "array/SAT", splits=("train", "val", "static"),
            files=("SAT_*.parquet", "data/*.parquet"), note=_FIRST),
    SetSpec("vgr", "train", training.read_vgr, "CC0-1.0",
            "BytedanceDouyinContent/VGR", splits=("train",), files=("*.parquet", "data/*.parquet"), boxes=True,
            note=f"{_IMAGES} They are those of LLaVA-NeXT. Boxes are a model's, in 0..1 as published."),
    SetSpec("viscot", "train", training.read_viscot, "Apache-2.0",
            "deepcs233/Visual-CoT", splits=("train", "val"), files=("metadata/*.jsonl", "cot_images_tar_split/*"),
            archives=("cot_images_tar_split/*",),
            note=f"{_IMAGES} Boxes show where an answer is read and do not serve R_G."),
    SetSpec("treevgr_rl", "train", training.read_treevgr, "",
            "HaochenWang/TreeVGR-RL-37K", redistributable=False, splits=("train",),
            files=("*.parquet", "data/*.parquet", "images/**", "*.zip", "*.tar", "*.tar.gz"),
            archives=("*.zip", "*.tar", "*.tar.gz"),
            boxes=True, note=f"{_UNKNOWN} {_IMAGES}"),
    SetSpec("vigorl", "train", training.read_vigorl, "MIT",
            "gsarch/vigorl_datasets", splits=("train", "val"),
            files=("spatial_reasoning.tar", "spatial_reasoning/*_RL.jsonl"), archives=("spatial_reasoning.tar",)),
    SetSpec("geometry3k", "train", training.read_geometry3k, "",
            "hiyouga/geometry3k", redistributable=False, splits=("train", "validation", "test"),
            files=("data/*.parquet",), note=_UNKNOWN),
    SetSpec("nlvr", "train", own.read_nlvr, "CC-BY-4.0", boxes=True),
    SetSpec("vlmevalkit", "format", own.read_vlmevalkit, redistributable=False, boxes=True, note=_OWN),
    *(SetSpec(name, "format", files.read_files, redistributable=False, boxes=True, note=_OWN)
      for name in ("files", "jsonl", "parquet")),
)
# fmt: on

SETS: Mapping[str, SetSpec] = {spec.name: spec for spec in _ALL}

BENCHMARKS = ("cv_bench_2d", "cv_bench_3d", "mindcube", "mmvp", "omnispatial", "realworldqa", "sat_real")
"""The paper's seven, in the order of its table."""


def find_set(name: str) -> SetSpec:
    """The set of this name."""
    if name not in SETS:
        raise ValueError(f"unknown data set {name!r}; one of {', '.join(SETS)}")
    return SETS[name]


# --------------------------------------------------------------------------------------------------------------- splits
@dataclasses.dataclass(frozen=True)
class SplitPart:
    """A split, or the rows of it from `start` to `stop`: numbers, or shares of its length where `percent`."""

    name: str
    start: float | None = None
    stop: float | None = None
    percent: bool = False

    def places(self, length: int) -> range:
        """The rows of a split of `length`; ValueError where there are none."""

        scale = (lambda bound: round(bound / 100 * length)) if self.percent else int
        bounds = (None if bound is None else scale(bound) for bound in (self.start, self.stop))
        rows = range(length)[slice(*bounds)]
        if not rows:
            raise ValueError(f"split '{self}' of {length} examples holds none; widen it")
        return rows

    def __str__(self) -> str:
        if self.start is None and self.stop is None:
            return self.name
        sign = "%" if self.percent else ""
        start, stop = ("" if bound is None else f"{bound:g}{sign}" for bound in (self.start, self.stop))
        return f"{self.name}[{start}:{stop}]"


_BOUND = r"(-?\d+(?:\.\d+)?%|-?\d+)?"
_SPLIT = re.compile(rf"(?P<name>[^\[\]]*)(?:\[{_BOUND}:{_BOUND}\])?")


def parse_split(text: str) -> SplitPart:
    """'train', 'train[:500]', 'train[500:]', 'train[90%:]', 'train[-500:]'.

    Raises:
      ValueError: none of these, or numbers and percent together.
    """
    match = _SPLIT.fullmatch(text)
    if match is None:
        raise ValueError(f"split {text!r} reads as none; write NAME, NAME[:500], NAME[500:] or NAME[90%:]")
    bounds = [bound for bound in match.groups()[1:] if bound]
    if len({bound.endswith("%") for bound in bounds}) > 1:
        raise ValueError(f"split {text!r} mixes rows and percent; use one of them")
    start, stop = (None if bound is None else float(bound.rstrip("%")) for bound in match.groups()[1:])
    return SplitPart(match["name"], start, stop, any(bound.endswith("%") for bound in bounds))


class SetPart(Part):
    source: SetSource

    @property
    def skipped(self) -> Skipped:
        return self.source.skipped

    @property
    def entries(self) -> Sequence[Entry]:
        entries = self.source.entries
        return [entries[place] for place in self.places]


# ----------------------------------------------------------------------------------------------------------------- open
def open_set(
    name: str, path: str | pathlib.Path, *, split: str = "", bad: str = "error", reading: Reading | None = None
) -> SetSource:
    """The examples of a set, from its published files or from a folder that `prepare` made.

    Args:
      name: of `SETS`, or 'prepared' for whatever set a prepared folder holds.
      path: folder with the files; of the formats also one file, or a hub id OWNER/NAME[@REVISION].
      split: '' is the set's usual one; may name rows of it, see `parse_split`.
      bad: 'error' stops at the first row that cannot be used, 'skip' leaves such rows out (see `.skipped`).
      reading: which columns and images of a user's files are read.

    Raises:
      ValueError: unknown set or split, files that are not there, or a bad row; names file and row.
    """
    path = pathlib.Path(path)
    part = parse_split(split)
    whole = _open(name, path, part.name, bad=bad, reading=reading)
    return whole if part.start is None and part.stop is None else SetPart(whole, part.places(len(whole)))


def _open(name: str, path: pathlib.Path, split: str, *, bad: str, reading: Reading | None) -> SetSource:
    if prepared.is_prepared(path):
        if reading is not None and (reading.columns or reading.images):
            raise ValueError(
                f"data.columns and data.images are for files as published, and {path} is prepared; drop them"
            )
        return prepared.PreparedSource(path, split, name="" if name == prepared.NAME else name)
    if name == prepared.NAME:
        raise ValueError(f"{path} holds no dataset_info.json; make it with python -m fgrpo_jax.prepare")
    spec = find_set(name)
    if spec.kind == "format" and not path.exists() and hub.is_id(str(path)):
        path = hub.snapshot(*hub.split(str(path)), spec.files, data=True, remedy="give a folder in data.path")
    if not split and not spec.splits and path.is_dir():
        raise ValueError(f"{name} in {path} needs the name of a split; the files are named after it")
    reads = functools.partial(spec.read, reading=reading)
    source = PublishedSource(reads, path, split or next(iter(spec.splits), path.stem), bad=bad)
    for doubt in doubts(source.rows, boxes=spec.boxes and spec.kind != "format"):
        warnings.warn(f"{name} in {path}: {doubt}", stacklevel=3)
    return source
