"""`yolo sgdm compare` as a program: the same arguments, and --help."""

import sys

from ultralytics_sgdm.cli import main

if __name__ == "__main__":
    main(["sgdm", "compare", *sys.argv[1:]])
