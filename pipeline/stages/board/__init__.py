"""What was sent and what it scored: the board, its line from CV to LB, and the sending of files."""
