"""Run the whole suite on the oldest and the newest supported versions, each in an environment of its own.

    python scripts/check_versions.py                     # both pairs
    python scripts/check_versions.py oldest --keep DIR   # one, and its environment stays in DIR

A pair is a Python and pinned versions of ultralytics and torch; of what a version has no wheel for, or this machine no
Python, the report says so. The table that it prints is that of docs/versions.md.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "ultralytics_sgdm"))
import versions  # noqa: E402 (alone: the package itself would import what is not installed yet)


class Pair(NamedTuple):
    """What is installed together."""

    python: str
    ultralytics: str
    torch: str
    torchvision: str
    others: tuple[str, ...] = ()


PAIRS = {
    "oldest": Pair("3.10", f"=={versions.OLDEST}", "==2.4.1", "==0.19.1", ("numpy<2",)),
    "newest": Pair("3.13", f"=={versions.NEWEST}", "", ""),
}


def check(pair: Pair, folder: Path) -> str:
    """Make the environment of a pair, run the suite, and return what came out."""
    python = shutil.which(f"python{pair.python}")
    if python is None or subprocess.run([python, "--version"], capture_output=True).returncode:
        return f"not run: no python{pair.python} on this machine"
    bin = folder / "bin"
    if not (bin / "python").exists():
        subprocess.run([python, "-m", "venv", folder], check=True)
    pins = [f"ultralytics{pair.ultralytics}", f"torch{pair.torch}", f"torchvision{pair.torchvision}", *pair.others]
    installed = subprocess.run([bin / "pip", "install", "-q", *pins, f"{ROOT}[export,test]"], cwd=folder)
    if installed.returncode:
        return "not run: these versions cannot be installed together"
    command = [bin / "python", "-m", "pytest", "-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    print(done.stdout, flush=True)
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.M)
    return "the whole suite passes" if not done.returncode else f"{len(failed)} tests fail: {', '.join(failed)}"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="*", help=f"{' or '.join(PAIRS)} (default: all)")
    parser.add_argument("--keep", type=Path, help="folder in which the environments stay")
    arguments = parser.parse_args()
    if unknown := set(arguments.pairs) - PAIRS.keys():
        parser.error(f"{unknown.pop()} is none of {', '.join(PAIRS)}")
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.pairs or PAIRS:
            pair, folder = PAIRS[name], (arguments.keep or Path(temporary)).resolve() / name
            result = check(pair, folder)
            found = [pair.python, pair.ultralytics.lstrip("="), pair.torch.lstrip("=") or "newest", result]
            rows.append(f"| {' | '.join(found)} |")
    print("\n".join(["| Python | ultralytics | torch | result |", "|---|---|---|---|", *rows]))
    sys.exit(any("passes" not in row for row in rows))


if __name__ == "__main__":
    main()
