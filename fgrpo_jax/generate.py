"""Ask a checkpoint about images.

    python -m fgrpo_jax.generate --hf=FOLDER --image=a.png --prompt="What is left of the cube?"

The folder's own chat template, one user turn with the images before the prompt, nothing else added (--system=TEXT adds
a system turn). --video=DIR --fps=2 shows a folder of frames, after the images. Prints each sample's text, the boxes in
it, its log-prob and the speed; with --json one line
{"prompt": ..., "samples": [{"text": ..., "tokens": [ids], "logprob": ..., "boxes": [[x1, y1, x2, y2]]}]}.

    python -m fgrpo_jax.generate --hf=FOLDER --prompts=IN.jsonl --out=OUT.jsonl

answers a file of prompts, {"prompt": ..., "images": [...], "id": ..., "system": ...} a line, with a line
{"id": ..., "prompt": ..., "samples": [...]} each (`evaluation.prompts_file`). The same command goes on after a kill.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fgrpo_jax import command


def main(args: argparse.Namespace) -> None:
    """Loads, samples, prints or writes."""
    _check_flags(args)
    from fgrpo_jax.evaluation.asking import ask  # it takes seconds, for which no mistyped flag should wait

    ask(args)


def parser() -> argparse.ArgumentParser:
    """Flags of this command."""
    out = command.parser(__doc__)
    command.add_policy(out, required=True)
    add = out.add_argument
    add("--image", action="append", default=[], metavar="FILE", help="an image; repeat for several")
    add("--video", action="append", default=[], metavar="DIR", help="a folder of frames; needs --fps")
    add("--fps", type=float, help="frames a second of every --video")
    asked = out.add_mutually_exclusive_group(required=True)
    asked.add_argument("--prompt", help="text of the user turn, after images and videos")
    asked.add_argument("--prompts", type=Path, metavar="FILE", help="JSONL file or JSON list of prompts; needs --out")
    add(
        "--bad",
        choices=("error", "skip"),
        default="error",
        help="what bad rows of --prompts do (default error)",
    )
    add("--out", type=Path, metavar="FILE", help="JSONL file to write, with --prompts")
    add("--batch", type=_positive, default=8, help="prompts of --prompts drawn at once (default 8)")
    add("--system", default="", help="text of a system turn; without it, what the template does by itself")
    add("--num", type=_positive, default=1, help="samples to draw (default 1)")
    add("--temperature", type=float, default=1.0, help="0 is greedy (default 1)")
    add("--top_k", type=int, default=0, help="only the k likeliest tokens; 0 is all (default)")
    add("--top_p", type=float, default=1.0, help="only the likeliest tokens of this mass (default 1: all)")
    add("--min_p", type=float, default=0.0, help="only tokens this share as likely as the likeliest")
    add("--min_new_tokens", type=int, default=0, help="no end before so many tokens (default 0)")
    add("--stop", action="append", default=[], metavar="TEXT", help="ends a completion; repeat for several")
    add("--prefill", default="", metavar="TEXT", help="how the answer begins; samples go on from there")
    add("--max_new_tokens", type=_positive, default=256, help="completion tokens at most (default 256)")
    add("--seed", type=_seed, default=0, help="same seed, same samples (default 0)")
    add("--dtype", choices=command.DTYPES, help="of weights and computation (default: the checkpoint's)")
    add("--json", action="store_true", help="print one JSON line and nothing else")
    return out


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"{value} is outside 0 .. {2**32 - 1}")
    return value


def _check_flags(args: argparse.Namespace) -> None:
    """Refuses flags that would not be read."""
    if args.video and args.fps is None:
        raise ValueError("--video=DIR needs --fps=RATE, the frames a second of the folder: the model counts in seconds")
    if args.prompts is None:
        if args.out is not None:
            raise ValueError("--out is for --prompts=FILE; a single --prompt is printed, with --json as one line")
        return
    if args.out is None:
        raise ValueError(f"--prompts={args.prompts} needs --out=FILE, where the answers go")
    if args.image or args.json:
        raise ValueError("--image and --json are for a single --prompt; a row of --prompts names its own 'images'")
    if args.video:
        raise ValueError("--video is for a single --prompt; a row of --prompts has images at most")
    if not args.prompts.is_file():
        raise FileNotFoundError(f"--prompts={args.prompts} does not exist")


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
