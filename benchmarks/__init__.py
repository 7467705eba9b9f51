"""Real networks, timed: the rank-4 graph against native 5-D ONNX and eager PyTorch."""
