"""What `podium check` tries on the user's own data, one module per kind of question."""
