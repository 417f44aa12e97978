"""What came out, for people: metrics with intervals, figures, one self-contained page."""
