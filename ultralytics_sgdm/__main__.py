"""`python -m ultralytics_sgdm`: the `yolo` command, whichever script is on PATH."""

from .cli import main

if __name__ == "__main__":
    main()
