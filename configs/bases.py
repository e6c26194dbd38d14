"""What a config builds on that takes a base: the name or file behind the colon of --config=FILE:BASE."""

from fgrpo_jax.config.files import base as load

__all__ = ["load"]
