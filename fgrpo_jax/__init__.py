"""Faithful GRPO in JAX: Qwen2.5-VL policies whose reasoning is constrained to be consistent and grounded."""

__version__ = "0.1.0"
