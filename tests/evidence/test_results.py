"""The comparisons in results/, and docs/evidence.md, which holds their figures."""

import json
import re
import shutil
from pathlib import Path

import pytest

from ultralytics_sgdm.evidence import report

pytest.importorskip("scipy")
pandas = pytest.importorskip("pandas")
ROOT = Path(__file__).parents[2]
EVIDENCE = (ROOT / "docs/evidence.md").read_text(encoding="utf-8")
if not (ROOT / "results").is_dir():
    pytest.skip("an sdist holds no results", allow_module_level=True)
COMPARISONS = sorted(file.parent for file in ROOT.glob("results/*/summary.md"))


def read(folder):
    return pandas.read_csv(ROOT / "results" / folder / "summary.csv", index_col="model")


@pytest.mark.parametrize("folder", COMPARISONS, ids=lambda folder: folder.name)
def test_summaries_are_those_of_the_records(folder, tmp_path, capsys):
    out = tmp_path / folder.name
    shutil.copytree(folder, out)
    plan = ROOT / f"docs/plans/{folder.name}.yaml"
    report.main(str(out), str(plan) if plan.exists() else "", str(tmp_path))
    for name in ("summary.csv", "summary.md"):
        assert (out / name).read_text(encoding="utf-8") == (folder / name).read_text(encoding="utf-8")


def test_the_table_of_accuracy_is_that_of_the_summaries():
    rows = re.findall(r"^\| \[([\w-]+)\]\(\S+\) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", EVIDENCE, re.M)
    assert len(rows) > 20
    for folder, model, seeds, difference, verdict in rows:
        row = read(folder).loc[model]
        half = row[["± seeds and images", "± seeds"]].dropna().iloc[0]
        assert (seeds, difference) == (row["seeds"], f"{row['difference']:+.1f} ± {half:.1f}")
        summary = (ROOT / f"results/{folder}/summary.md").read_text(encoding="utf-8")
        found = re.findall(rf"^- {re.escape(model)}: (.+)$", summary, re.M)
        assert verdict == (found[0] if found else "no plan")


def test_the_adjusted_p_values_of_cbam_are_those_of_the_summaries():
    for folder in ("finetune-bccd", "bccd-yolov8n"):
        assert f"adjusted p = {read(folder)['p']['CBAM from P3 on']:.2g}" in EVIDENCE


def test_the_table_of_costs_is_that_of_the_benchmark():
    rows = json.loads((ROOT / "results/benchmark-deepest.json").read_text())["rows"]
    shown = re.findall(r"^\| (.+?) \| (\d+ ms .+) \|$", EVIDENCE, re.M)
    assert len(shown) == 9
    for row in rows:
        costs = [value for value in row.values() if isinstance(value, dict)]
        cells = [f"{cost[unit]:.0f} {unit} ({cost['ratio']:.2f})" for cost in costs for unit in cost if unit != "ratio"]
        name = Path(row["model"]).stem.replace("yolov8n-sgdm-p3", "SGDM from P3 on")
        assert name not in dict(shown) or (name, " | ".join(cells)) in shown


def test_the_table_of_noise_is_that_of_the_checkpoints():
    for strength in (4, 8, 16, 32):
        cells = [str(strength)]
        for folder in ("noise-bccd", "noise-animals"):
            rows = read(folder).query("corruption == 'highpass' and strength == @strength")
            cells.append(f"{rows['loss']['yolov8n']:.1f}")
            for _, row in rows.loc[["yolov8n-sgdm", "yolov8n-sgdm-free"]].iterrows():
                cells.append(f"{row['difference']:+.1f} ± {row['difference +-']:.1f}")
        assert f"| {' | '.join(cells)} |" in EVIDENCE
