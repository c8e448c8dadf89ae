"""Generation: prefill and decode loops, sampling, text completions, conversations, and our own CPU kernels."""
