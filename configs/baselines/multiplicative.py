"""Multiplicative reward: ½·R_acc·R_C + ½·R_fmt·R_G, normalised in its group.

    python -m fgrpo_jax.train --config=configs/baselines/multiplicative.py:tiny --workdir=runs/multiplicative

Behind the colon stands the config to build on, configs/default.py when nothing does.
"""

from ml_collections import ConfigDict

from fgrpo_jax.configs import bases


def get_config(base: str = "default") -> ConfigDict:
    config = bases.load(base)
    config.algorithm.aggregation = "multiplicative"
    return config
