"""GDPO: every signal normalised on its own, mixed with fixed weights (here 1), whitened over the batch.

    python -m fgrpo_jax.train --config=configs/baselines/gdpo.py:tiny --workdir=runs/gdpo

Behind the colon stands the config to build on, configs/default.py when nothing does.

Weights are constraints.NAME.weight and algorithm.task_weight. With all of them 1 the mix is that of Eq. 6 under λ = 1;
what differs is that no multiplier exists, and that the whole batch whitens, its dead groups among it (Liu et al. 2026).
"""

from ml_collections import ConfigDict

from fgrpo_jax.configs import bases


def get_config(base: str = "default") -> ConfigDict:
    config = bases.load(base)
    config.algorithm.aggregation = "gdpo"
    config.algorithm.whiten = "all"
    return config
