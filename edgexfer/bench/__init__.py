"""What runs on the device: checks, accuracy and latency of one artefact, with numpy and a runtime.

A benchmark is a job (``job``) in a fresh process; ``suite`` orders many of them and makes records.
Getting files to a device and back is the work of ``remote``.
"""
