"""Chips that programs are compiled for without one at hand: their facts, and topologies of them.

GPU facts are NVIDIA's: datasheets of the H100 SXM, H200 SXM and A100 SXM 80 GB (memory, bandwidth, dense bfloat16
operations), and the tables of compute capability 8.0 and 9.0 in the CUDA programming guide (threads, registers, shared
memory); cores, clocks and L2 are those of the architecture white papers. TPU facts are those of the Cloud TPU pages.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published figures of a chip: bytes of memory, bytes/s of its bandwidth, bfloat16 operations/s; of a GPU also
    (major, minor) compute capability, multiprocessors, GHz, MiB of L2, KiB of shared memory a multiprocessor.

    `reached` is the share of its operations/s at which a large product runs: 790 of 989 TFLOP/s were measured on an
    H200; the other GPUs are taken to be like it.
    """

    memory: float
    bandwidth: float
    operations: float
    capability: tuple[int, int] | None = None
    cores: int = 0
    clock: float = 0.0
    cache: int = 0
    shared: int = 0

    @property
    def reached(self) -> float:
        return 1.0 if self.capability is None else 0.8


CHIPS: Mapping[str, Chip] = {
    "v5e": Chip(16e9, 819e9, 197e12),
    "v5p": Chip(95e9, 2765e9, 459e12),
    "v6e": Chip(32e9, 1640e9, 918e12),
    "h200": Chip(141e9, 4.8e12, 989e12, (9, 0), cores=132, clock=1.98, cache=50, shared=228),
    "h100": Chip(80e9, 3.35e12, 989e12, (9, 0), cores=132, clock=1.98, cache=50, shared=228),
    "a100": Chip(80e9, 2.039e12, 312e12, (8, 0), cores=108, clock=1.41, cache=40, shared=164),
}

DNN = (9, 10, 0)
"""Release of cuDNN that programs are compiled for."""


def target(name: str) -> str:
    """The `gpu_target_config` of XLA, a text proto, for a GPU of the table."""
    chip = CHIPS[name]
    assert chip.capability is not None
    major, minor = chip.capability
    accelerated = "feature_extension: ACCELERATED_FEATURES" if major == 9 else ""
    l2, block = chip.cache * 2**20, (chip.shared - 1) * 2**10  # a KiB of a block's shared memory is the system's
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: {48 * 2**10} shared_memory_per_core: {chip.shared * 2**10}
  shared_memory_per_block_optin: {block}
  core_count: {chip.cores} fpus_per_core: {128 if major == 9 else 64}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  memory_bandwidth: {chip.bandwidth:.0f} device_memory_size: {chip.memory:.0f}
  l2_cache_size: {l2} clock_rate_ghz: {chip.clock}
  cuda_compute_capability {{ major: {major} minor: {minor} {accelerated} }}
  device_vendor: "NVIDIA Corporation" name: "NVIDIA {name.upper()}" device_address_bits: 64 ecc_enabled: true
  pcie_bandwidth: 34359738368 device_interconnect_info {{ active_links: {18 if major == 9 else 12} }}
  driver_version: "13.0.0" runtime_version: "12.8.0" compile_time_toolkit_version: "12.8.0"
  dnn_version: "{".".join(map(str, DNN))}" cub_version: "3.1.2"
}}
platform_name: "CUDA"
dnn_version_info {{ major: {DNN[0]} minor: {DNN[1]} patch: {DNN[2]} }}
device_description_str: "NVIDIA {name.upper()}"
"""


def topology(*, gpu: str = "", tpu: str = "") -> tuple[Chip, Any]:
    """(chip, devices) of `gpu` such as h200 or h200x8, or a TPU slice such as v5e:4x4.

    Raises:
      ValueError: a chip that is not in the table.
    """
    from jax.experimental import topologies

    name, _, count = gpu.partition("x") if gpu else tpu.partition(":")
    known = [key for key, chip in CHIPS.items() if (chip.capability is None) == (not gpu)]
    if name not in known or (gpu and count and not count.isdecimal()):
        raise ValueError(f"{gpu or tpu}: expected one of {', '.join(known)}, with {'x8' if gpu else ':4x4'} behind it")
    if not gpu:
        return CHIPS[name], topologies.get_topology_desc(platform="tpu", topology_name=tpu).devices
    # Older releases ask for a shape of slices, hosts and devices a host.
    made = topologies.get_topology_desc(platform="cuda", target_config=target(name), topology=f"1x1x{count or 1}")
    return CHIPS[name], made.devices
