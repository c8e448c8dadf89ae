"""Train a vocabulary: count pretokens, learn merges, resume, and extend another vocabulary."""
