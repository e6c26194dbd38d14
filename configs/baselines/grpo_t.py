"""GRPO-T: the task advantage alone; constraints are measured and have no say.

    python -m fgrpo_jax.train --config=configs/baselines/grpo_t.py:tiny --workdir=runs/grpo_t

Behind the colon stands the config to build on, configs/default.py when nothing does.
"""

from ml_collections import ConfigDict

from fgrpo_jax.configs import bases


def get_config(base: str = "default") -> ConfigDict:
    config = bases.load(base)
    config.algorithm.aggregation = "grpo"
    return config
