"""Targets, heads, losses and balance."""
