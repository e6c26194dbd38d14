"""What every command has in common: flags, a config with overrides, and errors a person can act on.

A door is a module with `main(args)` and, at its end, `raise SystemExit(doors.run(main, parser()))`. Flags of the form
`--config=FILE --config.a.b=v` are taken out of the command line first and become `args.config`; argparse has the rest.
A mistake of the user's (bad value, missing file) ends in one clear message and exit code 1, a fault of ours in a
traceback. FGRPO_TRACEBACK=1 shows the traceback in both cases.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

PACKAGE = Path(__file__).parent


def parser(doc: str | None, *, config: bool = False, workdir: bool = False) -> argparse.ArgumentParser:
    """An argument parser with the flags that several doors share.

    Args:
      doc: the door's docstring; its first line is the summary.
      config: the door takes --config=FILE and --config.a.b=v.
      workdir: the door takes --workdir and --overwrite.
    """
    out = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    if config:
        out.add_argument(
            "--config",
            required=True,
            help="a config by name (tiny, qwen3b) or file, NAME:BASE to build on another; --config.a.b=v sets a field",
        )
    if workdir:
        out.add_argument(
            "--workdir", required=True, type=Path, help="folder of the run; an unfinished run in it goes on"
        )
        out.add_argument(
            "--overwrite", action="store_true", help="delete the run that is in the workdir and start afresh"
        )
    return out


def add_policy(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Adds --hf and --revision, which name a checkpoint (`fgrpo_jax.data.hub.find`)."""
    parser.add_argument(
        "--hf",
        required=required,
        metavar="DIR_OR_ID",
        help="checkpoint: a folder in HF format, a hub id (OWNER/NAME) or 'shipped'",
    )
    parser.add_argument("--revision", default="", help="branch, tag or commit of a hub id (default: main)")


def add_processes(parser: argparse.ArgumentParser) -> None:
    """Adds --distributed, by which several processes become one run (`join`)."""
    parser.add_argument(
        "--distributed",
        nargs="?",
        const="",
        metavar="HOST:PORT,COUNT,INDEX",
        help="be one of several processes with one mesh over all their devices; alone it asks SLURM, Open MPI, "
        "Kubernetes or Cloud TPU who they are, else: coordinator, number of processes, which of them this is",
    )


def join(where: str) -> None:
    """Joins the other processes by `jax.distributed`; to be called before anything asks for devices.

    Args:
      where: 'HOST:PORT,COUNT,INDEX', or '' to find out from the cluster.

    Raises:
      ValueError: not of that form, or there is no cluster that says it.
    """
    import jax  # not needed to read a command line

    coordinator, *numbers = where.split(",") if where else (None,)
    if where and not (
        len(numbers) == 2 and all(number.isdecimal() for number in numbers) and int(numbers[1]) < int(numbers[0])
    ):
        raise ValueError(
            f"--distributed={where}: expected HOST:PORT,COUNT,INDEX such as 10.0.0.1:8476,4,0 with INDEX below COUNT"
        )
    count, index = map(int, numbers) if numbers else (None, None)
    try:
        jax.distributed.initialize(coordinator, num_processes=count, process_id=index)
    except ValueError as error:
        raise ValueError(
            f"--distributed: no cluster says who the processes are ({error}); give --distributed=HOST:PORT,COUNT,INDEX"
        ) from error


def run(
    main: Callable[[argparse.Namespace], int | None], parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> int:
    """Parses the command line, runs `main` and returns the exit code: 0, 1 on a user's mistake, 130 when interrupted.

    `main` may return an exit code of its own.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        rest, overrides = _split(argv)
        args = parser.parse_args(rest)
        if overrides and "config" not in args:
            parser.error(f"this command takes no config, got {overrides[0]}")
        if getattr(args, "distributed", None) is not None:
            join(args.distributed)
        if "config" in args:
            from fgrpo_jax.config.files import load_config

            args.config = load_config(args.config, overrides)
        return main(args) or 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        if os.environ.get("FGRPO_TRACEBACK") or not _is_users(error):
            traceback.print_exc()
        else:
            print(f"error: {error}", file=sys.stderr)
        return 1


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """(what argparse sees, the --config.a.b overrides, each with its value after '=')."""
    rest: list[str] = []
    overrides: list[str] = []
    items = iter(argv)
    for item in items:
        if not item.startswith("--config."):
            rest.append(item)
        elif "=" in item:
            overrides.append(item)
        else:
            value = next(items, None)
            if value is None or value.startswith("--"):
                raise ValueError(f"{item} needs a value: {item}=VALUE")
            overrides.append(f"{item}={value}")
    return rest, overrides


def _is_users(error: BaseException) -> bool:
    """Whether a person can act on the message: raised by this package on purpose, or about a file."""
    return isinstance(error, OSError) or _is_below(PACKAGE, error.__traceback__)


def _is_below(folder: Path, trace: TracebackType | None) -> bool:
    innermost = None
    while trace is not None:
        innermost, trace = trace, trace.tb_next
    return innermost is not None and folder in Path(innermost.tb_frame.f_code.co_filename).parents
