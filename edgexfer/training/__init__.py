"""One training loop for teacher, student and every strategy, and what it needs around it."""
