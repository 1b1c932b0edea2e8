"""The rules of CONTRIBUTING.md that a machine can hold; the second, on patches, is held by plugin/test_patches.py."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ultralytics_sgdm"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = {  # what a room may import of the package, besides itself and the single files that stand below it
    "nn": set(),
    "placing": {"nn"},
    "plugin": {"nn", "placing"},
    "data": set(),
    "deploy": set(),
    "evidence": {"nn", "placing"},
}
LIBRARIES = {  # module of the standard library: what the package uses in its place
    "argparse": "commands.py, from a signature",
    "csv": "pandas",
    "optparse": "commands.py, from a signature",
    "urllib": "requests",
    "xml": "defusedxml",
}


def imports(file):
    """Yield the modules that a file imports, of the package by their full name, and whether it does so on import."""
    package = ".".join(file.relative_to(ROOT).with_suffix("").parts[:-1])
    tree = ast.parse(file.read_text(encoding="utf-8"))
    inside = {id(node) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for node in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) not in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module, id(node) not in inside
            yield from ((f"{module}.{alias.name}", id(node) not in inside) for alias in node.names)


@pytest.mark.parametrize("room", ROOMS)
def test_arrows_point_down(room):
    for file in (PACKAGE / room).rglob("*.py"):
        rooms = {name.split(".")[1] for name, _ in imports(file) if name.startswith("ultralytics_sgdm.")}
        others = rooms & ROOMS.keys() - {room}
        assert others <= ROOMS[room], f"{file.relative_to(ROOT)} imports {others - ROOMS[room]}"


def test_the_core_knows_nothing_of_the_evidence(shell):
    for file in FILES:
        if "evidence" not in file.parts:
            found = [name for name, _ in imports(file) if name.startswith("ultralytics_sgdm.evidence")]
            assert not found, f"{file.relative_to(ROOT)} imports {found}"
    code = "import sys, ultralytics_sgdm.cli; print('FOUND', [m for m in sys.modules if 'sgdm.evidence' in m])"
    assert "FOUND []" in shell(sys.executable, "-c", code)


def test_what_a_library_does_is_left_to_it():
    for file in FILES:
        found = {name.split(".")[0] for name, _ in imports(file)} & LIBRARIES.keys()
        assert not found, f"{file.relative_to(ROOT)}: use {[LIBRARIES[name] for name in found]}"


def test_one_exception_class_and_one_for_the_file_that_may_be_copied():
    classes = {
        node.name
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error")
    }
    assert classes == {"ConfigError", "InputError"}


def test_no_file_is_longer_than_a_person_reads():
    for file in [*FILES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]:
        lines = len(file.read_text(encoding="utf-8").splitlines())
        assert lines <= 350, f"{file.relative_to(ROOT)} has {lines} lines"


def test_the_readme_fits_on_a_screen_or_two():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
