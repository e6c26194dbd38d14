"""Qwen2.5-VL in JAX: NNX modules inside, pure functions of a params dict outside."""
