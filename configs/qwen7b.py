"""Qwen2.5-VL-7B with the paper's hyperparameters.

    python -m fgrpo_jax.train --config=configs/qwen7b.py --config.model.hf=SFT_FOLDER --config.data.path=DATA_FOLDER --workdir=runs/7b

SFT_FOLDER, DATA_FOLDER and the two lines of the judge as in configs/qwen3b.py. Sizes suit 64 devices of 16 GB and more.
"""  # noqa: E501

from ml_collections import ConfigDict

from fgrpo_jax.configs import qwen3b


def get_config() -> ConfigDict:
    config = qwen3b.get_config()
    config.model.hf = "Qwen2.5-VL-7B-SFT"
    config.judge.server.url = "http://localhost:8000/v1"  # yours
    config.judge.server.model = "Qwen/Qwen3-VL-30B-A3B-Instruct"  # the name under which that server has it
    config.mesh.tensor = 4  # divides its 28 heads and 4 kv heads; 8 would not
    return config
