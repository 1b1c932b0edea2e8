"""What the records of a comparison say: scores, differences with their intervals, a plot, and the plan's verdicts.

`python -m ultralytics_sgdm.evidence.report OUT [PLAN [SCRATCH]]` makes the report of a folder of records anew, also of
records and plans of 0.1.0 and 0.2.0. Without a plan the reference is the first model of the summary that is there.
A names.json in the folder says what to call models whose names have come to mean something else.
"""

from __future__ import annotations

import io
import itertools
import json
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from ..errors import ConfigError, import_extra
from ..files import write_atomic
from . import plan as plans
from . import records, statistics
from .evaluation import Detections, average_precision, load, mean_ap, pool
from .folds import group_of
from .plan import Plan
from .statistics import Estimate
from .train import DETECTIONS, METRIC, run_name

Runs = dict[str, dict[int, dict[int | None, dict[str, Any]]]]  # model, seed, fold
RESAMPLES = 1000
COLUMNS = {  # of a summary, with the format of its table
    "model": "",
    "parameters": ",",
    "seeds": "",
    METRIC: ".1f",
    "spread": ".1f",
    "difference": "+.1f",
    "± seeds": ".1f",
    "± seeds and images": ".1f",
    "p": ".2g",
    "mAP50": ".1f",
}


@dataclass(frozen=True)
class Comparison:
    """The records of a comparison, and what is computed from them, in mAP points."""

    runs: Runs  # the reference first
    analysis: Mapping[str, Any] | None  # what `analyse` returns
    variants: int  # number of models that are compared with the reference, planned ones included
    names: Mapping[str, str] = field(default_factory=dict)  # what tables and plots call a model, if not by its own name

    def score(self, metric: str = METRIC) -> dict[str, dict[int, float]]:
        """Return the score of each run: folds pooled where detections were analysed, else their mean."""
        if self.analysis:
            scores = self.analysis["scores"][metric]
            return {model: {int(s): v for s, v in seeds.items()} for model, seeds in scores.items()}
        return {
            model: {seed: 100 * float(np.mean([run[metric] for run in of.values()])) for seed, of in seeds.items()}
            for model, seeds in self.runs.items()
        }

    def subtract(self) -> dict[str, list[float]]:
        """Return the differences of each model to the first over the seeds that both have, if there is any."""
        (_, reference), *others = self.score().items()
        found = {model: [v[s] - reference[s] for s in sorted(v.keys() & reference.keys())] for model, v in others}
        return {model: values for model, values in found.items() if values}

    def estimate(self, model: str) -> tuple[Estimate, Estimate]:
        """Return the estimate of a difference over seeds, and that over seeds and images."""
        over_seeds = statistics.paired(values := self.subtract()[model], self.variants)
        if self.analysis is None:
            return over_seeds, Estimate(over_seeds.mean)
        errors, images = self.analysis["both"][METRIC][model], self.analysis["groups"]
        both = statistics.two_way(values, errors["error"], errors["pictures_error"], images, self.variants)
        return over_seeds, both


def write(out: Path, plan: Plan | None, scratch: Path, reference: str = "") -> str:
    """Write summary.csv, summary.md, differences.png, and analysis.json if `scratch` has detections.

    Returns the text of summary.md. Where there is no plan, `reference` names the first model.
    """
    planned = [variant.name for variant in plan.models] if plan and plan.question else []
    found = {name: r for name, r in read_records(out).items() if not planned or model_of(r) in planned}
    runs = group_runs(found, plan.models[0].name if plan else reference)
    analysis, file = analyse(runs, scratch, plan.groups if plan else None), out / "analysis.json"
    if analysis:
        records.write(analysis, file)
    elif file.exists():
        kept = records.read(file, ("runs", "scores", "both", "groups", "pictures"))
        analysis = kept if kept["runs"] == fingerprint(runs) else None
    file = out / "names.json"
    names = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    comparison = Comparison(runs, analysis, max(len(runs), len(planned)) - 1, names)
    rows = summarize(comparison)
    table = import_extra("pandas", "compare").DataFrame(rows)
    write_atomic(out / "summary.csv", table.to_csv(index=False, lineterminator="\n"))
    lines = [f"| {' | '.join(COLUMNS)} |", f"|---|{'---:|' * (len(COLUMNS) - 1)}"]
    for row in rows:
        cells = ("" if row[key] is None else f"{row[key]:{form}}" for key, form in COLUMNS.items())
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *describe_power(comparison)]
    if plan and planned:
        lines = [plan.question.strip(), "", *lines, "", *_describe_verdicts(comparison, plan)]
    write_atomic(out / "summary.md", text := "\n".join(lines) + "\n")
    if comparison.variants:
        write_atomic(out / "differences.png", plot(comparison))
    return text


def model_of(record: Mapping[str, Any]) -> str:
    """Return what the model of a record is called; the key `arm` is that of the first releases."""
    return record.get("arm", Path(record["model"]).stem)


def read_records(out: Path) -> dict[str, dict[str, Any]]:
    """Return the records in a folder by their names.

    Raises:
        ConfigError: If a file is not a record, or has the name of another run.
    """
    found = {file.stem: records.read(file) for file in sorted(out.glob("*-*.json"))}
    for name, record in found.items():
        if name != (run := run_name(model_of(record), record["seed"], record.get("fold"))):
            raise ConfigError(f"{out / name}.json is the record of {run}; delete it to run {name}")
    return found


def group_runs(found: Mapping[str, dict[str, Any]], reference: str) -> Runs:
    """Return records by model, seed and fold, the reference first; a seed counts if all of its folds are there."""
    runs: Runs = {reference: {}}
    for record in found.values():
        runs.setdefault(model_of(record), {}).setdefault(record["seed"], {})[record.get("fold")] = record
    most = max(len(folds) for seeds in runs.values() for folds in seeds.values())
    runs = {model: {s: f for s, f in seeds.items() if len(f) == most} for model, seeds in runs.items()}
    if not runs[reference]:
        raise ConfigError(f"there is no finished run of the reference, {reference!r}")
    return {model: seeds for model, seeds in runs.items() if seeds}


def fingerprint(runs: Runs) -> str:
    """Return a checksum of the records, which says whether an analysis is of them."""
    each = (run for seeds in runs.values() for folds in seeds.values() for run in folds.values())
    return records.digest(sorted(map(records.digest, each)))


def analyse(runs: Runs, scratch: Path, groups: str | None) -> dict[str, Any] | None:
    """Return what the detections on each image tell beyond the records, None if some are missing or broken.

    That is the score of each run with all folds pooled, and for each model but the first the standard error of the
    mean difference over seeds and images, and over the images alone, whole groups resampled, in mAP points.
    """
    pooled: dict[str, dict[int, Detections]] = {}
    for model, seeds in runs.items():
        for seed, of in seeds.items():
            names = [f"{run_name(model, seed, f)}-{records.digest(run.get('binding'))[:10]}" for f, run in of.items()]
            try:
                pooled.setdefault(model, {})[seed] = pool([load(scratch / name / DETECTIONS) for name in names])
            except (OSError, ValueError, KeyError, zipfile.BadZipFile):  # missing or not whole
                return None
    reference, *others = pooled
    images = next(iter(pooled[reference].values())).pictures
    if any(not np.array_equal(d.pictures, images) for seeds in pooled.values() for d in seeds.values()):
        raise ConfigError("the runs were evaluated on different images; choose another out=")
    member = [group_of(name, groups) for name in images]
    counts = statistics.resample(member, RESAMPLES, np.random.default_rng(0))
    scores: dict[str, Any] = {METRIC: {}, "mAP50": {}}
    drawn: dict[str, dict[int, np.ndarray]] = {}
    for model, detections in pooled.items():
        ap: dict[int, np.ndarray] = {seed: 100 * average_precision(d) for seed, d in detections.items()}
        scores[METRIC][model] = {str(seed): float(mean_ap(values)[0]) for seed, values in ap.items()}
        scores["mAP50"][model] = {str(seed): float(mean_ap(values[..., :1])[0]) for seed, values in ap.items()}
        drawn[model] = {seed: 100 * mean_ap(average_precision(d, counts)) for seed, d in detections.items()}
    both = {}
    for model in others:
        if common := sorted(drawn[model].keys() & drawn[reference].keys()):
            resampled = np.stack([drawn[model][seed] - drawn[reference][seed] for seed in common], 1)
            error, images_error = statistics.two_way_errors(resampled)
            both[model] = {"error": error, "pictures_error": images_error}
    sizes = {"pictures": len(member), "groups": len(set(member)), "resamples": RESAMPLES}
    return {"runs": fingerprint(runs), **sizes, "scores": scores, "both": {METRIC: both}}


def summarize(comparison: Comparison) -> list[dict[str, Any]]:
    """Return a row for each model: cost, scores, and the difference to the first with its intervals."""
    rows, differences = [], comparison.subtract()
    for model, seeds in comparison.runs.items():
        run = next(iter(next(iter(seeds.values())).values()))
        scores, at50 = (list(comparison.score(metric)[model].values()) for metric in (METRIC, "mAP50"))
        over_seeds = both = Estimate(0)
        if model in differences:
            over_seeds, both = comparison.estimate(model)
        figures = {
            METRIC: np.mean(scores),
            "spread": np.std(scores, ddof=1) if len(scores) > 1 else None,
            "difference": over_seeds.mean if model in differences else None,
            "± seeds": over_seeds.half,
            "± seeds and images": both.half,
            "p": over_seeds.p if both.p is None else both.p,
            "mAP50": np.mean(at50),
        }
        row = {
            "model": comparison.names.get(model, model),
            "parameters": run["parameters"],
            "seeds": " ".join(map(str, sorted(seeds))),
        }
        rows.append(row | {key: None if v is None else round(float(v), 3) for key, v in figures.items()})
    return rows


def describe_power(comparison: Comparison) -> list[str]:
    """Return lines on what the comparison can show: warnings, noise floor, spread, and seeds needed."""
    analysis, variants, found = comparison.analysis, comparison.variants, list(comparison.subtract().values())
    lines = [f"Simultaneous 95 % intervals of {variants} differences, and p adjusted likewise (Bonferroni)."]
    least = min(map(len, found), default=0)
    if least < statistics.FEW_SEEDS:
        lines.append(f"Warning: an interval rests on {least} seeds; below {statistics.FEW_SEEDS} it is a guess.")
    if analysis is None:
        lines.append("Warning: no detections at hand, so intervals are over seeds alone: they hold for these images.")
    elif analysis["groups"] < statistics.FEW_IMAGES:
        what = "groups of images" if analysis["groups"] < analysis["pictures"] else "images"
        lines.append(f"Warning: only {analysis['groups']} {what}; below {statistics.FEW_IMAGES} they decide much.")
    reference, scores = next(iter(comparison.score().items()))
    if pairs := [abs(a - b) for a, b in itertools.combinations(scores.values(), 2)]:
        apart = f"{np.mean(pairs):.2f} mAP points apart on average"
        lines.append(f"Noise floor: two runs of {reference} that differ in the seed alone are {apart}.")
    spread = statistics.pooled_spread(found)
    if not spread:
        return [*lines, "No difference varies over seeds, so how many seeds are needed is unknown."]
    errors = [error["pictures_error"] for error in analysis["both"][METRIC].values()] if analysis else [0.0]
    over_images = float(np.mean(errors))
    besides = f", its standard error over the images {over_images:.2f}" if analysis else ""
    lines.append(f"The spread of a difference over seeds is {spread:.2f} mAP points{besides}.")
    lines += ["", "| difference | seeds that show it with a power of 80 % |", "|---:|---:|"]
    for difference in (0.5, 1.0, 2.0):
        seeds = statistics.seeds_needed(difference, spread, over_images, variants)
        lines.append(f"| {difference:.1f} | {seeds or f'more than {statistics.MAX_SEEDS}, or more images'} |")
    return lines


def _describe_verdicts(comparison: Comparison, plan: Plan) -> list[str]:
    """Return lines with the verdict on each model of a plan by the plan's own margins."""
    rule = (
        f"Verdicts by intervals over seeds and images (superior: above zero, and a mean of {plan.better:g} mAP points "
        f"or more; inferior: the same below; equivalent: within ±{plan.equal:g} mAP points):"
    )
    lines, differences, planned = [rule, ""], comparison.subtract(), len(plan.seeds)
    for name in [variant.name for variant in plan.models[1:]]:
        values = differences.get(name, [])
        estimate = comparison.estimate(name)[1] if values else Estimate(0)
        verdict = statistics.decide(values, estimate, plan.better, plan.equal, planned)
        lines.append(f"- {comparison.names.get(name, name)}: {verdict}")
    return lines


def plot(comparison: Comparison) -> bytes:
    """Return a PNG of the difference of each model to the first: a dot a seed, the mean and its widest interval."""
    differences = comparison.subtract()
    figure, axes = plt.subplots(figsize=(7, 1.2 + 0.4 * len(differences)), layout="constrained")
    for y, (model, values) in enumerate(differences.items()):
        over_seeds, both = comparison.estimate(model)
        axes.plot(values, [y] * len(values), "o", color="tab:gray", alpha=0.6)
        half = over_seeds.half if both.half is None else both.half
        axes.errorbar(over_seeds.mean, y, xerr=half, fmt="D", color="tab:blue", markersize=4, capsize=4)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(differences)), [comparison.names.get(model, model) for model in differences])
    axes.invert_yaxis()
    over = "seeds and images" if comparison.analysis else "seeds"
    reference = next(iter(comparison.runs))
    axes.set_xlabel(f"{METRIC}, mAP points above {reference}: seeds, mean, 95 % interval over {over}")
    figure.savefig(file := io.BytesIO(), dpi=120)
    plt.close(figure)
    return file.getvalue()


def main(out: str, plan: str = "", scratch: str = "") -> None:
    """Make the report of a folder of records anew, and print it."""
    reference = ""
    if not plan:
        reference = Path(out, "summary.csv").read_text(encoding="utf-8").splitlines()[1].partition(",")[0]
    print(write(Path(out), plans.read(Path(plan), old=True) if plan else None, Path(scratch), reference))


if __name__ == "__main__":
    main(*sys.argv[1:])
