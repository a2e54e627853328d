"""Making INT8 models of FP32 ones: calibration images, ONNX Q/DQ, OpenVINO through NNCF."""
