"""TODO: model/generation."""
