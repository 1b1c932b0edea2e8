"""Packaging: `pip install .` or `pip install -e .[export,test]`. The version stands in ultralytics_sgdm/__init__.py."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = re.search(r'^__version__ = "(.+)"$', (here / "ultralytics_sgdm/__init__.py").read_text(), re.M).group(1)
oldest = re.search(r'^OLDEST, .* = "([^"]+)"', (here / "ultralytics_sgdm/versions.py").read_text(), re.M).group(1)

COMPARE = ["scipy>=1.10", "statsmodels>=0.14", "pandas>=2", "scikit-learn>=1.3", "timm>=1.0.23"]
DOCS = [
    "mkdocs-material>=9.6",
    "mkdocstrings[python]>=0.29",
    "pymdown-extensions<12; python_version < '3.11'",  # the last mkdocstrings for it calls Highlight as before 12
]

setup(
    name="ultralytics-sgdm",
    version=version,
    description="Any layer in any YOLO YAML; RDConv and SGDM (arXiv 2403.18282) for Ultralytics",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="AGPL-3.0-only",
    python_requires=">=3.10",
    packages=[*find_packages(include=["ultralytics_sgdm*"]), "ultralytics_sgdm.cfg"],
    package_dir={"ultralytics_sgdm.cfg": "cfg"},
    package_data={"ultralytics_sgdm": ["py.typed"], "ultralytics_sgdm.cfg": ["models/*.yaml", "datasets/*.yaml"]},
    install_requires=[
        f"ultralytics>={oldest},<8.5",
        "torch>=2.4",
        "torchvision>=0.19",
        "opencv-python>=4.7",
        "pyyaml>=6.0",
        "numpy>=1.23",
        "filelock>=3.12",
        "defusedxml>=0.7",
        "pillow>=9.4",
        "pydantic>=2.5",
        "requests>=2.28",
    ],
    extras_require={
        "export": ["onnx>=1.16", "onnxruntime>=1.20", "onnxslim>=0.1.82"],
        "compare": COMPARE,
        "ray": ["ray>=2.45"],  # the first for Python 3.13
        "check": ["imagehash>=4.3"],  # near duplicates in `yolo sgdm check`
        "docs": DOCS,
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff==0.17.6",
            "setuptools>=77",
            "cloudpickle>=3.1.1",
            "hypothesis>=6.100",
            "imagehash>=4.3",
            *COMPARE,
            "ray>=2.45",
            *DOCS,
            "jupytext>=1.16",
            "nbclient>=0.10",
            "ipykernel>=6",
            "mypy>=1.15",
            "nvidia-modelopt",  # quantize=8
        ],
    },
    entry_points={"console_scripts": ["yolo = ultralytics_sgdm.cli:main", "yolo-sgdm = ultralytics_sgdm.cli:main"]},
    classifiers=["Programming Language :: Python :: 3", "Topic :: Scientific/Engineering :: Image Recognition"],
)
