"""The verbs: one screen each."""
