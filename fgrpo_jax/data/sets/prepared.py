"""Folders that `python -m fgrpo_jax.prepare` makes: TFDS data sets in ArrayRecord, without TensorFlow.

    FOLDER/
      NAME-SPLIT.array_record-00000-of-00031    records: one example each, images as the bytes they were published in
      index-SPLIT.jsonl                         {id, answer, options, content, images, …} of each record, in order
      card.json  README.md                      the data card
      features.json  dataset_info.json          what TFDS reads; written last, so a folder that has them is whole

Anyone reads such a folder with `tensorflow_datasets.builder_from_directory(FOLDER).as_data_source(SPLIT)`; `open_set`
does the same, but decodes images as this package does everywhere (orientation, transparency, limits).
"""

from __future__ import annotations

import functools
import json
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from fgrpo_jax.data.images import decode_image, outline_image
from fgrpo_jax.data.sets.published import Skipped
from fgrpo_jax.data.sets.readers.layout import Entry
from fgrpo_jax.data.sets.readers.records import BadRow
from fgrpo_jax.data.sources import in_range
from fgrpo_jax.records import Example
from fgrpo_jax.rows import read_rows, write_atomically, write_json, write_rows

NAME = "prepared"
"""What config and commands call a source of whatever set a prepared folder holds."""

INFO, CARD, README = "dataset_info.json", "card.json", "README.md"
SUFFIX = "array_record"
TEXTS = ("id", "question", "answer", "source", "licence", "tags", "trace")
OPTIONS = "group_size:1"  # as TFDS writes: each record is found without decompressing its neighbours


def is_prepared(path: pathlib.Path) -> bool:
    """Whether `prepare` finished a set in this folder."""
    return (path / INFO).is_file() and (path / CARD).is_file()  # others, too, have a file of the first name


def index_name(split: str) -> str:
    return f"index-{split}.jsonl"


@functools.cache
def features() -> Any:
    """The TFDS features of a record. Boxes are stored as bytes: a float list would round them to 24 bits."""
    import tensorflow_datasets as tfds

    some, text = tfds.features.Sequence, tfds.features.Text
    fields = {name: text() for name in (*TEXTS, "place")}
    fields |= {"images": some(tfds.features.Image()), "options": some(text())}
    fields |= {"boxes": tfds.features.Tensor(shape=(None, 4), dtype=np.float64, encoding="bytes")}
    return tfds.features.FeaturesDict({**fields, "has_boxes": np.bool_, "has_trace": np.bool_})


@functools.cache
def _serializer() -> Any:
    from tensorflow_datasets.core import example_serializer

    return example_serializer.ExampleSerializer(features().get_serialized_info())


def to_record(example: Example, encoded: Sequence[bytes], *, place: str) -> bytes:
    """The record of an example.

    Args:
      example: its fields; pixels are not looked at.
      encoded: its images as published.
      place: file and row it comes from.
    """
    fields = {name: getattr(example, name) for name in TEXTS}
    fields |= {
        "images": list(encoded),
        "options": list(example.options),
        "boxes": np.array(example.boxes or (), np.float64).reshape(-1, 4),
        "has_boxes": example.boxes is not None,
        "tags": json.dumps(dict(example.tags), ensure_ascii=False, sort_keys=True),
        "trace": example.trace or "",
        "has_trace": example.trace is not None,
        "place": place,
    }
    # Else the order of fields would depend on the process, and equal sets would not be equal files.
    return _serializer().get_tf_example(features().encode_example(fields)).SerializeToString(deterministic=True)


Notes = Mapping[pathlib.Path, Mapping[str, Any]]
"""The shards of a split, in order, with what is noted of each: its bytes ('size') and its examples."""


def finish(
    out: pathlib.Path, card: Mapping[str, Any], splits: Mapping[str, Notes], *, readme: str, work: pathlib.Path
) -> None:
    """Index, card, and last what TFDS reads; then the folder is whole and nothing but the set is left in it.

    Args:
      splits: {name of a split: its shards}.
      readme: the card for people.
      work: folder inside `out` for what is unfinished; removed.
    """
    for name, notes in splits.items():
        write_rows(out / index_name(name), [row for note in notes.values() for row in note["examples"]])
    write_json(out / CARD, card)
    write_atomically(out / README, readme)
    wanted = {file for notes in splits.values() for file in notes}
    for stray in out.glob(f"*.{SUFFIX}-*"):
        if stray not in wanted:  # of a run with other shards, or the half-written one of a killed run
            stray.unlink()
    _write_metadata(out, card, splits, beside=work / "metadata")
    shutil.rmtree(work)


def _write_metadata(
    out: pathlib.Path, card: Mapping[str, Any], splits: Mapping[str, Notes], *, beside: pathlib.Path
) -> None:
    import tensorflow_datasets as tfds

    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    infos = []
    for name, notes in splits.items():
        for file in notes:
            (beside / file.name).touch()  # TFDS takes names and format from those of the files
        template = tfds.core.ShardedFileTemplate(
            data_dir=epath.Path(beside), dataset_name=card["set"], split=name, filetype_suffix=SUFFIX
        )
        lengths = [len(note["examples"]) for note in notes.values()]
        size = sum(note["size"] for note in notes.values())
        infos.append(tfds.core.SplitInfo(name=name, shard_lengths=lengths, num_bytes=size, filename_template=template))
    tfds.folder_dataset.write_metadata(
        data_dir=beside,
        features=features(),
        split_infos=infos,
        check_data=False,  # it would read with TensorFlow
        description=f"{card['set']}, prepared by fgrpo_jax. See README.md.",
        license=card["licence"] or None,
    )
    for file in sorted(beside.glob("*.json"), key=lambda file: file.name == INFO):  # what makes it a data set is last
        file.replace(out / file.name)


def _from_record(fields: Mapping[str, Any], read: Callable[..., np.ndarray], *, where: str) -> Example:
    text = {key: fields[key].decode() for key in TEXTS}
    pixels = []
    for at, data in enumerate(fields["images"]):
        try:
            pixels.append(read(bytes(data), name=f"images[{at}]"))
        except ValueError as error:
            place = f"{where}, made of {fields['place'].decode()}"
            raise BadRow(place, str(error), kind="image that does not decode") from error
    options = tuple(option.decode() for option in fields["options"])
    boxes = tuple(tuple(box) for box in fields["boxes"].tolist()) if fields["has_boxes"] else None
    trace = text["trace"] if fields["has_trace"] else None
    given: dict[str, Any] = {**text, "trace": trace, "tags": json.loads(text["tags"])}
    return Example(images=tuple(pixels), options=options, boxes=boxes, **given)


class PreparedSource:
    """One split of a prepared folder. `skipped` is empty: what `prepare` left out stands in the data card.

    Args:
      split: '' is the one that was prepared first.
      name: of the set that it must hold; '' takes any.

    Raises:
      ValueError: another set, a split that the folder does not have, or an index that does not fit the records.
    """

    def __init__(self, folder: str | pathlib.Path, split: str = "", *, name: str = "") -> None:
        self._folder = pathlib.Path(folder)
        self.card: Mapping[str, Any] = read_card(self._folder)
        if name and name != self.card["set"]:
            raise ValueError(f"{folder} holds '{self.card['set']}', not '{name}'; correct data.source or data.path")
        splits = self.card["splits"]
        if split and split not in splits:
            raise ValueError(f"{folder} has the splits {', '.join(splits)}, not '{split}'; prepare it with --split")
        self._split, self.skipped = split or next(iter(splits)), Skipped()
        index = self._folder / index_name(self._split)
        rows = read_rows(index)
        known = ("id", "answer", "options", "content")
        self.entries: Sequence[Entry] = [Entry(**{name: row[name] for name in known if name in row}) for row in rows]
        if len(self.entries) != len(self):
            raise ValueError(
                f"{index} names {len(self.entries)} examples of {len(self)}; copy the whole folder again, or prepare "
                "it anew"
            )

    def __getstate__(self) -> dict[str, Any]:  # workers open the files themselves
        return {name: value for name, value in self.__dict__.items() if name != "_records"}

    @functools.cached_property
    def _records(self) -> Sequence[Any]:
        import tensorflow_datasets as tfds

        builder: Any = tfds.builder_from_directory(self._folder)
        return builder.as_data_source(self._split, decoders=_decoders())

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        return self._example(index, decode_image)

    def outline(self, index: int) -> Example:
        return self._example(index, outline_image)

    def _example(self, index: int, read: Callable[..., np.ndarray]) -> Example:
        where = f"{self._folder} ({self._split}), record {in_range(index, self) + 1}"
        try:
            fields = self._records[int(index)]
        except (RuntimeError, ValueError, IndexError) as error:  # the words of ArrayRecord's reader
            raise BadRow(where, f"does not read ({error}); copy the folder again", kind="unreadable row") from error
        return _from_record(fields, read, where=where)


def _decoders() -> Mapping[str, Any]:
    """TFDS decoders that leave the images of a record encoded; TFDS' own SkipDecoding knows no sequences here."""
    import tensorflow_datasets as tfds

    class Encoded(tfds.decode.Decoder):
        def decode_example(self, example: Any, feature: Any = None) -> Any:
            return example

        def decode_batch_example_np(self, example: Any, feature: Any = None) -> Any:
            return example

    return {"images": Encoded()}


def read_card(folder: pathlib.Path) -> Mapping[str, Any]:
    """The data card; ValueError where there is none, or it is no JSON."""
    try:
        return json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder / CARD} does not read ({error}); copy the whole folder again") from error
