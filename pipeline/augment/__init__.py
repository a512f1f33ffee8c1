"""Changes of training samples: batched, keyed, pure functions."""
