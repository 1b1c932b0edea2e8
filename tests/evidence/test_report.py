"""Reports of records: of this version, and of older ones."""

import json

import numpy as np
import pytest
from matplotlib import pyplot as plt

from ultralytics_sgdm.errors import ConfigError
from ultralytics_sgdm.evidence import plan as plans
from ultralytics_sgdm.evidence import records, report

pytest.importorskip("scipy")
pandas = pytest.importorskip("pandas")


@pytest.fixture
def write_records(tmp_path):
    """Write a record of each score, by model and seed, into a folder; return the folder."""

    def write(others=None, **scores):
        for model, values in scores.items():
            for seed, score in enumerate(values):
                record = {"arm": model, "model": f"{model}.yaml", "seed": seed, "mAP50-95": score, "mAP50": score}
                (tmp_path / f"{model}-{seed}.json").write_text(json.dumps(record | {"parameters": 1} | (others or {})))
        return tmp_path

    return write


def make_report(folder, *names, seeds=3):
    given = {"question": "Why?", "data": "", "recipe": {}, "better": 0.5, "equal": 0.3, "stop": ""}
    plan = plans.build({**given, "models": [f"{name}.yaml" for name in names], "seeds": list(range(seeds))})
    return report.write(folder, plan, folder)


def write_analysis(folder, error=0.1, images_error=0.05):
    """Keep errors over the images for the records in a folder, as a run with detections does."""
    runs, scores = list(records.read_runs(folder).values()), {model: {} for model in "ab"}
    for run in runs:
        scores[run["arm"]][str(run["seed"])] = 100 * run["mAP50-95"]
    both = {"mAP50-95": {"b": {"error": error, "pictures_error": images_error}}}
    analysis = {"runs": report.fingerprint(runs), "pictures": 400, "groups": 400, "both": both}
    records.write({**analysis, "scores": {"mAP50-95": scores, "mAP50": scores}}, folder / "analysis.json")


def test_the_figures_of_a_summary_follow_from_the_records(write_records, monkeypatch):
    """Two models of known scores: mean, difference, and the interval over seeds by hand."""
    monkeypatch.setattr(plt, "close", lambda figure: None)
    folder = write_records(a=(0.10, 0.12), b=(0.13, 0.14))
    text = report.write(folder, None, folder, "a")
    row = pandas.read_csv(folder / "summary.csv").iloc[1]
    assert (row["mAP50-95"], row["difference"], row["spread"]) == (13.5, 2.5, 0.707)
    assert row["± seeds"] == pytest.approx(12.7062 * 0.7071 / 2**0.5, abs=0.001)
    assert np.isnan(row["± seeds and images"]) and row["p"] == pytest.approx(0.126, abs=0.001)
    assert "| b | 1 | 0 1 | 13.5 | 0.7 | +2.5 | 6.4 |  | 0.13 | 13.5 |" in text
    assert "Warning: an interval rests on 2 seeds; below 5 it is a guess." in text
    assert "Warning: no detections at hand" in text
    assert "two runs of a that differ in the seed alone are 2.00 mAP points apart on average" in text
    assert (folder / "summary.md").read_text() == text and "Verdict" not in text
    axes = plt.gcf().axes[0]
    assert axes.get_xlabel() == "mAP50-95, mAP points above a\nseeds and mean"  # no interval of two seeds
    report.write(write_records(a=(0.10, 0.12, 0.13), b=(0.13, 0.14, 0.14)), None, folder, "a")
    axes = plt.gcf().axes[0]
    assert axes.get_xlabel() == "mAP50-95, mAP points above a\nseeds, mean, and 95 % interval over seeds"
    label = axes.xaxis.label.get_window_extent()
    assert label.x0 >= 0 and label.x1 <= axes.figure.bbox.width, "the label is cut off"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b"]
    monkeypatch.undo()
    plt.close("all")


def test_a_model_with_some_of_the_seeds_is_compared_over_those_that_both_have(write_records):
    text = make_report(write_records(a=(0.10, 0.12, 0.14, 0.16), b=(0.11, 0.14)), "a", "b", seeds=4)
    assert "| b | 1 | 0 1 | 12.5 | 2.1 | +1.5 |" in text
    assert text.rstrip().endswith("- b: undecided: 2 of 4 planned seeds")


def test_intervals_of_a_plan_count_the_models_that_have_no_run_yet(write_records):
    text = make_report(write_records(a=(0.10, 0.12, 0.15), b=(0.12, 0.141, 0.172)), *"abcde")
    assert "95 % intervals of 4 differences" in text and "- c: undecided: 0 of 3 planned seeds" in text


def test_seeds_that_found_nothing_decide_nothing(write_records):
    write_analysis(folder := write_records(a=(0.0,) * 3, b=(0.0,) * 3))
    text = make_report(folder, "a", "b")
    assert "- b: undecided: no spread over seeds" in text
    assert "how many seeds are needed is unknown" in text and "power" not in text


def test_the_errors_over_the_images_widen_the_interval_that_decides(write_records):
    folder = write_records(a=(0.10, 0.12, 0.15), b=(0.1101, 0.1302, 0.1603))
    for errors, verdict in (((0.1, 0.05), "superior"), ((1.0, 0.99), "undecided")):
        write_analysis(folder, *errors)
        assert make_report(folder, "a", "b").rstrip().endswith(f"- b: {verdict}")
    write_records(b=(0.2,))  # an analysis of other records is not used
    assert "undecided: no interval over seeds and images" in make_report(folder, "a", "b")


def test_records_of_the_first_releases_can_be_read(write_records):
    folder = write_records({"first": {"epochs": 3}, "sha256": "of itself", "best": {"mAP50-95": 0.3}}, b=(0.3,))
    old = json.loads((folder / "b-0.json").read_text())
    del old["arm"]  # 0.1.0
    (folder / "b-0.json").write_text(json.dumps(old))
    (record,) = records.read_runs(folder).values()
    assert records.model_of(record) == "b" and "sha256" not in record
    with pytest.raises(ConfigError, match="no finished run of the reference, 'a'"):
        report.write(folder, None, folder, "a")


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": 1}'])
def test_a_record_that_is_broken_or_foreign_is_named(tmp_path, content):
    (tmp_path / "a-1.json").write_text(content)
    with pytest.raises(ConfigError, match=r"a-1.json is not a record of this command; move it away"):
        records.read_runs(tmp_path)
