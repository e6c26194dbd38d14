"""How far two judges agree, or a judge and labels: kappa, who said what, and a page of the responses they differ on.

    python tools/audit_judge.py rules labels                          # on the labelled set of the built-in world
    python tools/audit_judge.py rules labels --cases=traces.jsonl     # on labelled responses of your own
    python tools/audit_judge.py labels server --config=configs/X.py --config.judge.url=… --out=audit

A judge is `labels` (what the cases file says), `rules`, or one of the backends of `config.judge` (`local`, `server`),
which then need --config with that section filled in. The rules decide the clear cases of consistency and abstain on
sentences, but for examples of the built-in world, whose truth they know. A model is asked about every response and
every sentence that is not trivial: no rule and no cache of other runs answers in its place. Writes OUT/audit.json
(figures, and both judges' verdicts on every case), OUT/audit.md and OUT/audit.html (self-contained), and prints the
table. docs/signals.md has the fields of a cases file. The exit code is 1 when --least-kappa is not reached.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from audit import report
from audit.agreement import ABSTAINED, Rating
from audit.labelled import labelled_set
from fgrpo_jax import command
from fgrpo_jax.config import load as configs
from fgrpo_jax.data.images import decode_image
from fgrpo_jax.reading.dialects import boxes_in, find_dialect
from fgrpo_jax.reading.parsing import Parsed, parse
from fgrpo_jax.records import Example, ImageSize
from fgrpo_jax.rewards.judges import dispatch
from fgrpo_jax.rewards.judges.dispatch import Case, Dispatcher
from fgrpo_jax.rewards.judges.protocol import VERDICTS, Judgement, Kind
from fgrpo_jax.rows import write_atomically
from fgrpo_jax.training import judges, setup
from fgrpo_jax.world.examples import find_example
from fgrpo_jax.world.oracle import UNREAD, Oracle

LABELS, RULES, MODELS = "labels", "rules", ("local", "server")


@dataclasses.dataclass(frozen=True)
class Said:
    """What a judge, or who labelled it, said of a response; None where it was not asked or can't be."""

    consistency: Rating | None
    sentences: Sequence[Rating] | None


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """A response to be judged, with its labels."""

    id: str
    tags: Mapping[str, str]
    case: Case
    response: str
    labels: Said


def parser() -> argparse.ArgumentParser:
    """Flags."""
    out = command.parser(__doc__)
    out.add_argument("a", help="labels, rules, local or server")
    out.add_argument("b", help="likewise; the columns of the tables")
    out.add_argument("--cases", default="world", help="a JSONL file, or 'world' for the labelled set (%(default)s)")
    out.add_argument("--count", type=int, default=1_200, help="world: traces of the labelled set (%(default)s)")
    out.add_argument("--by", default="", help="agreement also by a tag of the cases: kind, or one of yours")
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
    raters = [judge_of(name, args) for name in names]
    entries = list(world_entries(args.count) if args.cases == "world" else read_entries(Path(args.cases)))
    if not entries:
        raise ValueError(f"{args.cases} holds no cases")
    said = list(zip(entries, *(rate(entries) for rate in raters), strict=True))
    shown = [_shown(*one) for one in said]
    found = report.agreements(shown, by=args.by)
    if not found:
        raise ValueError(f"{args.a} and {args.b} both judged none of the {len(entries)} cases; nothing to compare")
    title = f"Audit: {args.a} and {args.b}"
    text = report.markdown(title, found, names)
    print(text)
    if args.out is not None:
        figures = {
            "a": args.a,
            "b": args.b,
            "agreement": {name: one.row() for name, one in found.items()},
            "cases": [{"id": entry.id, "a": dataclasses.asdict(a), "b": dataclasses.asdict(b)} for entry, a, b in said],
        }
        files = {
            "audit.json": json.dumps(figures, indent=1, ensure_ascii=False) + "\n",
            "audit.md": text,
            "audit.html": report.page(title, shown, found, names, most=args.most),
        }
        for name, content in files.items():
            write_atomically(args.out / name, content)
        print(f"wrote {', '.join(str(args.out / name) for name in files)}", file=sys.stderr)
    return _verdict(found, args.least_kappa)


def _verdict(found: Mapping[str, Any], least: float | None) -> int:
    """The exit code; verdicts on which one judge abstained throughout are not his to give, and are not bounded."""
    whole = {name: one for name, one in found.items() if "verdict" in name and "(" not in name}
    bounded = {name: one.kappa for name, one in whole.items() if 1.0 not in one.abstained}
    if least is None or (bounded and all(value is not None and value >= least for value in bounded.values())):
        return 0
    print(f"kappa below {least}: {bounded or 'one judge abstained on everything'}", file=sys.stderr)
    return 1


# --------------------------------------------------------------------------------------------------------------- cases
def world_entries(count: int) -> Iterator[Entry]:
    """The first traces of the labelled set.

    They come without the scene and the structured question, so that the rules judge them as they would any text.
    """
    for one in labelled_set(count):
        yield Entry(
            id=one.id,
            tags={"kind": one.kind},
            case=_case(dataclasses.replace(one.example, scene=None, query=None), parse(one.response)),
            response=one.response,
            labels=Said(Rating(one.consistency.value), [Rating(part.verdict.value) for part in one.sentences]),
        )


def _case(example: Example, parsed: Parsed) -> Case:
    height, width = example.images[0].shape[:2] if example.images else (0, 0)
    return Case(example, parsed, ImageSize(width, height, width, height))


def read_entries(file: Path) -> Iterator[Entry]:
    """Cases of a JSONL file.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a row that is no case, naming file, row and field.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no cases file {file}; give a JSONL file, or --cases=world")
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
    consistency, labels = row.get("consistency"), row.get("sentences")
    if labels is not None:
        texts = [str(label["text"]).strip() for label in labels]
        pairs = itertools.zip_longest(texts, parsed.sentences)
        if different := next((pair for pair in pairs if pair[0] != pair[1]), None):
            raise ValueError(
                f"case {row.get('id')!r} labels {len(texts)} sentences, its reasoning has {len(parsed.sentences)}: "
                f"they must be the same; the first that differs: {' / '.join(f'{text!r:.60}' for text in different)}"
            )
    return Entry(
        id=str(row.get("id", example.id)),
        tags={name: str(row[name]) for name in ("part", "kind", "source") if name in row}
        | {str(name): str(value) for name, value in row.get("tags", {}).items()},
        case=_case(example, parsed),
        response=row["response"],
        labels=Said(
            None if consistency is None else _label(consistency, "consistency"),
            None if labels is None else [_label(label["verdict"], "semantic") for label in labels],
        ),
    )


def _label(value: Any, kind: Kind) -> Rating:
    words = [verdict.value for verdict in VERDICTS[kind]]
    if value not in words:
        raise ValueError(f"{kind} label {value!r}; one of {', '.join(words)}")
    return Rating(value)


# -------------------------------------------------------------------------------------------------------------- judges
def judge_of(name: str, args: argparse.Namespace) -> Callable[[Sequence[Entry]], list[Said]]:
    """What a judge's name stands for.

    Raises:
      ValueError: an unknown name, or a model without a config.
    """
    if name == LABELS:
        return lambda entries: [entry.labels for entry in entries]
    if name == RULES:
        return lambda entries: list(_by_rules(Dispatcher(oracle=Oracle(unread=args.unread)), entries))
    if name not in MODELS:
        raise ValueError(f"unknown judge {name!r}; one of {', '.join((LABELS, RULES, *MODELS))}")
    raw = vars(args).get("config")
    if raw is None:
        raise ValueError(f"judge {name!r} needs --config=FILE whose section config.judge says which model")
    return lambda entries: list(_by_model(name, raw, entries))


def _by_rules(rules: Dispatcher, entries: Sequence[Entry]) -> Iterator[Said]:
    """What the rules say; of sentences that nobody judged, that they abstain."""
    for entry, said in zip(entries, _opinions(rules, entries), strict=True):
        abstained = [Rating(None, ABSTAINED)] * len(entry.case.parsed.sentences)
        yield said if said.sentences is not None else dataclasses.replace(said, sentences=abstained)


def _by_model(name: str, raw: Any, entries: Sequence[Entry]) -> Iterator[Said]:
    raw.judge.backend = name
    config = configs.load(raw)
    with tempfile.TemporaryDirectory(prefix="fgrpo-audit-") as scratch:  # so that no earlier run's cache answers
        model = judges.judges(config, setup.policy(config), config.judge, Path(scratch))
        yield from _opinions(dataclasses.replace(model, oracle=None, precheck=False), entries)


def _opinions(dispatcher: Dispatcher, entries: Iterable[Entry]) -> Iterator[Said]:
    try:
        for opinion in dispatcher.judge([entry.case for entry in entries]):
            consistency = None if opinion.consistency is None else _rating(opinion.consistency)
            yield Said(consistency, None if opinion.sentences is None else list(map(_rating, opinion.sentences)))
    finally:
        dispatcher.close()


def _rating(judgement: Judgement) -> Rating:
    if judgement.verdict is not None:
        return Rating(judgement.verdict.value)
    return Rating(None, ABSTAINED if judgement.error == dispatch.ABSTAINED else judgement.error)


# ------------------------------------------------------------------------------------------------------------- results
def _shown(entry: Entry, a: Said, b: Said) -> report.Shown:
    example, parsed = entry.case.example, entry.case.parsed
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
        consistency=None if a.consistency is None or b.consistency is None else (a.consistency, b.consistency),
        semantic=None
        if a.sentences is None or b.sentences is None
        else list(zip(a.sentences, b.sentences, strict=True)),
    )
