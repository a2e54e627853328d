"""The types that every room shares, written with the standard library alone.

Everything here also runs on the device, so it is Python 3.8 syntax and imports nothing outside the
standard library. What a library is needed for (numpy, torch, a runtime) lives in the rooms above.
"""
