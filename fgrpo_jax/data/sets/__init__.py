"""Published data sets: how they are read, prepared, mixed and cut."""
