"""What the records of a comparison say: scores, differences with their intervals, tables, plots, and the verdict."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..configs import ConfigError
from . import folds as fold_sets
from . import records, statistics
from .evaluation import Detections, average_precision, load, mean_ap, pool
from .plans import APART, METRICS, Plan, repetition
from .statistics import Estimate
from .training import DETECTIONS, METRIC, run_name

Runs = dict[str, dict[int, dict[int | None, dict[str, Any]]]]  # arm, seed, fold
ANALYSIS = "analysis.json"
HEADER = f"""| model | parameters | seeds | {METRIC} | difference | ± seeds | ± seeds and pictures | mAP50 | best.pt |
|---|---:|---|---:|---:|---:|---:|---:|---:|"""


class Report:
    """What the records of a folder say.

    Args:
        out: Folder of the records.
        plan: Plan, or what stands in for one.
        look: Which look, from 0.
        scratch: Folder with the detections of the runs.
        resamples: Resamples of the pictures.

    Raises:
        ConfigError: If a record is missing that the plan asks for, or is broken.
    """

    def __init__(self, out: Path, plan: Plan, look: int, scratch: Path, resamples: int = 1000) -> None:
        self.out, self.plan, self.confidence = out, plan, plan.confidence(look)
        found = all_records(out)
        parts = range(plan.folds) if plan.folds else [None]
        names = {
            run_name(arm.name, seed, fold) for arm in plan.arms for seed in plan.seeds(arm, look) for fold in parts
        }
        if lacking := sorted(names - found.keys()):
            raise ConfigError(f"{out} lacks {lacking[0]}: no difference is reported where a run is missing")
        if plan.question:  # what a later look adds has no part in this one
            found = {name: record for name, record in found.items() if name in names}
        self.runs = by_arm(found, plan.arms[0].name)
        analysis = analyse(self.runs, scratch, plan.groups, resamples)
        file = out / ANALYSIS
        if analysis is None and file.exists():
            try:
                kept = json.loads(file.read_text(encoding="utf-8"))
                digest = kept.pop(records.DIGEST, None)  # none in those of before it was kept
                whole = digest in (None, records.digest(kept)) and kept["both"].keys() == set(METRICS)
                analysis = kept if kept["runs"] == fingerprint(self.runs) else None
            except (OSError, ValueError, AttributeError, TypeError, KeyError):
                whole = False
            if not whole:
                raise ConfigError(f"{file} is not as this command wrote it; move it away")
        self.analysis = analysis

    def estimates(self, metric: str) -> dict[str, dict[str, Estimate]]:
        """Return the differences of each arm to the first, in points, by the kinds of interval in `INTERVALS`."""
        return estimates(self.runs, self.analysis, metric, self.confidence)

    def verdicts(self) -> dict[str, str]:
        """Return what the plan's rule says of each arm but the reference."""
        found = self.estimates(self.plan.metric)
        return {arm: self.plan.verdict(kinds[self.plan.interval]) for arm, kinds in found.items()}

    def write(self) -> None:
        """Write all but the records."""
        from . import plots

        rows = summary(self.runs, self.analysis, self.confidence)
        if self.analysis is not None:
            records.keep(self.analysis, self.out / ANALYSIS)
        write_summary(self.out, rows)
        records.write(self.out / "power.md", power(self.runs, self.analysis))
        if self.plan.question:
            records.write(self.out / "verdict.md", self.text())
        if len(rows) > 1:
            points = {arm: list(differences(self.runs, self.analysis, arm, METRIC).values()) for arm in self.runs}
            plots.differences(rows, points, METRIC, self.confidence, picture := io.BytesIO())
            records.write(self.out / "differences.png", picture.getvalue())
        curves = {arm: [run["curve"] for run in _flat(runs)] for arm, runs in self.runs.items()}
        validated = self.plan.recipe.get("val", True)  # else the last epoch alone was
        if validated and any(len(curve) > 1 for runs in curves.values() for curve in runs):
            plots.curves(curves, METRIC, picture := io.BytesIO())
            records.write(self.out / "curves.png", picture.getvalue())
        else:
            (self.out / "curves.png").unlink(missing_ok=True)

    def text(self) -> str:
        """Return the report for people."""
        lines = [f"{self.plan.question}\n"] if self.plan.question else []
        lines.append(table(summary(self.runs, self.analysis, self.confidence)))
        lines += [power(self.runs, self.analysis)]
        if self.plan.question:
            rule = (
                f"better: interval over {self.plan.interval} above zero and mean at least {self.plan.better:g} points"
            )
            lines.append(f"Verdict by the plan ({rule}; equal: within {self.plan.equal:g}; {self.confidence:.1%}):\n")
            lines += [f"- {arm}: {verdict}" for arm, verdict in self.verdicts().items()]
        return "\n".join(lines) + "\n"


def all_records(out: Path) -> dict[str, dict[str, Any]]:
    """Return the records in a folder by their names.

    Raises:
        ConfigError: If a file is no record, is broken or edited, or has the name of another run.
    """
    found = {file.stem: records.read(file) for file in sorted(out.glob("*-*.json"))}
    for name, record in found.items():
        if name != (run := run_name(arm_of(record), record["seed"], record.get("fold"))):
            raise ConfigError(f"{out / name}.json is the record of {run}; delete it to run {name}")
    return found


def arm_of(record: Mapping[str, Any]) -> str:
    """Return the arm of a record."""
    return record.get("arm", Path(record["model"]).stem)


def by_arm(found: Mapping[str, dict[str, Any]], reference: str) -> Runs:
    """Return records by arm, seed and fold, the reference first; a seed counts if all of its folds are there.

    Raises:
        ConfigError: If an arm has a seed that the reference lacks.
    """
    runs: Runs = {reference: {}}
    for record in found.values():
        runs.setdefault(arm_of(record), {}).setdefault(record["seed"], {})[record.get("fold")] = record
    most = max(len(folds) for seeds in runs.values() for folds in seeds.values())
    runs = {arm: {s: f for s, f in seeds.items() if len(f) == most} for arm, seeds in runs.items()}
    runs = {arm: seeds for arm, seeds in runs.items() if seeds}
    for arm, seeds in runs.items():
        lacking = sorted({_twin(arm, seed) for seed in seeds} - runs.get(reference, {}).keys())
        if lacking:
            raise ConfigError(f"{arm} has seeds {lacking} that {reference} lacks: run it with them too")
    return runs


def _flat(seeds: Mapping[int, Mapping[int | None, dict[str, Any]]]) -> list[dict[str, Any]]:
    return [run for folds in seeds.values() for run in folds.values()]


def fingerprint(runs: Runs) -> str:
    """Return a checksum of the records."""
    return records.digest(sorted(records.digest(run) for seeds in runs.values() for run in _flat(seeds)))


def analyse(runs: Runs, scratch: Path, groups: str | None, resamples: int) -> dict[str, Any] | None:
    """Return what the detections on each picture tell beyond the records, in points.

    Args:
        runs: The records.
        scratch: Folder with the detections.
        groups: Regular expression of the groups of pictures, which are resampled whole.
        resamples: Number of resamples.

    Returns:
        For each metric the score of each run with all folds pooled, and for each arm but the first the mean difference
        with the standard error over seeds and pictures, and that which the pictures alone give. None if the detections
        of a run are missing or broken.
    """
    pooled: dict[str, dict[int, Detections]] = {}
    for arm, seeds in runs.items():
        for seed, of in seeds.items():
            files = [file for run in of.values() if (file := _detections(run, scratch))]
            if len(files) < len(of):
                return None
            try:
                pooled.setdefault(arm, {})[seed] = pool([load(file) for file in files])
            except (OSError, ValueError, KeyError, zipfile.BadZipFile):  # not whole
                return None
    reference, *others = pooled
    pictures = next(iter(pooled[reference].values())).pictures
    if any(not np.array_equal(d.pictures, pictures) for seeds in pooled.values() for d in seeds.values()):
        raise ConfigError("the runs were evaluated on different pictures; choose another out=")
    member = [fold_sets.group_of(name, groups) for name in pictures]
    counts = statistics.resample(member, resamples, np.random.default_rng(0))
    scores: dict[str, Any] = {metric: {arm: {} for arm in pooled} for metric in METRICS}
    resampled: dict[str, Any] = {metric: {arm: {} for arm in pooled} for metric in METRICS}
    for arm, found in pooled.items():
        for seed, d in found.items():
            for values, weights in ((scores, None), (resampled, counts)):
                ap: np.ndarray = 100 * average_precision(d, weights)
                values["mAP50-95"][arm][seed], values["mAP50"][arm][seed] = mean_ap(ap), mean_ap(ap[:, :, :1])
    both: dict[str, Any] = {metric: {} for metric in METRICS}
    for metric in METRICS:
        for arm in others:
            observed, drawn = (
                np.stack([v[metric][arm][s] - v[metric][reference][_twin(arm, s)] for s in pooled[arm]], 1)
                for v in (scores, resampled)
            )
            n = len(set(member))
            estimate = statistics.two_way(observed[0], drawn, n)
            kept = {"mean": estimate.mean, "error": estimate.error}
            both[metric][arm] = kept | {"pictures_error": float(drawn.mean(1).std(ddof=1))}
    return {
        "runs": fingerprint(runs),
        "pictures": len(member),
        "groups": len(set(member)),
        "resamples": resamples,
        "scores": {
            m: {arm: {str(s): float(v[0]) for s, v in seeds.items()} for arm, seeds in arms.items()}
            for m, arms in scores.items()
        },
        "both": both,
    }


def _twin(arm: str, seed: int) -> int:
    """Return the seed of the reference that a seed of an arm is compared with."""
    return seed - APART * repetition(arm)


def _detections(run: Mapping[str, Any], scratch: Path) -> Path | None:
    """Return the file of a run's detections, if it is there."""
    fold = "" if run.get("fold") is None else f"-fold{run['fold']}"
    name = f"{run.get('arm')}-{run['seed']}{fold}-{records.digest(run.get('binding'))[:10]}"
    file = scratch / name / DETECTIONS
    return file if file.exists() else None


def scores(runs: Runs, analysis: Mapping[str, Any] | None, metric: str) -> dict[str, dict[int, float]]:
    """Return the score of each run in points: folds pooled where detections were analysed, else their mean."""
    if analysis:
        return {arm: {int(s): v for s, v in seeds.items()} for arm, seeds in analysis["scores"][metric].items()}
    return {
        arm: {seed: 100 * float(np.mean([run[metric] for run in of.values()])) for seed, of in seeds.items()}
        for arm, seeds in runs.items()
    }


def differences(runs: Runs, analysis: Mapping[str, Any] | None, arm: str, metric: str) -> dict[int, float]:
    """Return the difference of an arm to the first, seed by seed, in points."""
    found = scores(runs, analysis, metric)
    reference = found[next(iter(runs))]
    twins = {seed: _twin(arm, seed) for seed in found[arm]}
    return {seed: found[arm][seed] - reference[twin] for seed, twin in twins.items() if twin in reference}


def estimates(
    runs: Runs, analysis: Mapping[str, Any] | None, metric: str, confidence: float
) -> dict[str, dict[str, Estimate]]:
    """Return the difference of each arm to the first by the kinds of interval in `plans.INTERVALS`, in points."""
    found = scores(runs, analysis, metric)
    reference, *others = found
    spread = statistics.pooled_spread([list(v.values()) for v in found.values()])
    result: dict[str, dict[str, Estimate]] = {}
    for arm in others:
        by_seed = differences(runs, analysis, arm, metric)
        over_seeds = statistics.paired(by_seed, dict.fromkeys(by_seed, 0.0), confidence)
        none = Estimate(over_seeds.mean, None, None, None)
        twins = [found[reference][_twin(arm, s)] for s in by_seed]
        over_both = none
        if analysis and (kept := analysis["both"][metric].get(arm)) and kept["error"] is not None:
            observed = np.array(list(by_seed.values()))
            over_both = statistics.over_both(
                observed, kept["error"], kept["pictures_error"], analysis["groups"], confidence
            )
        result[arm] = {
            "seeds and pictures": over_both,
            "pooled seeds": statistics.pooled(list(found[arm].values()), twins, spread, confidence) if spread else none,
            "seeds": over_seeds,
        }
    return result


def summary(
    runs: Runs, analysis: Mapping[str, Any] | None, confidence: float = statistics.CONFIDENCE
) -> list[dict[str, Any]]:
    """Return a row for each arm: cost, scores in points, differences to the first with their intervals, AP by class."""
    found = {metric: scores(runs, analysis, metric) for metric in METRICS}
    estimated = {metric: estimates(runs, analysis, metric, confidence) for metric in METRICS}
    rows = []
    for arm, seeds in runs.items():
        every = _flat(seeds)
        row: dict[str, Any] = {"arm": arm, "seeds": " ".join(map(str, sorted(seeds)))}
        row |= {key: every[0][key] for key in ("parameters", "gflops")}
        row["minutes"] = round(float(np.mean([run["minutes"] for run in every])), 1)
        for metric in METRICS:
            values = list(found[metric][arm].values())
            row[metric] = round(float(np.mean(values)), 2)
            row[f"{metric} std"] = round(float(np.std(values, ddof=1)), 2) if len(values) > 1 else ""
            kinds = estimated[metric].get(arm)
            row[f"{metric} difference"] = round(kinds["seeds"].mean, 2) if kinds else ""
            for short, kind in (("seeds", "seeds"), ("pooled", "pooled seeds"), ("both", "seeds and pictures")):
                half = kinds[kind].half if kinds else None
                row[f"{metric} +- {short}"] = "" if half is None else round(half, 2)
        best = [run["best"][METRIC] for run in every if "best" in run]
        row["best.pt"] = round(100 * float(np.mean(best)), 2) if best else ""
        for c in every[0]["classes"]:
            row[f"AP {c}"] = round(
                100 * float(np.mean([run["classes"].get(c, {}).get("AP50-95", 0) for run in every])), 2
            )
        rows.append(row)
    return rows


def write_summary(out: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write summary.csv and summary.md."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text := io.StringIO(newline=""), keys, restval="")
    writer.writeheader()
    writer.writerows(rows)
    records.write(out / "summary.csv", text.getvalue())
    records.write(out / "summary.md", table(rows))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the summary as a Markdown table for people."""
    lines = [HEADER]
    for row in rows:
        spread, difference = row[f"{METRIC} std"], row[f"{METRIC} difference"]
        cells = [row["arm"], f"{row['parameters']:,}", row["seeds"]]
        cells.append(f"{row[METRIC]:.1f}" + (f" ± {spread:.1f}" if spread != "" else ""))
        cells.append("" if difference == "" else f"{difference:+.1f}")
        for kind in ("seeds", "both"):
            half = row[f"{METRIC} +- {kind}"]
            cells.append("" if half == "" else f"± {half:.1f}")
        cells.append(f"{row['mAP50']:.1f}")
        cells.append("" if row["best.pt"] == "" else f"{row['best.pt']:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def power(runs: Runs, analysis: Mapping[str, Any] | None) -> str:
    """Return what the comparison can see: spread, noise floor, seeds and pictures needed, and warnings."""
    found = scores(runs, analysis, METRIC)
    spread = statistics.pooled_spread([list(v.values()) for v in found.values()])
    least, lines = min(map(len, found.values())), []
    if least < statistics.LEAST_SEEDS:
        lines.append(f"Warning: an interval rests on {least} seeds; below {statistics.LEAST_SEEDS} it is a guess.")
    if analysis is None:
        lines.append("Warning: no detections at hand, so intervals are over seeds alone: they hold for these pictures.")
    elif analysis["groups"] < statistics.LEAST_PICTURES:
        what = "groups of pictures" if analysis["groups"] < analysis["pictures"] else "pictures"
        lines.append(f"Warning: only {analysis['groups']} {what}; below {statistics.LEAST_PICTURES} they decide much.")
    repeated = [d for arm in runs if "#" in arm for d in differences(runs, analysis, arm, METRIC).values()]
    if repeated:
        size = float(np.mean(np.abs(repeated)))
        lines.append(f"Noise floor: {len(repeated)} pairs of identical arms differ by {size:.2f} points in the mean.")
    if spread is None:
        return "\n".join(lines) + "\n"
    sd, df = spread
    if sd == 0:
        lines.append("No two seeds of an arm differ, so what is needed cannot be told.")
        return "\n".join(lines) + "\n"
    errors = [kept["pictures_error"] for kept in analysis["both"][METRIC].values()] if analysis else []
    by_pictures, pictures = (float(np.mean(errors)), analysis["pictures"]) if analysis and errors else (0.0, 0)
    lines.append(f"Spread over seeds, pooled over all arms: {sd:.2f} points ({df} degrees of freedom).")
    if errors:
        text = f"Standard error of a difference that the {pictures} pictures alone give: {by_pictures:.2f}."
        lines.append(text)
    lines += [
        "",
        "| difference | seeds an arm needs at 80 % power | pictures it needs with these seeds |",
        "|---:|---:|---:|",
    ]
    for difference in (0.5, 1.0, 2.0):
        seeds = statistics.seeds_needed(difference, sd, by_pictures)
        count = None
        if errors:
            seeds_error = sd * (2 / least) ** 0.5
            count = statistics.pictures_needed(difference, pictures, by_pictures, seeds_error)
        shown = [f"{difference:.1f}", "no number: more pictures" if seeds is None else str(seeds)]
        shown.append("" if not errors else "no number: more seeds" if count is None else f"{count:,}")
        lines.append(f"| {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"
