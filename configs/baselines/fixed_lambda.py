"""Eq. 6 with multipliers that stay at λ⁰: η_λ = 0.

    python -m fgrpo_jax.train --config=configs/baselines/fixed_lambda.py:tiny --workdir=runs/fixed_lambda

Behind the colon stands the config to build on, configs/default.py when nothing does.
"""

from ml_collections import ConfigDict

from fgrpo_jax.configs import bases


def get_config(base: str = "default") -> ConfigDict:
    config = bases.load(base)
    for constraint in config.constraints.values():
        constraint.lr = 0.0
    return config
