"""TODO: bpe/training."""
