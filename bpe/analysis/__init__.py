"""Measures of a vocabulary and of its use on texts: usage, reports, tables, plots, and comparisons of tokenizers."""
