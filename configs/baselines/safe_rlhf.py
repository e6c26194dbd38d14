"""Safe-RLHF (Dai et al. 2024): (Â_task + Σ λ_k Â_k)/(1 + Σ λ_k), without whitening, which would undo the division.

    python -m fgrpo_jax.train --config=configs/baselines/safe_rlhf.py:tiny --workdir=runs/safe_rlhf

Behind the colon stands the config to build on, configs/default.py when nothing does.
"""

from ml_collections import ConfigDict

from fgrpo_jax.configs import bases


def get_config(base: str = "default") -> ConfigDict:
    config = bases.load(base)
    config.algorithm.normalise_lambda = True
    config.algorithm.whiten = "none"
    return config
