"""Transfer learning: the stage that fine-tunes a teacher, and its strategies, one file each."""
