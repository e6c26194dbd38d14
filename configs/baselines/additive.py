"""Additive reward: ⅓·R_acc + ⅓·R_acc·R_C + ⅓·R_fmt·R_G, normalised in its group.

    python -m fgrpo_jax.train --config=configs/baselines/additive.py:tiny --workdir=runs/additive

Behind the colon stands the config to build on, configs/default.py when nothing does.
"""

from ml_collections import ConfigDict

from fgrpo_jax.configs import bases


def get_config(base: str = "default") -> ConfigDict:
    config = bases.load(base)
    config.algorithm.aggregation = "additive"
    return config
