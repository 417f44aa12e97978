"""What came of a federation, beside all patients pooled and each site alone."""
