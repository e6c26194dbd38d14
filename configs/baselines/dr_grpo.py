"""Dr. GRPO (Liu et al. 2025): no division by the group's std, a constant length normaliser.

    python -m fgrpo_jax.train --config=configs/baselines/dr_grpo.py:tiny --workdir=runs/dr_grpo

Behind the colon stands the config to build on, configs/default.py when nothing does.

Whitening is off, since it would divide by a deviation of the batch instead.
"""

from ml_collections import ConfigDict

from fgrpo_jax.configs import bases


def get_config(base: str = "default") -> ConfigDict:
    config = bases.load(base)
    config.algorithm.aggregation = "grpo"
    config.algorithm.std = False
    config.algorithm.whiten = "none"
    config.algorithm.loss_aggregation = "constant"
    return config
