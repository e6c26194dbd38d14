"""Configs: `default` holds every field with its comment, the others change some of them."""
