"""Embeddings become one view a task."""
