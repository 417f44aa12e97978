"""Metrics: pure functions of arrays. One risk convention everywhere: higher = worse."""
