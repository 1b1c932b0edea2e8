"""The record of large conversions, and docs/data.md, which holds its table."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", ["voc", "coco"])
def test_memory_grows_no_faster_than_the_dataset(kind):
    content = json.loads((ROOT / "results/data-scale.json").read_text())
    rows = [row for row in content["runs"] if row["format"] == kind]
    per_image = [(row["peak_mb"] - row["started_mb"]) / row["images"] for row in rows[1:]]
    assert [row["images"] for row in rows][:2] == [10_000, 30_000]
    assert max(per_image) <= 0.01  # MB
    docs = (ROOT / "docs/data.md").read_text()
    for row in rows:
        assert f"| {kind} | {row['images']:,} | {row['seconds']:.0f} s | {row['peak_mb']:,} MB |" in docs
