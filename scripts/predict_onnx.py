"""`ultralytics_sgdm/deploy/predict_onnx.py`, which needs nothing of this package, as a program."""

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).parents[1] / "ultralytics_sgdm/deploy/predict_onnx.py"), run_name="__main__")
