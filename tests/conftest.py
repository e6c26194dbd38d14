"""Set before jax is imported: eight CPU devices, so that meshes can be tested anywhere, and no look at the network.

Programs here are compiled for longer than they run: without XLA's fusion emitters for CPU a step of the learner is
compiled in a third of the time. What the demo and the benchmarks run is compiled as XLA does by itself.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["FGRPO_PROGRAMS"] = "off"  # tests compile what they test, and leave the user's folder alone
for _flag in ("--xla_force_host_platform_device_count=8", "--xla_cpu_use_fusion_emitters=false"):
    if _flag.partition("=")[0] not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_flag}".strip()

from pathlib import Path  # noqa: E402

import pytest  # noqa: E402


@pytest.fixture(scope="session")
def tiny_hf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HF folder of a tiny random policy (tests/policies.py), to be read and not to be written."""
    import policies

    return policies.write(tmp_path_factory.mktemp("policy") / "hf")
