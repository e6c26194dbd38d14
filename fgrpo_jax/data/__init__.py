"""Data: sources of examples, images and prompts, and the Grain pipeline that prepares them."""
