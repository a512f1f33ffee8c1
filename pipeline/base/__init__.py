"""Ground floor: errors, atomic files, keyed randomness, progress, pictures. Imports nothing of the project."""
