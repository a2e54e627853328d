"""The names of ``models/onnx.py``, for code that looks for them among the exports."""

from __future__ import annotations

from edgexfer.models.onnx import BATCH, OPSET, check_onnx, export_onnx, frozen, quiet

__all__ = ["BATCH", "OPSET", "check_onnx", "export_onnx", "frozen", "quiet"]
