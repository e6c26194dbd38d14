"""What every command has in common: flags, a config with overrides, and errors a person can act on.

A command is a module with `main(args)` that ends in `raise SystemExit(command.run(main, parser()))`. Flags of the form
`--config=FILE --config.a.b=v` are taken out of the command line first and become `args.config`; argparse has the rest.
A mistake of the user's (bad value, missing file) ends in one clear message and exit code 1, a fault of ours in a
traceback. FGRPO_TRACEBACK=1 shows the traceback in both cases.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import traceback
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
DTYPES = ("bfloat16", "float16", "float32")
"""Of weights in files, and of computation with them."""

NO_PLACES = ("prompt", "system", "stop", "prefill", "url")  # flags and fields that may begin like an address


def parser(doc: str | None, *, config: bool = False, workdir: bool = False) -> argparse.ArgumentParser:
    """An argument parser with the flags that several commands share.

    Args:
      doc: the command's docstring, which --help shows.
      config: it takes --config=FILE and --config.a.b=v.
      workdir: it takes --workdir and --overwrite.
    """
    raw = argparse.RawDescriptionHelpFormatter
    out = argparse.ArgumentParser(description=doc, formatter_class=raw, allow_abbrev=False)
    add = out.add_argument
    if config:
        about = "a config by name (tiny, qwen3b) or file, NAME:BASE to build on another; --config.a.b=v sets a field"
        add("--config", required=True, help=about)
    if workdir:
        add("--workdir", required=True, type=Path, help="folder of the run; an unfinished run in it goes on")
        add("--overwrite", action="store_true", help="delete the run that is in the workdir and start afresh")
    return out


def add_policy(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Adds --hf and --revision, which name a checkpoint (`fgrpo_jax.data.hub.find`)."""
    about = "checkpoint: a folder in HF format, a hub id (OWNER/NAME) or 'shipped'"
    parser.add_argument("--hf", required=required, metavar="DIR_OR_ID", help=about)
    parser.add_argument("--revision", default="", help="branch, tag or commit of a hub id (default: main)")


def add_processes(parser: argparse.ArgumentParser) -> None:
    """Adds --distributed, by which several processes become one run (`join`)."""
    about = "be one of several processes with one mesh over all their devices; alone it asks SLURM, Open MPI, "
    about += "Kubernetes or Cloud TPU who they are, else: coordinator, number of processes, which of them this is"
    parser.add_argument("--distributed", nargs="?", const="", metavar="HOST:PORT,COUNT,INDEX", help=about)


def join(where: str) -> None:
    """Joins the other processes by `jax.distributed`; to be called before anything asks for devices.

    Args:
      where: 'HOST:PORT,COUNT,INDEX', or '' to find out from the cluster.
    """
    import jax  # not needed to read a command line

    coordinator, *numbers = where.split(",") if where else (None,)
    decimal = len(numbers) == 2 and all(number.isdecimal() for number in numbers)
    if where and not (decimal and int(numbers[1]) < int(numbers[0])):
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


LEAST_SECONDS = 0.1
"""Programs that are compiled in less are not kept."""


def keep_programs() -> Path | None:
    """Has JAX keep compiled programs on the disk, for the next start; gives their folder.

    None where nothing is kept by us: $FGRPO_PROGRAMS is 'off', JAX was told a folder of the user's by
    $JAX_COMPILATION_CACHE_DIR, or the folder cannot be made. Programs are told apart by all that they are compiled
    from, and by the processor of the host, which JAX does not look at. The folder is the user's alone, since who can
    write to it can have programs run.
    """
    chosen = os.environ.get("FGRPO_PROGRAMS", "")
    if chosen == "off" or os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return None
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = (Path(chosen) if chosen else home / "fgrpo_jax" / "programs") / _processor()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    import jax  # not needed to read a command line

    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
    return folder


def _processor() -> str:
    """A name of what this machine's processor can do."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").split("\n") if info.is_file() else [platform.processor()]
    able = next((line for line in lines if line.startswith(("flags", "Features"))), lines[0])
    return f"{platform.machine()}-{zlib.crc32(able.encode()):08x}"


def run(
    main: Callable[[argparse.Namespace], int | None], parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> int:
    """Runs `main` on the command line; returns the exit code: its own or 0, 1 on a mistake, 130 when interrupted."""
    try:
        rest, overrides = _split(sys.argv[1:] if argv is None else argv)
        args = parser.parse_args(rest)
        if overrides and "config" not in args:
            parser.error(f"this command takes no config, got {overrides[0]}")
        if getattr(args, "distributed", None) is not None:
            join(args.distributed)
        if {"config", "hf"} & vars(args).keys():  # what may compile
            keep_programs()
        if "config" in args:
            from fgrpo_jax.config.files import load_config

            args.config = load_config(args.config, overrides)
            _require_local(args.config.to_dict(), "--config.")
        _require_local(vars(args), "--")
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


def _require_local(fields: dict[str, Any], at: str) -> None:
    """Refuses addresses such as gs://…, of which a folder called 'gs:' would be made; `at` goes before names."""
    for name, value in fields.items():
        if isinstance(value, dict):
            _require_local(value, f"{at}{name}.")
        for item in value if isinstance(value, list | tuple) else [value]:
            # A Path has no more than one slash of two.
            if name not in NO_PLACES and (found := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", str(item))):
                remedy = "mount it (gcsfuse, mountpoint-s3) or copy it, and give that folder"
                raise ValueError(f"{at}{name}={item}: {found[1]}:// is no path of this machine; {remedy}")


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
    *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
    return isinstance(error, OSError) or PACKAGE in Path(innermost.f_code.co_filename).parents
