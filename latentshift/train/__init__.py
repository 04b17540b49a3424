"""Training in small pieces: losses, penalties, shifts, averaging, and one loop that knows no method by name."""
