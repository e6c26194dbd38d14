"""Faithful GRPO as pure functions of arrays: no model, no config object, usable inside any JAX trainer.

`advantages` is Eq. 6 (and its baselines), `multipliers` is Eq. 4 and 5, `losses` is the clipped surrogate with its KL
term. Shapes follow the letters of `fgrpo_jax.records`. The compiled step that puts them around a model is `learner`.
"""
