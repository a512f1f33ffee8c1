"""What a command does: folds, training of a run, ensemble, submission, board. Stages meet through files."""
