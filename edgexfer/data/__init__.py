"""Images and labels: sources, splits, the one decoder, feeds for training and evaluation, audit."""
