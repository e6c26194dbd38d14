"""The first half of the built-in world's warm start, from random weights: to see, to point and to reason.

    python -m fgrpo_jax.sft --config=configs/warmstart.py --config.model.hf=FOLDER --workdir=runs/warmstart

FOLDER is what tools/make_tiny_checkpoint.py writes. `python tools/make_warmstart.py --out=DIR` does it all: random
weights, this half, configs/warmstart_flaws.py, export and card.
"""

from ml_collections import ConfigDict

from fgrpo_jax.configs import tiny


def get_config() -> ConfigDict:
    config = tiny.get_config()
    config.optim.b2 = 0.98  # a few thousand steps of small batches: the second moment must follow sooner
    config.data.world.families = ConfigDict()  # all families, in the world's own mix
    config.data.world.yes_no = 0.5  # what is hardest to learn gets more lessons than questions
    config.sft.steps = 3500
    config.sft.batch = 32
    config.sft.micro_batch = 32
    config.sft.optimizer = "muon"  # reaches the same loss in half the steps of AdamW (docs/results.md)
    config.sft.learning_rate = 2e-3
    config.sft.describe = 0.25
    config.sft.eval_every = 250
    config.sft.target_loss = 0.07  # after 2,000 steps: it points well, and still errs enough to have something to learn
    config.sft.eval_examples = 512
    config.sft.freeze = ()  # the eyes are learnt from scratch
    return config
