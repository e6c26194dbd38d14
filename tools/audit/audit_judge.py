"""How far two judges agree, or a judge and labels: kappa, who said what, and a page of the responses they differ on.

    python tools/audit_judge.py rules labels                          # on the labelled set of the built-in world
    python tools/audit_judge.py rules labels --cases=traces.jsonl     # on labelled responses of your own
    python tools/audit_judge.py labels server --config=configs/X.py --config.judge.url=… --out=audit

A judge is `labels` (what the cases file says), `rules`, or one of the backends of `config.judge` (`local`, `server`),
which then need --config with that section filled in. A model is asked about every response and every sentence that is
not trivial: no rule and no cache of other runs answers in its place. Writes OUT/audit.json (figures, and both judges'
verdicts on every case), OUT/audit.md and OUT/audit.html (self-contained), and prints the table. docs/signals.md has
the fields of a cases file. The exit code is 1 when --least-kappa is not reached.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from audit import report
from audit.agreement import ABSTAINED, Rating
from audit.labelled import as_row, labelled_set
from fgrpo_jax import command
from fgrpo_jax.config import load as configs
from fgrpo_jax.data.images import decode_image
from fgrpo_jax.reading.dialects import boxes_in, find_dialect
from fgrpo_jax.reading.parsing import parse
from fgrpo_jax.records import Example, ImageSize
from fgrpo_jax.rewards.judges import dispatch
from fgrpo_jax.rewards.judges.dispatch import Case, Dispatcher
from fgrpo_jax.rewards.judges.protocol import VERDICTS, Judgement
from fgrpo_jax.training import judges, setup
from fgrpo_jax.world.oracle import UNREAD, Oracle
from fgrpo_jax.world.world import find_example

LABELS, RULES, MODELS = "labels", "rules", ("local", "server")
WORDS = {kind: tuple(verdict.value for verdict in verdicts) for kind, verdicts in VERDICTS.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """A response to be judged, with its labels where it has any."""

    id: str
    tags: Mapping[str, str]
    case: Case
    response: str
    consistency: str | None
    sentences: Sequence[str] | None


@dataclasses.dataclass(frozen=True)
class Said:
    """What a judge said of a response; None where it was not asked or can't be."""

    consistency: Rating | None
    sentences: Sequence[Rating] | None


def parser() -> argparse.ArgumentParser:
    """Flags."""
    out = command.parser(__doc__)
    out.add_argument("a", help="labels, rules, local or server")
    out.add_argument("b", help="likewise; the columns of the tables")
    out.add_argument("--cases", default="world", help="a JSONL file, or 'world' for the labelled set (%(default)s)")
    out.add_argument("--count", type=int, default=300, help="world: traces of each part (%(default)s)")
    out.add_argument("--by", default="", help="agreement also by a tag of the cases: part or kind, or one of yours")
    out.add_argument(
        "--unread", choices=UNREAD, default="abstain", help="rules: sentences they can't read (%(default)s)"
    )
    # Left out of the namespace where it is not given: only models need a config.
    out.add_argument("--config", default=argparse.SUPPRESS, help="config file whose section `judge` names the model")
    out.add_argument("--out", type=Path, help="folder for audit.json, audit.md and audit.html")
    out.add_argument("--most", type=int, default=300, help="responses on the page (%(default)s)")
    out.add_argument("--least-kappa", type=float, help="exit code 1 if a verdict's kappa is below")
    return out


def main(args: argparse.Namespace) -> int:
    """Judges, compares, writes."""
    names = (args.a, args.b)
    judges = [judge_of(name, args) for name in names]
    entries = list(world_entries(args.count) if args.cases == "world" else read_entries(Path(args.cases)))
    if not entries:
        raise ValueError(f"{args.cases} holds no cases")
    said = [judge(entries) for judge in judges]
    shown = [_shown(entry, one, other) for entry, one, other in zip(entries, *said, strict=True)]
    found = report.agreements(shown, by=args.by)
    if not found:
        raise ValueError(f"{args.a} and {args.b} both judged none of the {len(entries)} cases; nothing to compare")
    title = f"Audit: {args.a} and {args.b}"
    print(report.markdown(title, found, names))
    if args.out is not None:
        _write(args.out, title, entries, said, shown, found, names, args.most)
    return _verdict(found, args.least_kappa)


def _verdict(found: Mapping[str, Any], least: float | None) -> int:
    low = {name: one.kappa for name, one in found.items() if "verdict" in name and "(" not in name}
    if least is None or all(value is not None and value >= least for value in low.values()):
        return 0
    print(f"kappa below {least}: {low}", file=sys.stderr)
    return 1


# --------------------------------------------------------------------------------------------------------------- cases
def world_entries(count: int) -> Iterator[Entry]:
    """The labelled set of the built-in world, `count` traces of each part of its wordings."""
    for one in labelled_set(count):
        yield _entry(as_row(one), one.example)


def read_entries(file: Path) -> Iterator[Entry]:
    """Cases of a JSONL file.

    Raises:
      ValueError: a row that is no case, naming file, row and field.
    """
    if not file.is_file():
        raise ValueError(f"no cases file {file}; give a JSONL file, or --cases=world")
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"a case is an object, not {type(row).__name__}")
            yield _entry(row, _example(row, file.parent))
        except ValueError as error:  # json.JSONDecodeError is one
            raise ValueError(f"{file}, row {number}: {error}") from error


def _example(row: Mapping[str, Any], folder: Path) -> Example:
    world = str(row.get("example", ""))
    if world.startswith("world-"):
        found = find_example(world)
        if "question" in row and found.question != row["question"]:
            raise ValueError(
                f"example {world!r} of the default world asks {found.question!r}, not {row['question']!r}: give "
                "images, question and options in the row instead"
            )
        return found
    return Example(
        id=str(_field(row, "id", str)),
        images=tuple(decode_image(folder / name) for name in _field(row, "images", list, default=[])),
        question=_field(row, "question", str),
        options=tuple(map(str, _field(row, "options", list, default=[]))),
        answer=str(row.get("answer", "")),
        boxes=tuple(tuple(map(float, box)) for box in row["boxes"]) if row.get("boxes") else None,  # pyright: ignore
        source=str(row.get("source", "")),
    )


def _field(row: Mapping[str, Any], name: str, kind: type, *, default: Any = None) -> Any:
    value = row.get(name, default)
    if not isinstance(value, kind):
        raise ValueError(f"field {name!r} must be {kind.__name__}, got {value!r:.60}")
    return value


def _entry(row: Mapping[str, Any], example: Example) -> Entry:
    dialect = find_dialect(row.get("dialect", "paper"))
    dialect = dataclasses.replace(dialect, frame=row.get("frame", "original"))
    parsed = parse(_field(row, "response", str), dialect=dialect)
    height, width = example.images[0].shape[:2] if example.images else (0, 0)
    labels = row.get("sentences")
    if labels is not None:
        texts = tuple(str(label["text"]).strip() for label in labels)
        if texts != parsed.sentences:
            raise ValueError(
                f"case {row.get('id')!r} labels {len(texts)} sentences, its reasoning has {len(parsed.sentences)}: "
                f"they must be the same ones; the first that differs: {_first_difference(texts, parsed.sentences)}"
            )
        labels = [_word(label["verdict"], "semantic") for label in labels]
    consistency = row.get("consistency")
    return Entry(
        id=str(row.get("id", example.id)),
        tags={name: str(row[name]) for name in ("part", "kind", "source", *row.get("tags", {})) if name in row}
        | {str(name): str(value) for name, value in row.get("tags", {}).items()},
        case=Case(example, parsed, ImageSize(width, height, width, height)),
        response=row["response"],
        consistency=None if consistency is None else _word(consistency, "consistency"),
        sentences=labels,
    )


def _first_difference(labels: Sequence[str], sentences: Sequence[str]) -> str:
    at = next((i for i, pair in enumerate(zip(labels, sentences, strict=False)) if pair[0] != pair[1]), None)
    at = min(len(labels), len(sentences)) if at is None else at
    return " / ".join(repr(texts[at][:60]) if at < len(texts) else "none" for texts in (labels, sentences))


def _word(value: Any, kind: str) -> str:
    if value not in WORDS[kind]:
        raise ValueError(f"{kind} label {value!r}; one of {', '.join(WORDS[kind])}")
    return value


# -------------------------------------------------------------------------------------------------------------- judges
def judge_of(name: str, args: argparse.Namespace) -> Callable[[Sequence[Entry]], list[Said]]:
    """What a judge's name stands for.

    Raises:
      ValueError: an unknown name, or a model without a config.
    """
    if name == LABELS:
        return lambda entries: [_labels(entry) for entry in entries]
    if name == RULES:
        judges = Dispatcher(oracle=Oracle(unread=args.unread))
        return lambda entries: _opinions(judges, entries)
    if name not in MODELS:
        raise ValueError(f"unknown judge {name!r}; one of {', '.join((LABELS, RULES, *MODELS))}")
    raw = vars(args).get("config")
    if raw is None:
        raise ValueError(f"judge {name!r} needs --config=FILE whose section config.judge says which model")
    return lambda entries: _by_model(name, raw, entries)


def _labels(entry: Entry) -> Said:
    consistency = None if entry.consistency is None else Rating(entry.consistency)
    return Said(consistency, None if entry.sentences is None else [Rating(word) for word in entry.sentences])


def _by_model(name: str, raw: Any, entries: Sequence[Entry]) -> list[Said]:
    raw.judge.backend = name
    config = configs.load(raw)
    with tempfile.TemporaryDirectory(prefix="fgrpo-audit-") as scratch:  # so that no earlier run's cache answers
        judges = judges.judges(config, setup.policy(config), config.judge, Path(scratch))
        return _opinions(dataclasses.replace(judges, oracle=False, precheck=False), entries)


def _opinions(judges: Dispatcher, entries: Sequence[Entry]) -> list[Said]:
    out = []
    try:
        for opinion in judges.judge([entry.case for entry in entries]):
            consistency = None if opinion.consistency is None else _rating(opinion.consistency)
            out.append(Said(consistency, None if opinion.sentences is None else list(map(_rating, opinion.sentences))))
    finally:
        judges.close()
    return out


def _rating(judgement: Judgement) -> Rating:
    if judgement.verdict is not None:
        return Rating(judgement.verdict.value)
    return Rating(None, ABSTAINED if judgement.error == dispatch.ABSTAINED else judgement.error)


# ------------------------------------------------------------------------------------------------------------- results
def _shown(entry: Entry, one: Said, other: Said) -> report.Shown:
    example, parsed = entry.case.example, entry.case.parsed
    consistency = None
    if one.consistency is not None and other.consistency is not None:
        consistency = (one.consistency, other.consistency)
    semantic = None
    if one.sentences is not None and other.sentences is not None:
        semantic = list(zip(one.sentences, other.sentences, strict=True))
    image = example.images[0] if example.images else None
    return report.Shown(
        id=entry.id,
        tags=entry.tags,
        question=example.question,
        options=example.options,
        gold=example.answer if example.options else "",
        response=entry.response,
        image=image,
        boxes=() if image is None else boxes_in(parsed.boxes, entry.case.size, dialect=parsed.dialect, dst="original"),
        gold_boxes=example.boxes or (),
        sentences=parsed.sentences,
        consistency=consistency,
        semantic=semantic,
    )


def _write(
    out: Path,
    title: str,
    entries: Sequence[Entry],
    said: Sequence[Sequence[Said]],
    shown: Sequence[report.Shown],
    found: Mapping[str, Any],
    names: tuple[str, str],
    most: int,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    cases = [
        {
            "id": entry.id,
            **{
                name: {"consistency": _plain(one.consistency), "sentences": _plains(one.sentences)}
                for name, one in pair
            },
        }
        for entry, pair in (
            (entry, list(zip(("a", "b"), both, strict=True))) for entry, *both in zip(entries, *said, strict=True)
        )
    ]
    figures = {
        "a": names[0],
        "b": names[1],
        "agreement": {name: one.row() for name, one in found.items()},
        "cases": cases,
    }
    files = {
        "audit.json": json.dumps(figures, indent=1, ensure_ascii=False) + "\n",
        "audit.md": report.markdown(title, found, names),
        "audit.html": report.page(title, shown, found, names, most=most),
    }
    for name, content in files.items():
        beside = out / f"{name}.part"
        beside.write_text(content, encoding="utf-8")
        beside.rename(out / name)
    print(f"wrote {', '.join(str(out / name) for name in files)}", file=sys.stderr)


def _plain(rating: Rating | None) -> dict[str, str | None] | None:
    return None if rating is None else {"verdict": rating.verdict, "why": rating.why}


def _plains(ratings: Sequence[Rating] | None) -> list[Any] | None:
    return None if ratings is None else [_plain(rating) for rating in ratings]


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
