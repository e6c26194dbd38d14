"""Judges of reasoning: rules where the truth is known."""
