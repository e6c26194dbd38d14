"""Checks of what the project claims, an area a module; tools/check.py runs them."""
