"""TODO: model/evaluation."""
