"""From a batch to weights: one unit of work (a fold and a seed). Read `train` first."""
