"""The host's side of a benchmark: pack the device side, bring it there, file the records."""
