"""Rules of lint: what a target's parser or its hardware would break, by theme."""
