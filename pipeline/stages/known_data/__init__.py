"""Data that are known by name: a user's own copies, checked, and made-up sets; each becomes a task ready to train."""
