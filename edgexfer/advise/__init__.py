"""Advice before anything is trained: which source, which layers, which strategy, which student."""
