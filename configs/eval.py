"""The paper's protocol over its seven benchmarks: greedy, no repetition penalty, 4096 new tokens, images as published.

    python -m fgrpo_jax.evaluate --config=configs/eval.py --config.model.hf=DIR_OR_ID --config.eval.root=BENCHMARKS --workdir=W

BENCHMARKS holds a folder a set (cv_bench_2d, …, sat_real), as published or as `fgrpo_jax.prepare` made it. For other
people's checkpoints choose how they are asked: --config.data.prompt=direct | cot | vigorl | treevgr | vlm_r1. Another
base stands behind a colon: --config=configs/eval.py:tiny. docs/evaluation.md has the figures' definitions.
"""  # noqa: E501

from ml_collections import ConfigDict

from fgrpo_jax.configs import bases

CONTEXT = 32_768  # tokens of prompt and answer together, as in the paper's evaluation
ANSWER = 4096


def get_config(base: str = "default") -> ConfigDict:
    config = bases.load(base)
    config.eval.temperature = 0.0
    config.rollout.repetition_penalty = 1.0
    if base != "default":  # a small policy on its own data, under this protocol
        return config
    config.eval.sets = ("cv_bench_2d", "cv_bench_3d", "mindcube", "mmvp", "omnispatial", "realworldqa", "sat_real")
    config.eval.max_new_tokens = ANSWER
    config.data.max_prompt_tokens = CONTEXT - ANSWER
    config.data.min_pixels = 4 * 28 * 28  # the limits of the released processor: images keep their size
    config.data.max_pixels = 16384 * 28 * 28
    config.data.buckets.choose = 8  # shapes; each compiles once
    config.model.param_dtype = "bfloat16"
    config.model.compute_dtype = "bfloat16"
    return config
