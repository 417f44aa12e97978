"""Training over hospitals that keep their patients: what a site answers, what a server makes of the answers."""
