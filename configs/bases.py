"""The configs that others are deltas of, by the name that stands behind the colon of --config=FILE:NAME."""

from ml_collections import ConfigDict

from configs import default, nlvr, qwen3b, qwen7b, tiny

BASES = {"default": default, "tiny": tiny, "nlvr": nlvr, "qwen3b": qwen3b, "qwen7b": qwen7b}


def load(name: str) -> ConfigDict:
    """The config of that name.

    Raises:
      ValueError: there is none.
    """
    if name not in BASES:
        raise ValueError(f"no config '{name}' to build on; known: {', '.join(BASES)}")
    return BASES[name].get_config()
