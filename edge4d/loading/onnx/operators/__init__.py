"""How each ONNX operator is imported, one family a file."""
