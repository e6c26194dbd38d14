"""Qwen2.5-VL-7B with the paper's hyperparameters.

    python -m fgrpo_jax.train --config=configs/qwen7b.py --config.model.hf=SFT_FOLDER --config.data.path=DATA_FOLDER --workdir=runs/7b

SFT_FOLDER and DATA_FOLDER as in configs/qwen3b.py. Sizes suit 64 devices of 16 GB and more.
"""  # noqa: E501

from ml_collections import ConfigDict

from fgrpo_jax.configs import qwen3b


def get_config() -> ConfigDict:
    config = qwen3b.get_config()
    config.model.hf = "Qwen2.5-VL-7B-SFT"
    config.mesh.tensor = 4  # divides its 28 heads and 4 kv heads; 8 would not
    return config
