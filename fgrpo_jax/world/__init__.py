"""The built-in world: scenes, questions, traces, and the exact oracle over its own grammar."""
