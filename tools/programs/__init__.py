"""Compiled programs as XLA prints them: what they are made for, how they are read, what they move and compute."""
