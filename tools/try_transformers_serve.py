"""A training run judged by a real OpenAI-compatible server on CPU: `transformers serve`, in an environment of its own.

    python -m venv /path/to/serve && /path/to/serve/bin/pip install 'transformers[serving]' torchvision
    python tools/try_transformers_serve.py --python=/path/to/serve/bin/python [--steps=30]

It serves a Qwen2.5-VL that says "correct" to everything (the shipped warm start without its layers and with an output
table of one word), so that verdicts on sentences come through images, chat template, tokens and HTTP, and those on
consistency can't be read. Prints one JSON line a check; docs/judges.md has the figures seen.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from checks import runs
from checks.record import Check, above, holds, printed, same
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from fgrpo_jax import command
from fgrpo_jax.rows import read_rows
from fgrpo_jax.training import setup

WORD = "correct"
SECONDS_TO_START = 600


def one_word_model(folder: Path) -> None:
    """Writes an HF folder whose model answers every chat with WORD and its end.

    Without its layers a model sees the last token alone. Each token of the word has an axis of its own in the table of
    embeddings, and the output table leads from one to the next.
    """
    shutil.copytree(setup.model_folder(setup.SHIPPED), folder)
    config = json.loads((folder / "config.json").read_text())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    line_end = tokenizer.encode("<|im_start|>assistant\n", add_special_tokens=False).ids[-1]
    said = tokenizer.encode(WORD, add_special_tokens=False).ids
    chain = [line_end, *said, config["eos_token_id"]]
    if len(set(chain)) < len(chain):
        raise ValueError(f"{WORD!r} has a token twice ({chain}), so the last token alone does not tell what follows")
    tensors = load_file(folder / "model.safetensors")
    for name in tensors:
        if name.endswith(("o_proj.weight", "down_proj.weight")) and "visual" not in name:
            tensors[name] = np.zeros_like(tensors[name])
    (table,) = [name for name in tensors if name.endswith("embed_tokens.weight")]
    (norm,) = [name for name in tensors if name.endswith(("model.norm.weight", "language_model.norm.weight"))]
    embeddings = np.zeros_like(tensors[table])
    head = np.zeros_like(tensors[table])
    for axis, (now, following) in enumerate(itertools.pairwise(chain)):
        embeddings[now, axis] = 1.0
        head[following, axis] = 10.0
    tensors |= {table: embeddings, norm: np.ones_like(tensors[norm]), "lm_head.weight": head}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    # `transformers serve` reads the template from the processor, which does not look into tokenizer_config.json.
    template = json.loads((folder / "tokenizer_config.json").read_text())["chat_template"]
    (folder / "chat_template.jinja").write_text(template)


@contextlib.contextmanager
def served(python: Path, folder: Path, scratch: Path) -> Iterator[str]:
    """The address of a server of this folder, while the context lasts.

    Raises:
      RuntimeError: it ended, or did not answer in time; with the end of what it said.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (scratch / "hf" / "hub").mkdir(parents=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(scratch / "hf"), "CUDA_VISIBLE_DEVICES": ""}
    flags = ["serve", str(folder), "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    command = [str(python), "-c", "from transformers.cli.transformers import main; main()", *flags]
    url, log = f"http://127.0.0.1:{port}/v1", scratch / "server.log"
    with log.open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environment)
        try:
            ends = time.monotonic() + SECONDS_TO_START
            while not _answers(url):
                if process.poll() is not None or time.monotonic() > ends:
                    raise RuntimeError(f"no server: {' '.join(command)}\n{log.read_text()[-3000:]}")
                time.sleep(1)
            yield url
        finally:
            process.terminate()
            process.wait(timeout=30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/models", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def checks(args: argparse.Namespace, scratch: Path) -> Iterator[Check]:
    """The run and what came of it."""
    folder, workdir = scratch / "judge", scratch / "run"
    one_word_model(folder)
    with served(args.python, folder, scratch) as url:
        fields = {
            "num_steps": args.steps,
            "judge.backend": "server",
            "judge.concurrency": 4,
            "judge.max_failure_rate": 1.0,
            "judge.server.url": url,
            "judge.server.model": folder,
            "judge.server.retries": 1,
        }
        done = runs.door("train", *runs.tiny(setup.model_folder(setup.SHIPPED), workdir, **fields)).require()
    rows = read_rows(workdir / "metrics.jsonl")
    files = sorted((workdir / "rollouts").iterdir())
    samples = [s for file in files for line in read_rows(file) for s in line["rollouts"]]
    grounded = [s["semantic_grounding"] for s in samples if s["semantic_grounding"] is not None]
    yield same("serve/steps", len(rows), args.steps)
    yield above("serve/requests", sum(row["judge/requests"] for row in rows), 10 * args.steps)
    yield above("serve/grounded_responses", len(grounded), 2 * args.steps)
    yield same("serve/what_it_said", sorted(set(grounded)), [1.0])
    yield holds("serve/failed", True, sum(row["judge/failed"] for row in rows), "told")
    tokens = [row["judge/tokens_in"] / row["judge/requests"] for row in rows if row["judge/tokens_in"]]
    yield above("serve/tokens_a_request", round(float(np.mean(tokens))), 100)
    waits = [row["judge/latency_p50"] for row in rows if row["judge/latency_p50"]]
    yield holds("serve/latency_p50", True, round(float(np.median(waits)), 3), "told")
    yield holds("serve/seconds", True, round(done.seconds), "told")


def parser() -> argparse.ArgumentParser:
    out = command.parser(__doc__)
    out.add_argument(
        "--python", type=Path, required=True, help="interpreter with transformers[serving] and torchvision"
    )
    out.add_argument("--steps", type=int, default=30, help="of the training run (%(default)s)")
    return out


def main(args: argparse.Namespace) -> int:
    """Prints the checks; 0 when all hold."""
    with tempfile.TemporaryDirectory() as scratch:
        return printed(checks(args, Path(scratch)))


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
