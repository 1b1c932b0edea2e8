"""The range of supported versions, and the script that checks it."""

import runpy
from pathlib import Path

import pytest
import ultralytics

from ultralytics_sgdm import versions

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "scripts/check_versions.py"


@pytest.mark.parametrize(
    ("version", "tested"),
    [
        (versions.OLDEST, True),
        (versions.NEWEST, True),
        (f"{versions.NEWEST}.dev0", True),
        ("8.4.99", False),
        ("8.5.0", False),
        ("9.0", False),
    ],
)
def test_what_is_in_the_range(version, tested):
    assert versions.is_tested(version) == tested


def test_the_tests_run_inside_the_range():
    assert versions.is_tested(ultralytics.__version__)


def test_the_script_tries_both_ends(monkeypatch, capsys, tmp_path):
    script = runpy.run_path(str(SCRIPT))
    pairs = {pair.name: pair for pair in script["PAIRS"]}
    assert {package for pair in pairs.values() for package in pair.packages} >= {
        f"ultralytics=={versions.OLDEST}",
        f"ultralytics=={versions.NEWEST}",
    }
    monkeypatch.setenv("PATH", str(tmp_path))
    assert script["main"](["--only", "oldest-3.10", "--folder", str(tmp_path)]) == 1
    assert "no environment: neither uv nor python3.10 is installed" in capsys.readouterr().out
