"""Parameters in and out: HF safetensors and Orbax checkpoints, a layer at a time."""
