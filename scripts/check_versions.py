"""Run the whole test suite with the oldest and the newest supported versions, each pair in an environment of its own.

    python scripts/check_versions.py                                    # every pair
    python scripts/check_versions.py --only oldest-3.10 --keep -- -x tests/plugin

The pairs are the ends of the ranges: Ultralytics as in `ultralytics_sgdm/versions.py`, the torch that goes with it, and
a Python. An environment is made by `uv` where it is installed (it fetches a missing Python), else by the `venv` of an
installed one. Prints a Markdown table; exit status 1 if a pair failed.
"""

from __future__ import annotations

import argparse
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = runpy.run_path(str(ROOT / "ultralytics_sgdm/versions.py"))
SUMMARY = re.compile(r"^(?=.*\b(?:passed|failed|error)).* in [\d.]+s.*$", re.M)
COUNTS = re.compile(r"(\d+) (passed|failed|skipped|errors?)")


class Pair(NamedTuple):
    """One environment: name, Python, and what pip is asked for besides this package."""

    name: str
    python: str
    packages: tuple[str, ...]


PAIRS = (
    Pair(
        "oldest-3.10", "3.10", (f"ultralytics=={VERSIONS['OLDEST']}", "torch==2.4.*", "torchvision==0.19.*", "numpy<2")
    ),
    Pair("oldest-3.12", "3.12", (f"ultralytics=={VERSIONS['OLDEST']}", "torch==2.4.*", "torchvision==0.19.*")),
    Pair("newest-3.10", "3.10", (f"ultralytics=={VERSIONS['NEWEST']}", "torch", "torchvision")),
    Pair("newest-3.14", "3.14", (f"ultralytics=={VERSIONS['NEWEST']}", "torch", "torchvision")),
)


def make(pair: Pair, folder: Path) -> Path:
    """Make the environment of a pair in a folder; return its Python.

    Raises:
        OSError: If there is neither uv nor this Python.
        subprocess.CalledProcessError: If a package cannot be installed.
    """
    python = folder / "bin/python"
    wanted = [*pair.packages, "-e", f"{ROOT}[export,test]"]
    if uv := shutil.which("uv"):
        run(uv, "venv", "-q", "--python", pair.python, folder)
        run(uv, "pip", "install", "-q", "--python", python, *wanted)
        return python
    interpreter = shutil.which(f"python{pair.python}")
    if interpreter is None:
        raise OSError(f"neither uv nor python{pair.python} is installed")
    run(interpreter, "-m", "venv", folder)
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *wanted)
    return python


def run(*command: str | Path) -> None:
    """Run a command; raise if it fails."""
    subprocess.run(list(map(str, command)), check=True)


def check(pair: Pair, folder: Path, arguments: list[str]) -> tuple[list[str], bool]:
    """Return a row of the table for a pair, and whether its suite passed."""
    try:
        python = make(pair, folder)
    except (OSError, subprocess.CalledProcessError) as e:
        return [pair.name, pair.python, "", "", f"no environment: {e}"], False
    code = "import torch, ultralytics; print(ultralytics.__version__, torch.__version__)"
    found = subprocess.run([python, "-c", code], cwd=folder, capture_output=True, text=True, check=True).stdout.split()[
        -2:
    ]
    log = folder.with_name(f"{folder.name}.log")
    with log.open("w") as f:
        command = [python, "-m", "pytest", "-n", "2", "--dist", "loadfile", *arguments]
        status = subprocess.run(list(map(str, command)), cwd=ROOT, stdout=f, stderr=subprocess.STDOUT).returncode
    lines = SUMMARY.findall(log.read_text())
    counts = ", ".join(f"{n} {what}" for n, what in COUNTS.findall(lines[-1])) if lines else f"see {log}"
    return [pair.name, pair.python, *found, counts], status == 0


def main(argv: list[str] | None = None) -> int:
    """Check the pairs that the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [pair.name for pair in PAIRS]
    parser.add_argument("--only", action="append", choices=names, help="a pair to check; may be given more than once")
    parser.add_argument("--folder", type=Path, help="where environments and logs go; a temporary folder unless given")
    parser.add_argument("--keep", action="store_true", help="keep the environments")
    parser.add_argument("arguments", nargs="*", help="arguments of pytest, after --")
    options = parser.parse_args(argv)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="versions-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"logs in {folder}", file=sys.stderr)
    print("| pair | Python | Ultralytics | torch | tests |\n|---|---|---|---|---|", flush=True)
    passed = True
    for pair in PAIRS:
        if options.only and pair.name not in options.only:
            continue
        row, ok = check(pair, folder / pair.name, options.arguments)
        passed &= ok
        print(f"| {' | '.join(row)} |", flush=True)
        if not options.keep:
            shutil.rmtree(folder / pair.name, ignore_errors=True)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
