"""Evaluation: answers, figures with intervals, benchmarks, and runs compared in pairs."""
