"""Explain a forward pass: its steps with their tensors, and pictures of them for a terminal, JSON or a PNG."""
