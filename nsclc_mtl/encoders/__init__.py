"""Trained: a modality becomes an embedding."""
