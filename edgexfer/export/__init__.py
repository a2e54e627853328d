"""From a trained run to a sealed bundle: ONNX, lowering per target, parity, the stage."""
