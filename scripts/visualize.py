"""`yolo sgdm visualize` as a program: the same arguments, and --help."""

import sys

from ultralytics_sgdm.cli import main

if __name__ == "__main__":
    main(["sgdm", "visualize", *sys.argv[1:]])
