"""FGRPO with multipliers under PID control of the violation (Stooke, Achiam, Abbeel 2020).

    python -m fgrpo_jax.train --config=configs/baselines/pid.py:tiny --workdir=runs/pid

Behind the colon stands the config to build on, configs/default.py when nothing does.

The integral moves as λ does by default; a violation of 0.1 adds 0.1 at once, and so does its rise by 0.1.
"""

from ml_collections import ConfigDict

from fgrpo_jax.configs import bases


def get_config(base: str = "default") -> ConfigDict:
    config = bases.load(base)
    for constraint in config.constraints.values():
        constraint.rule = "pid"
        constraint.kp = 1.0
        constraint.kd = 1.0
    return config
