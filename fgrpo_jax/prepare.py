"""Published files → a TFDS data set in ArrayRecord with a data card.

    python -m fgrpo_jax.prepare cv_bench_2d --src=FOLDER --out=DATA/cv_bench_2d
    python -m fgrpo_jax.prepare cv_bench_2d --src=nyu-visionx/CV-Bench@REVISION --out=DATA/cv_bench_2d
    python -m fgrpo_jax.prepare viscot --out=DATA/viscot --open-answers=choices --bad=skip --workers=8

FOLDER holds the files as published (docs/data.md); without --src they are fetched from the set's place on the hub.
Every image is decoded once, and kept as the bytes it came in. The same command goes on where a killed one stopped,
shard by shard. `data.source=SET` or `prepared` with `data.path=OUT` trains on the result; README.md in OUT says what is
in it.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from fgrpo_jax import command


def main(args: argparse.Namespace) -> None:
    """Prepares one set, or says that it is prepared already."""
    from fgrpo_jax.data.sets.preparing import prepare  # it takes seconds, for which no mistyped flag should wait

    prepare(args)


def parser() -> argparse.ArgumentParser:
    """Flags of this command."""
    out = command.parser(__doc__)
    out.add_argument(
        "set", metavar="SET", help="name of a set, such as cv_bench_2d, sat or jsonl; docs/data.md lists them"
    )
    out.add_argument("--src", default="", help="folder (or file), or dataset id OWNER/NAME[@REVISION] of the hub")
    out.add_argument("--revision", default="", help="branch, tag or commit of an id; the commit goes into the card")
    out.add_argument("--out", required=True, type=Path, help="folder of the prepared set")
    out.add_argument("--split", action="append", default=[], help="a split; may be given several times (default: one)")
    add = out.add_argument
    add("--column", action="append", default=[], metavar="FIELD=COLUMN", help="of your own files, as data.columns")
    add("--images", default="", metavar="DIR", help="of your own files, the folder that image paths are below")
    out.add_argument("--workers", type=int, default=min(8, os.cpu_count() or 1), help="processes; 0 works in this one")
    out.add_argument(
        "--bad", choices=("error", "skip"), default="error", help="rows that cannot be used (default: %(default)s)"
    )
    out.add_argument(
        "--open-answers", choices=("keep", "drop", "choices"), default="keep", help="questions without options"
    )
    out.add_argument("--limit", type=int, default=0, help="first so many rows of each split; 0 is all")
    out.add_argument("--shard", type=int, default=256, metavar="ROWS", help="rows a shard (default: %(default)s)")
    out.add_argument("--overwrite", action="store_true", help="delete what is in the folder first")
    return out


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
