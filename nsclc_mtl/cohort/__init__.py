"""Who has what: manifest, splits, checks."""
