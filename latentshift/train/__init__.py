"""Training in small pieces: losses, penalties, averaging, and one loop that knows no method by name."""
