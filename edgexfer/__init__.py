"""edgexfer: distil, quantize and prove vision models on edge devices."""

__version__ = "0.1.0"
