"""Reports of records: of this version, and of older ones."""

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("pandas")
from ultralytics_sgdm.errors import ConfigError
from ultralytics_sgdm.evidence import report
from ultralytics_sgdm.evidence.plan import Plan, Variant


def write_record(folder, model, seed, score, **others):
    keys = {"recipe": {}, "parameters": 1, "gflops": 1.0, "minutes": 1.0, "classes": {}, "curve": [score]}
    record = {"arm": model, "model": f"{model}.yaml", "seed": seed, "mAP50-95": score, "mAP50": score, **keys, **others}
    (folder / f"{model}-{seed}.json").write_text(json.dumps(record))


def plan(*names, seeds):
    return Plan("Why?", [Variant(n, f"{n}.yaml") for n in names], "", {}, seeds, 0.5, 0.3, "")


def write_analysis(folder):
    """Keep errors over the images for the records in a folder, as a run with detections does."""
    runs = report.group_runs(report.read_records(folder), "a")
    scores = report.Comparison(runs, None, 0)
    both = {model: {"error": 0.1, "pictures_error": 0.05} for model in runs if model != "a"}
    analysis = {"runs": report.fingerprint(runs), "pictures": 400, "groups": 400, "both": {"mAP50-95": both}}
    analysis["scores"] = {m: scores.score(m) for m in ("mAP50-95", "mAP50")}
    (folder / "analysis.json").write_text(json.dumps(analysis))


def test_the_figures_of_a_summary_follow_from_the_records(tmp_path):
    """Two models of known scores: mean, difference, and the interval over seeds by hand."""
    for model, seed, score in (("a", 0, 10), ("a", 1, 12), ("b", 0, 13), ("b", 1, 14)):
        write_record(tmp_path, model, seed, score / 100)
    text = report.write(tmp_path, None, tmp_path, "a")
    runs = report.group_runs(report.read_records(tmp_path), "a")
    row = report.summarize(report.Comparison(runs, None, 1))[1]
    assert (row["mAP50-95"], row["difference"], row["spread"]) == (13.5, 2.5, 0.707)
    assert row["± seeds"] == pytest.approx(12.7062 * 0.7071 / 2**0.5, abs=0.001)
    assert row["± seeds and images"] is None and row["p"] == pytest.approx(0.126, abs=0.001)
    assert "| b | 1 | 0 1 | 13.5 | 0.7 | +2.5 | 6.4 |  | 0.13 | 13.5 |" in text
    assert "Warning: an interval rests on 2 seeds; below 5 it is a guess." in text
    assert "Warning: no detections at hand" in text
    assert "two runs of a that differ in the seed alone are 2.00 mAP points apart on average" in text
    assert (tmp_path / "summary.md").read_text() == text
    assert "Verdict" not in text


def test_a_model_with_some_of_the_seeds_is_compared_over_those_that_both_have(tmp_path):
    for seed, score in enumerate((0.10, 0.12, 0.14, 0.16)):
        write_record(tmp_path, "a", seed, score)
    for seed, score in enumerate((0.11, 0.14)):
        write_record(tmp_path, "b", seed, score)
    text = report.write(tmp_path, plan("a", "b", seeds=[0, 1, 2, 3]), tmp_path)
    assert "| b | 1 | 0 1 | 12.5 | 2.1 | +1.5 |" in text
    assert text.rstrip().endswith("- b: undecided: 2 of 4 planned seeds")


def test_intervals_of_a_plan_count_the_models_that_have_no_run_yet(tmp_path):
    for model, shift in (("a", 0), ("b", 0.02)):
        for seed, score in enumerate((0.10, 0.12, 0.15)):
            write_record(tmp_path, model, seed, score + shift + seed / 1000)
    few, many = (
        report.write(tmp_path, plan("a", "b", *others, seeds=[0, 1, 2]), tmp_path) for others in ((), ("c", "d", "e"))
    )
    assert "95 % intervals of 1 differences" in few and "95 % intervals of 4 differences" in many
    assert "- c: undecided: 0 of 3 planned seeds" in many


def test_two_seeds_that_found_nothing_decide_nothing(tmp_path):
    for model in ("a", "b"):
        for seed in (0, 1, 2):
            write_record(tmp_path, model, seed, 0.0)
    write_analysis(tmp_path)
    assert "- b: undecided: a verdict needs 3 seeds" in _report_of(tmp_path, seeds=(0, 1))
    write_analysis(tmp_path)
    text = report.write(tmp_path, plan("a", "b", seeds=[0, 1, 2]), tmp_path)
    assert "- b: undecided: no spread over seeds" in text
    assert "how many seeds are needed is unknown" in text and "power" not in text


def _report_of(folder, seeds):
    few = folder / "few"
    few.mkdir()
    for seed in seeds:
        for model in ("a", "b"):
            shutil.copy(folder / f"{model}-{seed}.json", few)
    write_analysis(few)
    return report.write(few, plan("a", "b", seeds=list(seeds)), few)


def test_the_errors_over_the_images_widen_the_interval_that_decides(tmp_path):
    for seed, (a, b) in enumerate(((0.10, 0.1101), (0.12, 0.1302), (0.15, 0.1603))):
        write_record(tmp_path, "a", seed, a)
        write_record(tmp_path, "b", seed, b)
    write_analysis(tmp_path)
    assert report.write(tmp_path, plan("a", "b", seeds=[0, 1, 2]), tmp_path).rstrip().endswith("- b: superior")
    analysis = json.loads((tmp_path / "analysis.json").read_text())
    analysis["both"]["mAP50-95"]["b"] = {"error": 1.0, "pictures_error": 0.99}
    (tmp_path / "analysis.json").write_text(json.dumps(analysis))
    assert report.write(tmp_path, plan("a", "b", seeds=[0, 1, 2]), tmp_path).rstrip().endswith("- b: undecided")
    write_record(tmp_path, "b", 0, 0.2)  # an analysis of other records is not used
    assert "undecided: no interval over seeds and images" in report.write(
        tmp_path, plan("a", "b", seeds=[0, 1, 2]), tmp_path
    )


def test_records_of_the_first_releases_can_be_read(tmp_path):
    write_record(tmp_path, "b", 0, 0.3, first={"epochs": 3}, sha256="of itself", best={"mAP50-95": 0.3})
    old = json.loads((tmp_path / "b-0.json").read_text())
    del old["arm"]  # 0.1.0
    (tmp_path / "b-0.json").write_text(json.dumps(old))
    (record,) = report.read_records(tmp_path).values()
    assert report.model_of(record) == "b" and "sha256" not in record
    with pytest.raises(ConfigError, match="no finished run of the reference, 'a'"):
        report.write(tmp_path, None, tmp_path, "a")


@pytest.mark.parametrize(
    ("content", "message"), [("{", "cannot be read"), ("[1]", "is not a record"), ('{"a": 1}', "is not a record")]
)
def test_a_record_that_is_broken_or_foreign_is_named(tmp_path, content, message):
    (tmp_path / "a-0.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        report.read_records(tmp_path)


def test_a_record_under_another_name_is_named(tmp_path):
    write_record(tmp_path, "a", 0, 0.1)
    shutil.copy(tmp_path / "a-0.json", tmp_path / "a-1.json")
    with pytest.raises(ConfigError, match="is the record of a-0; delete it to run a-1"):
        report.read_records(tmp_path)


def test_the_plot_says_what_it_shows(tmp_path, monkeypatch):
    from matplotlib import pyplot as plt

    for model, shift in (("a", 0), ("b", 0.02), ("c", 0.01)):
        for seed in (0, 1, 2):
            write_record(tmp_path, model, seed, 0.1 + shift + np.sin(seed) / 100 * (1 + shift))
    monkeypatch.setattr(plt, "close", lambda figure: None)
    report.write(tmp_path, None, tmp_path, "a")
    axes = plt.gcf().axes[0]
    assert axes.get_xlabel() == "mAP50-95, mAP points above a: seeds, mean, 95 % interval over seeds"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "c"]
    monkeypatch.undo()
    plt.close("all")
