"""Reward signals: reading a response, and judging its answer, reasoning and boxes."""
