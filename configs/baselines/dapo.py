"""DAPO (Yu et al. 2025): dead groups drawn anew, soft overlong penalty, no KL.

    python -m fgrpo_jax.train --config=configs/baselines/dapo.py:tiny --workdir=runs/dapo

Behind the colon stands the config to build on, configs/default.py when nothing does.

Its clip 0.2/0.28 and its token mean are the default already. The penalty grows over the last fifth of the window, as
there (4,096 of 20,480 tokens).
"""

from ml_collections import ConfigDict

from fgrpo_jax.configs import bases


def get_config(base: str = "default") -> ConfigDict:
    config = bases.load(base)
    config.algorithm.aggregation = "grpo"
    config.algorithm.filter_dead = True
    config.algorithm.kl_coef = 0.0
    config.rewards.weights.overlong = 1.0
    config.rewards.overlong_cache = config.rollout.max_new_tokens // 5
    return config
