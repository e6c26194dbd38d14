"""FGRPO on the paper's mix: 48.7K prompts of SAT, VGR, Visual-CoT and TreeVGR-RL, three epochs.

    python -m fgrpo_jax.train --config=configs/paper_mix.py:qwen3b --config.data.path=DATA --workdir=runs/paper

DATA holds a folder of each member, `DATA/sat` and so on, as published or as `python -m fgrpo_jax.prepare` made it
(which reads faster, and is done once):

    python -m fgrpo_jax.prepare sat         --out=DATA/sat
    python -m fgrpo_jax.prepare vgr         --src=FOLDER --out=DATA/vgr
    python -m fgrpo_jax.prepare viscot      --out=DATA/viscot
    python -m fgrpo_jax.prepare treevgr_rl  --out=DATA/treevgr_rl

The paper states the counts. It does not state which examples they are, nor how open answers became choices: here both
are functions of the examples' ids (docs/data.md). With the difficulty filter, first the filter, then the training:

    python -m fgrpo_jax.filter --config=configs/paper_mix.py:qwen3b --config.data.path=DATA --workdir=runs/filter
    python -m fgrpo_jax.train --config=configs/paper_mix.py:qwen3b --config.data.path=DATA \
        --config.data.filter=runs/filter --workdir=runs/paper
"""

from ml_collections import ConfigDict

from fgrpo_jax.configs import bases
from fgrpo_jax.configs.default import member

COUNTS = {"sat": 15_700, "vgr": 7_000, "viscot": 13_000, "treevgr_rl": 13_000}
GOLD_BOXES = ("vgr", "treevgr_rl")  # R_G is masked for the others: SAT has no boxes, Visual-CoT's mark other things


def get_config(base: str = "qwen3b") -> ConfigDict:
    """The mix on one of the bases."""
    config = bases.load(base)
    config.data.source = "mix"
    config.data.path = ""
    config.data.train_split = "train"
    config.data.eval_split = "heldout"
    config.data.open_answers = "choices"
    config.data.mix = ConfigDict(
        {name: member(name, count=count, boxes=name in GOLD_BOXES) for name, count in COUNTS.items()}
    )
    return config
