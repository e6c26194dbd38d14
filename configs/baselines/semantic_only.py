"""FGRPO with the semantic grounding constraint alone; the others are measured.

    python -m fgrpo_jax.train --config=configs/baselines/semantic_only.py:tiny --workdir=runs/semantic_only

Behind the colon stands the config to build on, configs/default.py when nothing does.
"""

from ml_collections import ConfigDict

from fgrpo_jax.configs import bases


def get_config(base: str = "default") -> ConfigDict:
    config = bases.load(base)
    for name, constraint in config.constraints.items():
        constraint.enabled = name == "semantic_grounding"
    return config
