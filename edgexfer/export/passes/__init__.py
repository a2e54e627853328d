"""Graph passes: small rewrites of an ONNX graph that leave its outputs as they are."""
