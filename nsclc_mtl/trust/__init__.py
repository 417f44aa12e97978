"""How far a prediction may be relied on."""
