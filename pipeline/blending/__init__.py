"""What is done with predictions that exist: weights, calibration, thresholds, and how far a score may stray."""
