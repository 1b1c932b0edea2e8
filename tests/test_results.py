"""The comparisons in results/, and README.md, which holds their tables."""

import importlib
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMPARISONS = sorted(file.parent for file in ROOT.glob("results/*/summary.md"))


@pytest.mark.parametrize("folder", COMPARISONS, ids=lambda folder: folder.name)
def test_tables_are_those_of_the_runs(folder, tmp_path, monkeypatch):
    pytest.importorskip("scipy")
    monkeypatch.syspath_prepend(ROOT / "scripts")
    for file in folder.glob("*.json"):
        shutil.copy(file, tmp_path)
    reference = (folder / "summary.csv").read_text().splitlines()[1].split(",")[0]
    importlib.import_module("compare").summarize(tmp_path, reference)
    table = (folder / "summary.md").read_text(encoding="utf-8")
    for name in ("summary.csv", "summary.md"):
        assert (tmp_path / name).read_text(encoding="utf-8") == (folder / name).read_text(encoding="utf-8")
    assert table in (ROOT / "README.md").read_text(encoding="utf-8")
