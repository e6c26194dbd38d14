"""FGRPO on the built-in world from the shipped warm start: minutes on two CPU cores.

    python -m fgrpo_jax.train --config=configs/tiny.py --workdir=runs/tiny

configs/warmstart.py trains that warm start itself, from random weights.
"""

from ml_collections import ConfigDict

from fgrpo_jax.configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.num_steps = 180
    config.data.prompts_per_step = 16
    config.data.max_prompt_tokens = 256
    config.data.min_pixels = 84 * 84
    config.data.max_pixels = 112 * 112  # the tiny world draws 84 to 112 pixels a side: nothing is resized
    config.data.buckets.prompt = (64,)  # one shape of everything: one compile
    config.data.buckets.completion = (56,)
    config.data.buckets.patches = (64,)
    config.data.world.flawed = 0.28
    config.data.world.yes_no = 0.03  # what the warm start does no better than chance is asked seldom: yes/no,
    config.data.world.families = ConfigDict(  # counting, and comparing all distances
        {
            "left_right": 3.0,
            "above_below": 3.0,
            "larger": 2.0,
            "compound": 2.0,
            "counting": 0.2,
            "nearest": 0.25,
            "farthest": 0.25,
            "between": 0.25,
        }
    )
    config.data.prompt = "tiny"
    config.rollout.group_size = 8
    config.rollout.max_new_tokens = 48
    config.rollout.batch_prompts = 16
    config.algorithm.micro_batch_prompts = 8
    config.optim.learning_rate = 3e-4  # 1.5M parameters take a larger step than 3B do; at 5e-4 it forgets how to see
    config.optim.schedule = "linear"  # ends on what was learnt: at a constant rate boxes drift after 100 steps
    config.constraints.spatial_grounding.threshold = 0.95  # boxes of the drawn world can be exact; at 0.65 λ falls to 0
    config.eval.examples = 1000
    config.eval.batch_prompts = 100
    config.checkpoint.every = 50
    return config
