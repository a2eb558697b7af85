"""Gradients are never cleared."""
