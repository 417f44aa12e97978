"""The platform: what `predict` and `evaluate` made, beside the raw slides and scans, in a browser on this machine."""
