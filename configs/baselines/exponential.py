"""FGRPO with multipliers that climb in log λ: λ ← λ·exp(η·violation).

    python -m fgrpo_jax.train --config=configs/baselines/exponential.py:tiny --workdir=runs/exponential

Behind the colon stands the config to build on, configs/default.py when nothing does.
"""

from ml_collections import ConfigDict

from fgrpo_jax.configs import bases


def get_config(base: str = "default") -> ConfigDict:
    config = bases.load(base)
    for constraint in config.constraints.values():
        constraint.rule = "exponential"
        constraint.init = constraint.init or 1e-6  # from 0 no factor leads up
    return config
