"""What runs without torch: `predict_onnx.py` is one file that may be copied anywhere."""
