"""What the records of a comparison say: scores, differences with their intervals, a plot, and the plan's verdicts.

`python -m ultralytics_sgdm.evidence.report OUT [PLAN [SCRATCH]]` makes the report of a folder of records anew, also of
0.1.0 and 0.2.0. Without a plan the reference is the first model of the summary that is there. A names.json in the
folder says what to call models whose names have come to mean something else.
"""

from __future__ import annotations

import io
import itertools
import sys
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from ..errors import ConfigError, import_extra, pluralize
from ..files import write_atomic
from . import plan as plans
from . import records, statistics
from .evaluation import Detections, average_precision, pool
from .folds import group_of
from .plan import Plan
from .records import METRIC, model_of
from .train import DETECTIONS

Runs = Sequence[Mapping[str, Any]]
Analysis = Mapping[str, Any] | None  # what `analyse` returns
Differences = Mapping[str, Sequence[float]]  # of each model to the reference, seed by seed, in mAP points
RESAMPLES = 1000
COLUMNS = {  # of a summary, beside the model, with the format of its table
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


def write(out: Path, plan: Plan | None, scratch: Path, reference: str = "") -> str:
    """Write summary.csv, .md, differences.png, and analysis.json if `scratch` has detections; return the .md."""
    planned = [variant.name for variant in plan.models] if plan and plan.question else []
    found = [run for run in records.read_runs(out).values() if not planned or model_of(run) in planned]
    runs = select_runs(found, plan.models[0].name if plan else reference)
    if analysis := analyse(runs, scratch, plan.groups if plan else None):
        records.write(analysis, out / "analysis.json")
    else:
        kept = records.read(out / "analysis.json")
        analysis = kept if kept.get("runs") == fingerprint(runs) else None
    variants = len(planned or set(map(model_of, runs))) - 1
    table, scores, differences = summarize(runs, analysis, variants)
    names = records.read(out / "names.json")
    table.insert(0, "model", [names.get(model, model) for model in table.index])
    rounded = table.round(3)
    write_atomic(out / "summary.csv", rounded.to_csv(index=False, lineterminator="\n"))
    lines = [f"| model | {' | '.join(COLUMNS)} |", f"|---|{'---:|' * len(COLUMNS)}"]
    for model, *row in rounded.itertuples(index=False):
        cells = ("" if cell != cell else f"{cell:{form}}" for cell, form in zip(row, COLUMNS.values(), strict=True))
        lines.append(f"| {model} | {' | '.join(cells)} |")
    lines += ["", *describe_power(scores, differences, analysis, variants)]
    if plan and planned:
        rule = (
            f"Verdicts by intervals over seeds and images (superior: above zero, and a mean of {plan.better:g} mAP "
            f"points or more; inferior: the same below; equivalent: within ±{plan.equal:g} mAP points):"
        )
        lines = [plan.question.strip(), "", *lines, "", rule, ""]
        for model in planned[1:]:
            half = table["± seeds and images"].get(model, np.nan)
            verdict = statistics.decide(differences.get(model, []), half, plan.better, plan.equal, len(plan.seeds))
            lines.append(f"- {names.get(model, model)}: {verdict}")
    write_atomic(out / "summary.md", text := "\n".join(lines) + "\n")
    if variants:
        write_atomic(out / "differences.png", plot(table, differences, "seeds and images" if analysis else "seeds"))
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
        name = records.run_name(model_of(run), run["seed"], run.get("fold"))
        folder = scratch / f"{name}-{records.digest(run.get('binding'))[:10]}"
        try:
            parts.setdefault((model_of(run), run["seed"]), []).append(Detections(**np.load(folder / DETECTIONS)))
        except (OSError, ValueError, TypeError, zipfile.BadZipFile):  # missing or not whole
            return None
    pooled = {key: pool(detections) for key, detections in parts.items()}
    images = next(iter(pooled.values())).pictures
    if any(not np.array_equal(d.pictures, images) for d in pooled.values()):
        raise ConfigError("the runs were evaluated on different images; choose another out=")
    member = [group_of(name, groups) for name in images]
    counts = statistics.resample(member, RESAMPLES, np.random.default_rng(0))
    scores: dict[str, dict[str, dict[str, float]]] = {METRIC: {}, "mAP50": {}}
    drawn = {}
    for (model, seed), detections in pooled.items():
        ap: np.ndarray = average_precision(detections, np.vstack([np.ones_like(images, int), counts]))
        for metric, values in ((METRIC, ap), ("mAP50", ap[..., :1])):
            scores[metric].setdefault(model, {})[str(seed)] = float(np.nanmean(100 * values[0]))
        drawn[model, seed] = 100 * np.nanmean(ap[1:], (1, 2))
    reference, *others = scores[METRIC]
    both = {}
    for model in others:
        if common := sorted(seed for of, seed in drawn if of == model and (reference, seed) in drawn):
            resampled = np.stack([drawn[model, seed] - drawn[reference, seed] for seed in common], 1)
            both[model] = statistics.two_way_errors(resampled)
    sizes = {"pictures": len(member), "groups": len(set(member)), "resamples": RESAMPLES}
    return {"runs": fingerprint(runs), **sizes, "scores": scores, "both": {METRIC: both}}


def summarize(runs: Runs, analysis: Analysis, variants: int) -> tuple[Any, Any, Differences]:
    """Return a table with a row for each model, the reference's scores by seed, and differences to them.

    Scores are of all folds pooled where detections were analysed, else their mean.
    """
    pandas = import_extra("pandas", "compare")
    rows = pandas.DataFrame([{**{key: run[key] for key in records.REQUIRED}, "model": model_of(run)} for run in runs])
    rows = rows.groupby(["model", "seed"], sort=False, as_index=False).mean()
    for metric in (METRIC, "mAP50"):
        rows[metric] *= 100
        if analysis:
            of = analysis["scores"][metric]
            rows[metric] = [of[model][str(seed)] for model, seed in zip(rows["model"], rows["seed"], strict=True)]
    models = rows.sort_values("seed").groupby("model")
    table = models[[METRIC, "mAP50"]].mean().reindex(index=rows["model"].unique(), columns=COLUMNS)
    table["parameters"] = models["parameters"].last().astype(int)
    table["seeds"] = models["seed"].agg(lambda seeds: " ".join(map(str, seeds)))
    table["spread"] = models[METRIC].std()
    scores = rows.pivot(index="model", columns="seed", values=METRIC).reindex(table.index)
    apart = (scores - scores.iloc[0]).iloc[1:].dropna(how="all")
    differences = {model: row.dropna().tolist() for model, row in apart.iterrows()}
    for model, values in differences.items():
        table.loc[model, ["difference", "± seeds", "p"]] = list(statistics.paired(values, variants))
        if analysis:
            estimate = statistics.two_way(values, analysis["both"][METRIC][model], analysis["groups"], variants)
            table.loc[model, ["± seeds and images", "p"]] = list(estimate[1:])
    return table, scores.iloc[0].dropna(), differences


def describe_power(reference: Any, differences: Differences, analysis: Analysis, variants: int) -> list[str]:
    """Return lines on what the intervals can show: warnings, noise floor of the reference, spread, and seeds needed."""
    few, least = statistics.FEW_SEEDS, min(map(len, differences.values()), default=0)
    number = pluralize(variants, "difference")
    lines = [f"Simultaneous 95 % intervals of {number}, and p adjusted likewise (Bonferroni)."]
    if least < few:
        lines.append(f"Warning: an interval rests on {pluralize(least, 'seed')}; below {few} it is a guess.")
    if analysis is None:
        lines.append("Warning: no detections at hand, so intervals are over seeds alone: they hold for these images.")
    elif analysis["groups"] < statistics.FEW_IMAGES:
        lines.append(f"Warning: only {analysis['groups']} images or groups of them; few decide much.")
    if pairs := [abs(a - b) for a, b in itertools.combinations(reference, 2)]:
        apart = f"{np.mean(pairs):.2f} mAP points apart on average"
        lines.append(f"Noise floor: two runs of {reference.name} that differ in the seed alone are {apart}.")
    spread = statistics.pooled_spread(list(differences.values()))
    if not spread:
        return [*lines, "No difference varies over seeds, so how many seeds are needed is unknown."]
    line, over_images = f"The spread of a difference over seeds is {spread:.2f} mAP points", 0.0
    if analysis:
        over_images = float(np.mean([errors["pictures_error"] for errors in analysis["both"][METRIC].values()]))
        line += f", its standard error over the images {over_images:.2f}"
    lines += [f"{line}.", "", "| difference | seeds that show it with a power of 80 % |", "|---:|---:|"]
    for difference in (0.5, 1.0, 2.0):
        seeds = statistics.seeds_needed(difference, spread, over_images, variants)
        lines.append(f"| {difference:.1f} | {seeds or f'more than {statistics.MAX_SEEDS}, or more images'} |")
    return lines


def plot(table: Any, differences: Differences, over: str) -> bytes:
    """Return a PNG of the difference of each model to the first: a dot a seed, the mean, and the interval `over`.

    An interval that rests on fewer seeds than a verdict needs is not drawn: it would hide the rest.
    """
    figure, axes = plt.subplots(figsize=(7, 1.2 + 0.4 * len(differences)), layout="constrained")
    is_drawn = False
    for y, (model, values) in enumerate(differences.items()):
        axes.plot(values, [y] * len(values), "o", color="tab:gray", alpha=0.6)
        half = table.loc[model, f"± {over}"] if len(values) >= statistics.MIN_SEEDS else np.nan
        is_drawn |= not np.isnan(half)
        axes.errorbar(np.mean(values), y, xerr=half, fmt="D", color="tab:blue", markersize=4, capsize=4)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(differences)), table["model"][list(differences)])
    axes.invert_yaxis()
    shown = f"seeds, mean, and 95 % interval over {over}" if is_drawn else "seeds and mean"
    axes.set_xlabel(f"{METRIC}, mAP points above {table.index[0]}\n{shown}")
    figure.savefig(file := io.BytesIO(), dpi=120)
    plt.close(figure)
    return file.getvalue()


def main(out: str, plan: str = "", scratch: str = "") -> None:
    """Make the report of a folder of records anew, and print it."""
    if plan:
        print(write(Path(out), plans.read(Path(plan), old=True), Path(scratch)))
    else:
        first = Path(out, "summary.csv").read_text(encoding="utf-8").splitlines()[1]
        print(write(Path(out), None, Path(scratch), first.partition(",")[0]))


if __name__ == "__main__":
    main(*sys.argv[1:])
