"""Slides: reading in microns, tissue, tiles, stains and contours."""
