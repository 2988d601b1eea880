"""Runs of PyTorch, kept as numbers, which fastbp's own options have to repeat."""
