"""Tables, pictures and pages of what was trained."""
