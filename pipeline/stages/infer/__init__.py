"""The files of a competition to a Task, with the reason for each conclusion."""
