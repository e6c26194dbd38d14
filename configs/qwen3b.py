"""Qwen2.5-VL-3B with the paper's hyperparameters.

    python -m fgrpo_jax.train --config=configs/qwen3b.py --config.model.hf=SFT_FOLDER --config.data.path=DATA_FOLDER --workdir=runs/3b

SFT_FOLDER is the warm start in HF format (python -m fgrpo_jax.sft, then export); DATA_FOLDER holds train.jsonl and
validation.jsonl (docs/data.md). Where they have no gold boxes, add --config.constraints.spatial_grounding.enabled=False.
Sizes suit 16 devices of 16 GB and more.

The judge is the paper's, served by `vllm serve Qwen/Qwen3-VL-30B-A3B-Instruct --port 8000` on a machine of its own. Two
lines below say where it is and what it is called there; so do --config.judge.server.url and --config.judge.server.model.
Without a server: --config.judge.backend=local --config.judge.frame=processed --config.judge.local.hf=FOLDER (docs/judges.md).
"""  # noqa: E501

from ml_collections import ConfigDict

from fgrpo_jax.configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.model.hf = "Qwen2.5-VL-3B-SFT"
    config.model.compute_dtype = "bfloat16"
    config.model.remat = "full"
    config.data.source = "jsonl"
    config.data.eval_split = "validation"
    config.data.workers = 8
    config.rollout.batch_prompts = 32
    config.algorithm.micro_batch_prompts = 16
    config.judge.backend = "server"
    config.judge.server.url = "http://localhost:8000/v1"  # yours
    config.judge.server.model = "Qwen/Qwen3-VL-30B-A3B-Instruct"  # the name under which that server has it
    config.judge.frame = "thousand"  # Qwen3-VL reads boxes in thousandths, a Qwen2.5-VL in pixels ("processed")
    config.judge.concurrency = 128
    config.mesh.data = 1
    config.mesh.fsdp = -1  # optimiser state and masters are 12 bytes a weight: 45 GB that one chip cannot hold
    config.eval.batch_prompts = 32
    return config
