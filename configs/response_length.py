"""Responses of at most 400 tokens on average, as a fourth constraint beside the paper's three.

    python -m fgrpo_jax.train --config=configs/response_length.py:qwen3b --config.model.hf=SFT_FOLDER --config.data.path=DATA_FOLDER --workdir=runs/short

What stands behind the colon is the config to build on, configs/default.py when nothing does. On the built-in world,
whose answers have 25 to 48 tokens, a bound that says something is

    python -m fgrpo_jax.train --config=configs/response_length.py:tiny --config.constraints.response_length.threshold=30 --config.constraints.response_length.lr=0.002 --workdir=runs/tiny-short
"""  # noqa: E501

from ml_collections import ConfigDict

from fgrpo_jax.configs import bases, default


def get_config(base: str = "default") -> ConfigDict:
    config = bases.load(base)
    config.constraints.response_length = default.constraint(400.0, direction="<=")
    config.constraints.response_length.lr = 0.05 / 400  # violations are in tokens: as fast as the others, by share of τ
    config.constraints.response_length.init = 0.0  # takes part once it is violated
    return config
