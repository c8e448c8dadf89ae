"""TODO: model/training."""
