"""FGRPO on NLVR's photographs of coloured shapes and human sentences, from the shipped warm start.

    python -m fgrpo_jax.train --config=configs/nlvr.py --config.data.path=NLVR_FOLDER --workdir=runs/nlvr

NLVR_FOLDER holds SPLIT/SPLIT.json and SPLIT/images/ as published (docs/data.md). Rules can't say whether a sentence is
true of a photograph: R_S takes a judge that can, judge.backend = "local" or "server", and enabled = True.
"""

from ml_collections import ConfigDict

from fgrpo_jax.configs import tiny


def get_config() -> ConfigDict:
    config = tiny.get_config()
    config.num_steps = 200
    config.data.source = "nlvr"
    config.data.train_split = "test"
    config.data.eval_split = "hidden"
    config.data.buckets.prompt = ()
    config.data.buckets.patches = (224,)  # 8 × 28 patches, every image
    config.data.max_prompt_tokens = 512  # sentences are read byte by byte where the tokenizer knows no better
    config.data.max_pixels = 64 * 28 * 28  # 400×100 becomes 392×112, 56 image tokens, without being shrunk
    config.rollout.group_size = 4
    config.rollout.max_new_tokens = 96
    config.constraints.spatial_grounding.threshold = 0.65  # the paper's
    config.constraints.semantic_grounding.enabled = False
    config.eval.examples = 200
    return config
