"""The repository as a newcomer gets it: README, packaging, licence, supported versions."""

import importlib
import re
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import ultralytics_sgdm
from ultralytics_sgdm import cli, versions

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_supported_versions_are_those_of_setup():
    setup = (ROOT / "setup.py").read_text()
    limit = re.search(r'"ultralytics>={oldest},(<[\d.]+)"', setup).group(1)
    assert f"ultralytics {versions.OLDEST} to {versions.NEWEST} (`{limit}`)" in README
    assert re.search(rf"torch {re.search(r'torch>=([0-9.]+)', setup).group(1)}\S* to", README)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("setuptools", "77")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run(command, check=True, cwd=folder)
    return next(folder.glob("*.whl"))


def test_the_wheel_brings_the_yamls_and_the_commands(wheel, shell):
    site = wheel.parent / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        names = archive.namelist()
    assert {f"ultralytics_sgdm/cfg/{f.relative_to(ROOT / 'cfg')}" for f in (ROOT / "cfg").rglob("*.yaml")} <= set(names)
    assert "ultralytics_sgdm/py.typed" in names
    metadata = next(site.glob("*.dist-info"))
    assert f"\nVersion: {ultralytics_sgdm.__version__}\n" in (metadata / "METADATA").read_text()
    scripts = (metadata / "entry_points.txt").read_text()
    assert "yolo = ultralytics_sgdm.cli:main" in scripts and "yolo-sgdm = ultralytics_sgdm.cli:main" in scripts
    script = "import ultralytics, ultralytics_sgdm as u; print(u.__file__, ultralytics.YOLO('yolov8n-sgdm.yaml').task)"
    assert f"{site / 'ultralytics_sgdm/__init__.py'} detect" in shell(
        sys.executable, "-c", script, PYTHONPATH=str(site)
    )


def test_the_public_names_are_those_of_the_page():
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    row = re.search(r"\| Python names \| `ultralytics_sgdm.__all__`: (.+?) \|", page).group(1)
    assert sorted(re.findall(r"`(\w+)`", row)) == sorted(ultralytics_sgdm.__all__)
    for name in ("ultralytics_sgdm", "ultralytics_sgdm.nn", "ultralytics_sgdm.data"):
        module = importlib.import_module(name)
        assert all(hasattr(module, public) for public in module.__all__)
    reference = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    named = {*cli.COMMANDS.values(), "SGDM", "RDConv", "equip", "insert"} - {"cli.models", "cli.equip", "cli.layers"}
    assert [name for name in named if f"ultralytics_sgdm.{name}\n" not in reference] == []


@pytest.mark.parametrize(
    ("version", "tested"),
    [(versions.OLDEST, True), (f"{versions.NEWEST}.dev0", True), ("8.4.99", False), ("8.5.0", False)],
)
def test_what_is_in_the_range(version, tested):
    assert versions.is_tested(version) == tested


def test_the_script_tries_both_ends(monkeypatch, capsys, tmp_path):
    script = runpy.run_path(str(ROOT / "scripts/check_versions.py"))
    pairs = {pair.name: pair for pair in script["PAIRS"]}
    assert {package for pair in pairs.values() for package in pair.packages} >= {
        f"ultralytics=={versions.OLDEST}",
        f"ultralytics=={versions.NEWEST}",
    }
    monkeypatch.setenv("PATH", str(tmp_path))
    assert script["main"](["--only", "oldest-3.10", "--folder", str(tmp_path)]) == 1
    assert "no environment: neither uv nor python3.10 is installed" in capsys.readouterr().out
