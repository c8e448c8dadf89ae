"""TODO: model/explain."""
