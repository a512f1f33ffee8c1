"""The nouns, frozen: task, experiment, folds, predictions, runs, metrics; YAML to objects. Imports base only."""
