"""`yolo sgdm opponents` as a program: the same arguments, and --help."""

import sys

from ultralytics_sgdm.cli import main

if __name__ == "__main__":
    main(["sgdm", "opponents", *sys.argv[1:]])
