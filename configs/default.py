"""Every field with its default, which is the paper's value (arXiv 2604.08476) where the paper states one.

    python -m fgrpo_jax.train --config=configs/default.py --workdir=runs/default --config.model.hf=FOLDER

Other configs are deltas of this one, and any field can be set on the command line: --config.optim.learning_rate=2e-6.
docs/config.md lists the fields with type, range and meaning. They are declared in fgrpo_jax/config/sections.py and
in the settings that it composes.
"""

from fgrpo_jax.config.load import constraint, member
from fgrpo_jax.config.load import default as get_config

__all__ = ["constraint", "get_config", "member"]
