"""Run Ultralytics' own tests with and without this package, and report each test that ends differently.

The tests are in the source distribution, which pip downloads. Nothing else is: the models are made with random weights,
and tests that need data or weights from the network fail alike in both runs. Takes about twenty minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import ultralytics

FILES = ("test_python.py", "test_engine.py", "test_cli.py", "test_ndjson_converter.py")
PREPARE = """
from pathlib import Path
from ultralytics import SETTINGS, YOLO
from ultralytics.cfg import TASK2MODEL
folder = Path("weights").resolve()
SETTINGS.update(weights_dir=str(folder), datasets_dir=str(folder.with_name("datasets")), runs_dir="runs")
(folder / "path with spaces").mkdir(parents=True)
for name in TASK2MODEL.values():
    YOLO(f"{Path(name).stem}.yaml").save(folder / name)
YOLO("yolo26n.yaml").save(folder / "path with spaces/yolo26n.pt")
"""
YOLO_STOCK = "#!{}\nimport sys\nfrom ultralytics.cfg import entrypoint\nsys.exit(entrypoint())\n"


def run(folder: Path, environment: dict[str, str], *arguments: str) -> dict[str, str]:
    """Return how each test ended, by its name."""
    command = [sys.executable, "-m", "pytest", *arguments, *(f"tests/{file}" for file in FILES)]
    command += ["-q", "-rA", "--color=no", "--tb=no", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    found = re.findall(r"^(PASSED|FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.M)
    return {name: outcome for outcome, name in found}


def main() -> int:
    """Return 1 if a test ends differently."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        command = ["download", "-q", "--no-deps", "--no-build-isolation", "--no-binary", ":all:", "-d", name]
        subprocess.run([sys.executable, "-m", "pip", *command, f"ultralytics=={ultralytics.__version__}"], check=True)
        with tarfile.open(next(top.glob("ultralytics-*.tar.gz"))) as archive:
            archive.extractall(top, filter="data")
        folder = next(path for path in top.glob("ultralytics-*") if path.is_dir())
        (top / "bin").mkdir()
        (top / "bin/yolo").write_text(YOLO_STOCK.format(sys.executable))
        (top / "bin/yolo").chmod(0o755)
        environment = {**os.environ, "YOLO_CONFIG_DIR": name, "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
        environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
        own = Path(sys.executable).parent  # where this package's `yolo` is
        subprocess.run([sys.executable, "-c", PREPARE], check=True, cwd=top, env=environment)
        without = run(folder, {**environment, "PATH": f"{top / 'bin'}:{environment['PATH']}"})
        ours = run(folder, {**environment, "PATH": f"{own}:{environment['PATH']}"}, "-p", "ultralytics_sgdm")
    passed = sum(outcome == "PASSED" for outcome in without.values())
    print(f"{len(without)} tests, {passed} passed without ultralytics_sgdm")
    different = [name for name in without.keys() | ours.keys() if without.get(name) != ours.get(name)]
    for test in sorted(different):
        print(f"{test}: {without.get(test)} without, {ours.get(test)} with")
    return 1 if different or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
