"""The runtimes, one file each: what ``core.backend.Backend`` asks for, and nothing else.

A file here imports the standard library, numpy and its one runtime, the latter only inside
functions. Clocks, accuracy and feeding live in ``bench``.
"""
