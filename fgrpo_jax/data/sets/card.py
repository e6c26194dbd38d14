"""The data card of a prepared folder: counts, licence, sizes, balance of answers, what was left out and why."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from fgrpo_jax.data.sets.catalogue import SetSpec

SHOWN = 20  # values of a tag, and left-out rows, that are listed; the rest is counted

Row = Mapping[str, Any]
"""What `prepare` notes of an example: a line of the index, with tags and boxes."""


def split_card(rows: Sequence[Row], skipped: Sequence[Row], *, published: int | None) -> dict[str, Any]:
    """The card of one split.

    Args:
      rows: of its examples.
      skipped: {place, reason, kind, count} of what was left out.
      published: examples that the published set has, where that is known.
    """
    tags: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for row in rows:
        for key, value in row["tags"].items():
            tags[key][value] += 1
    kinds: collections.Counter[str] = collections.Counter()
    for bad in skipped:
        kinds[bad["kind"]] += bad["count"]
    images = [image for row in rows for image in row["images"]]
    left_out = kinds.total()
    return {
        "rows": len(rows) + left_out,
        "examples": len(rows),
        "published": published,
        "skipped": {"count": left_out, "kinds": dict(kinds.most_common()), "rows": list(skipped)},
        "answers": _histogram(row["answer"] if row["options"] else "open" for row in rows),
        "options": _histogram(row["options"] for row in rows),
        "images": {
            "count": len(images),
            "bytes": sum(image["bytes"] for image in images),
            "per_example": _histogram(len(row["images"]) for row in rows),
            "width": _spread([image["width"] for image in images]),
            "height": _spread([image["height"] for image in images]),
        },
        "boxes": {"examples": sum(bool(row["boxes"]) for row in rows), "count": sum(row["boxes"] or 0 for row in rows)},
        "tags": {key: dict(c.most_common(SHOWN)) for key, c in tags.items() if len(c) <= max(SHOWN, len(rows) // 2)},
    }


def _histogram(values: Any) -> dict[str, int]:
    return {str(value): count for value, count in sorted(collections.Counter(values).items())}


def _spread(values: Sequence[int]) -> dict[str, float]:
    if not values:
        return {}
    return {"least": min(values), "median": statistics.median(values), "most": max(values)}


def warnings(spec: SetSpec, splits: Mapping[str, Row]) -> list[str]:
    """What a reader of the card should know before using the data."""
    out = []
    if not spec.redistributable:
        why = f"{spec.licence} does not allow it" if spec.licence else "no licence is known here that allows it"
        out.append(f"Do not pass this folder on: {why}.")
    for name, card in splits.items():
        if card["skipped"]["count"]:
            out.append(f"{name}: {card['skipped']['count']} of {card['rows']} rows were left out.")
        if card["published"] is not None and card["examples"] != card["published"]:
            out.append(f"{name}: {card['examples']} examples, where the published set has {card['published']}.")
        out += [f"{name}: {doubt}." for doubt in card["doubts"]]
    return out


def render(card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    about = card["source"]
    revision = f", revision `{about['revision']}`" if about["revision"] else ""
    lines = [
        f"# {card['set']}",
        "",
        f"Prepared by `python -m fgrpo_jax.prepare {card['set']}` from `{about['src']}`{revision}.",
        "",
        f"- Licence: {card['licence'] or 'not known here'}",
        f"- May be passed on: {'yes, under that licence' if card['redistributable'] else '**no**'}",
        *([f"- {card['note']}"] if card["note"] else []),
        f"- Bad rows: {card['settings']['bad']}; open answers: {card['settings']['open_answers']}",
        "",
    ]
    if card["warnings"]:
        lines += ["## Warnings", "", *(f"- {warning}" for warning in card["warnings"]), ""]
    lines += [line for name, split in card["splits"].items() for line in _render_split(name, split)]
    lines += ["Images are the bytes that were published. Read it with `open_set`, with `data.source=prepared`, or with"]
    lines += ["`tensorflow_datasets.builder_from_directory(FOLDER).as_data_source(SPLIT)`.", ""]
    return "\n".join(lines)


def _render_split(name: str, card: Mapping[str, Any]) -> list[str]:
    def shown(values: Mapping[str, Any]) -> str:
        return ", ".join(f"{key}: {value}" for key, value in values.items()) or "–"

    images = card["images"]
    rows = [
        ("Examples", f"{card['examples']} of {card['rows']} rows"),
        ("Answers", shown(card["answers"])),
        ("Options a question", shown(card["options"])),
        ("Images", f"{images['count']}, {images['bytes'] / 1e6:.1f} MB"),
        ("Images an example", shown(images["per_example"])),
        ("Width", shown(images["width"])),
        ("Height", shown(images["height"])),
        ("Boxes", f"{card['boxes']['count']} in {card['boxes']['examples']} examples"),
        *((f"Tag `{key}`", shown(values)) for key, values in card["tags"].items()),
        ("Left out", shown(card["skipped"]["kinds"])),
    ]
    out = [f"## Split `{name}`", "", "| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows), ""]
    skipped = card["skipped"]["rows"]
    out += [f"- {bad['place']}: {bad['reason']}" for bad in skipped[:SHOWN]]
    if len(skipped) > SHOWN:
        out.append(f"- … and {len(skipped) - SHOWN} more, in card.json")
    return [*out, ""] if skipped else out
