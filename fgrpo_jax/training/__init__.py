"""What a training run is made of: model, data, judges, scoring, checkpoints and metrics, built from the config."""
