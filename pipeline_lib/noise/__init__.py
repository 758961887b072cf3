"""Corruptions of the forward process: Gaussian and simplex, one protocol."""
