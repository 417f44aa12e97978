"""Pictures of what the model looked at."""
