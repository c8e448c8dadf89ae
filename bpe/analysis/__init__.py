"""TODO: bpe/analysis."""
