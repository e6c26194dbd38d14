"""Baselines and ablations: each differs from what it builds on only where it must (docs/method.md)."""
