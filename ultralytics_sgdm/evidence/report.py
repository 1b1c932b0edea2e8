"""What the records of a comparison say: scores, differences with their intervals, a plot, and the plan's verdicts.

`python -m ultralytics_sgdm.evidence.report OUT [PLAN [SCRATCH]]` makes the report of a folder of records anew, also of
0.1.0 and 0.2.0. Without a plan the reference is the first model of the summary that is there. A names.json in the
folder says what to call models whose names have come to mean something else.
"""

from __future__ import annotations

import io
import itertools
import json
import sys
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from ..errors import ConfigError, import_extra, pluralize
from ..files import write_atomic
from . import plan as plans
from . import records, statistics
from .evaluation import Detections, average_precision, load, mean_ap, pool
from .folds import group_of
from .plan import Plan
from .records import METRIC, model_of, run_name
from .statistics import Estimate
from .train import DETECTIONS

Runs = Sequence[Mapping[str, Any]]
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

    runs: Runs  # those of the reference first
    analysis: Mapping[str, Any] | None  # what `analyse` returns
    variants: int  # number of models that are compared with the reference, planned ones included
    names: Mapping[str, str] = field(default_factory=dict)  # what tables and plots call a model, if not by its own name

    def tabulate(self, metric: str) -> Any:
        """Return a table of each model's score by seed: folds pooled where detections were analysed, else the mean."""
        pandas = import_extra("pandas", "compare")
        if self.analysis:
            table = pandas.DataFrame.from_dict(self.analysis["scores"][metric], "index").rename(columns=int)
        else:
            rows = [(model_of(run), run["seed"], 100 * run[metric]) for run in self.runs]
            table = pandas.DataFrame(rows).groupby([0, 1])[2].mean().unstack()
        return table.reindex(dict.fromkeys(map(model_of, self.runs))).sort_index(axis=1)

    @cached_property
    def scores(self) -> Any:
        """The table of mAP50-95."""
        return self.tabulate(METRIC)

    @cached_property
    def differences(self) -> dict[str, list[float]]:
        """Differences of each model to the reference over the seeds that both have, if there is any."""
        table = (self.scores - self.scores.iloc[0]).iloc[1:].dropna(how="all")
        return {model: row.dropna().tolist() for model, row in table.iterrows()}

    def estimate(self, model: str) -> tuple[Estimate, Estimate]:
        """Return the estimate of a difference over seeds, and that over seeds and images."""
        over_seeds = statistics.paired(values := self.differences[model], self.variants)
        if self.analysis is None:
            return over_seeds, Estimate(over_seeds.mean)
        errors, images = self.analysis["both"][METRIC][model], self.analysis["groups"]
        both = statistics.two_way(values, errors["error"], errors["pictures_error"], images, self.variants)
        return over_seeds, both


def write(out: Path, plan: Plan | None, scratch: Path, reference: str = "") -> str:
    """Write summary.csv, .md, differences.png, and analysis.json if `scratch` has detections; return the .md."""
    planned = [variant.name for variant in plan.models] if plan and plan.question else []
    found = [run for run in records.read_runs(out).values() if not planned or model_of(run) in planned]
    runs = select_runs(found, plan.models[0].name if plan else reference)
    analysis, file = analyse(runs, scratch, plan.groups if plan else None), out / "analysis.json"
    if analysis:
        records.write(analysis, file)
    elif file.exists():
        kept = records.read(file, ("runs", "scores", "both", "groups", "pictures"))
        analysis = kept if kept["runs"] == fingerprint(runs) else None
    file = out / "names.json"
    names = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    comparison = Comparison(runs, analysis, max(len(set(map(model_of, runs))), len(planned)) - 1, names)
    records.write_table(table := summarize(comparison), out / "summary.csv")
    lines = [f"| {' | '.join(COLUMNS)} |", f"|---|{'---:|' * (len(COLUMNS) - 1)}"]
    for row in table.itertuples(index=False):
        cells = ("" if cell != cell else f"{cell:{form}}" for cell, form in zip(row, COLUMNS.values(), strict=True))
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *describe_power(comparison)]
    if plan and planned:
        lines = [plan.question.strip(), "", *lines, "", *_describe_verdicts(comparison, plan)]
    write_atomic(out / "summary.md", text := "\n".join(lines) + "\n")
    if comparison.variants:
        write_atomic(out / "differences.png", plot(comparison))
    return text


def select_runs(found: Runs, reference: str) -> Runs:
    """Return the records of seeds whose folds are all there, those of the reference first."""
    folds = Counter((model_of(run), run["seed"]) for run in found)
    whole = [run for run in found if folds[model_of(run), run["seed"]] == max(folds.values())]
    if reference not in map(model_of, whole):
        raise ConfigError(f"there is no finished run of the reference, {reference!r}")
    return sorted(whole, key=lambda run: model_of(run) != reference)


def fingerprint(runs: Runs) -> str:
    """Return a checksum of the records, which says whether an analysis is of them."""
    return records.digest(sorted(map(records.digest, runs)))


def analyse(runs: Runs, scratch: Path, groups: str | None) -> dict[str, Any] | None:
    """Return what the detections on each image tell beyond the records, None if some are missing or broken.

    Scores with all folds pooled, and standard errors of differences over seeds and images, and over images alone.
    """
    parts: dict[tuple[str, int], list[Detections]] = {}
    for run in runs:
        name = run_name(model := model_of(run), seed := run["seed"], run.get("fold"))
        folder = scratch / f"{name}-{records.digest(run.get('binding'))[:10]}"
        try:
            parts.setdefault((model, seed), []).append(load(folder / DETECTIONS))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):  # missing or not whole
            return None
    pooled = {key: pool(detections) for key, detections in parts.items()}
    images = next(iter(pooled.values())).pictures
    if any(not np.array_equal(d.pictures, images) for d in pooled.values()):
        raise ConfigError("the runs were evaluated on different images; choose another out=")
    member = [group_of(name, groups) for name in images]
    counts = statistics.resample(member, RESAMPLES, np.random.default_rng(0))
    scores: dict[str, dict[str, dict[str, float]]] = {METRIC: {}, "mAP50": {}}
    drawn: dict[str, dict[int, np.ndarray]] = {}
    for (model, seed), detections in pooled.items():
        ap: np.ndarray = 100 * average_precision(detections)
        for metric, values in ((METRIC, ap), ("mAP50", ap[..., :1])):
            scores[metric].setdefault(model, {})[str(seed)] = float(mean_ap(values)[0])
        drawn.setdefault(model, {})[seed] = 100 * mean_ap(average_precision(detections, counts))
    reference, *others = drawn
    both = {}
    for model in others:
        if common := sorted(drawn[model].keys() & drawn[reference].keys()):
            resampled = np.stack([drawn[model][seed] - drawn[reference][seed] for seed in common], 1)
            both[model] = dict(zip(("error", "pictures_error"), statistics.two_way_errors(resampled), strict=True))
    sizes = {"pictures": len(member), "groups": len(set(member)), "resamples": RESAMPLES}
    return {"runs": fingerprint(runs), **sizes, "scores": scores, "both": {METRIC: both}}


def summarize(comparison: Comparison) -> Any:
    """Return a table with a row for each model: cost, scores, and the difference to the first with its intervals."""
    parameters = {model_of(run): run["parameters"] for run in comparison.runs}
    table = comparison.scores
    summary = import_extra("pandas", "compare").DataFrame(index=table.index, columns=list(COLUMNS))
    summary["model"] = [comparison.names.get(model, model) for model in table.index]
    summary["parameters"] = [parameters[model] for model in table.index]
    summary["seeds"] = [" ".join(map(str, row.dropna().index)) for _, row in table.iterrows()]
    summary[METRIC], summary["spread"] = table.mean(axis=1), table.std(axis=1)
    summary["mAP50"] = comparison.tabulate("mAP50").mean(axis=1)
    for model in comparison.differences:
        over_seeds, both = comparison.estimate(model)
        p = over_seeds.p if both.p is None else both.p
        summary.loc[model, list(COLUMNS)[5:9]] = over_seeds.mean, over_seeds.half, both.half, p
    return summary.astype(dict.fromkeys(list(COLUMNS)[3:], float)).round(3)


def describe_power(comparison: Comparison) -> list[str]:
    """Return lines on what the comparison can show: warnings, noise floor, spread, and seeds needed."""
    analysis, variants, found = comparison.analysis, comparison.variants, list(comparison.differences.values())
    lines = [
        f"Simultaneous 95 % intervals of {pluralize(variants, 'difference')}, and p adjusted likewise (Bonferroni)."
    ]
    least = min(map(len, found), default=0)
    if least < statistics.FEW_SEEDS:
        lines.append(
            f"Warning: an interval rests on {pluralize(least, 'seed')}; below {statistics.FEW_SEEDS} it is a guess."
        )
    if analysis is None:
        lines.append("Warning: no detections at hand, so intervals are over seeds alone: they hold for these images.")
    elif analysis["groups"] < statistics.FEW_IMAGES:
        what = "groups of images" if analysis["groups"] < analysis["pictures"] else "images"
        lines.append(f"Warning: only {analysis['groups']} {what}; below {statistics.FEW_IMAGES} they decide much.")
    reference = comparison.scores.iloc[0].dropna()
    if pairs := [abs(a - b) for a, b in itertools.combinations(reference, 2)]:
        apart = f"{np.mean(pairs):.2f} mAP points apart on average"
        lines.append(f"Noise floor: two runs of {reference.name} that differ in the seed alone are {apart}.")
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
    lines = [rule, ""]
    for name in [variant.name for variant in plan.models[1:]]:
        values = comparison.differences.get(name, [])
        estimate = comparison.estimate(name)[1] if values else Estimate(0)
        verdict = statistics.decide(values, estimate, plan.better, plan.equal, len(plan.seeds))
        lines.append(f"- {comparison.names.get(name, name)}: {verdict}")
    return lines


def plot(comparison: Comparison) -> bytes:
    """Return a PNG of the difference of each model to the first: a dot a seed, the mean and its widest interval."""
    differences = comparison.differences
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
    reference = model_of(comparison.runs[0])
    axes.set_xlabel(f"{METRIC}, mAP points above {reference}\nseeds, mean, and 95 % interval over {over}")
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
