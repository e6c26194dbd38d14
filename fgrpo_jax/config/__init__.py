"""The config: its sections, what must not combine in them, and how a file and flags become one frozen record."""
