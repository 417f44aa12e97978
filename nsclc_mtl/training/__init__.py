"""What happens around the steps of a fit: the score to stop by, averages of weights, several processes, logs."""
