"""The cohort whose truth is known."""
