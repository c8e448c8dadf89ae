"""Evaluation: perplexity and bits per byte of texts, multiple choice, and lm-evaluation-harness."""
