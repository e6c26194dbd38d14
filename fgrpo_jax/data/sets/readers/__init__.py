"""Readers of the files as they are published."""
