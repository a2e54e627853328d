"""Architectures: made by name, fed with pixels, given heads, frozen, stored; nothing trains."""
