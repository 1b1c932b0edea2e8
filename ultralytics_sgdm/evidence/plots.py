"""Plots of a comparison: differences with their intervals, and learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from matplotlib import pyplot as plt


def differences(
    rows: Sequence[Mapping[str, Any]],
    points: Mapping[str, Sequence[float]],
    metric: str,
    confidence: float,
    file: Path | IO[bytes],
) -> None:
    """Draw the difference of each arm to the first: a dot a seed, the interval over seeds, and that over both.

    Args:
        rows: Rows of the summary, the reference first.
        points: Differences of each arm, seed by seed.
        metric: Which metric.
        confidence: That of the intervals.
        file: PNG to write.
    """
    others = rows[1:]
    figure, axes = plt.subplots(figsize=(7, 1.7 + 0.5 * len(others)), layout="constrained")
    for y, row in enumerate(others):
        seeds = points[row["arm"]]
        axes.plot(seeds, [y] * len(seeds), "o", color="tab:gray", alpha=0.6, label="a seed")
        mean = row[f"{metric} difference"]
        for key, over, shift, colour in (
            (f"{metric} +- seeds", "seeds", -0.12, "tab:blue"),
            (f"{metric} +- both", "seeds and pictures", 0.12, "tab:orange"),
        ):
            if row[key] != "":
                label = f"{100 * confidence:.3g} % over {over}"
                axes.errorbar(mean, y + shift, xerr=row[key], color=colour, capsize=4, label=label)
        axes.plot(mean, y, "D", color="black", markersize=4, label="mean")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(others)), [row["arm"] for row in others])
    axes.set_ylim(len(others) - 0.5, -0.5)
    axes.set_xlabel(f"{metric}, difference to {rows[0]['arm']}, points")
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    figure.legend(once.values(), once.keys(), loc="outside lower center", ncols=4, fontsize="small")
    figure.savefig(file, dpi=120)
    plt.close(figure)


def curves(curves: Mapping[str, Sequence[Sequence[float]]], metric: str, file: Path | IO[bytes]) -> None:
    """Draw the learning curves of each arm, a line a run.

    Args:
        curves: Metric of each epoch, from 0 to 1, of each run of each arm.
        metric: Which metric.
        file: PNG to write.
    """
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for i, (arm, runs) in enumerate(curves.items()):
        for j, run in enumerate(runs):
            label = arm if j == 0 else None
            values = [100 * v for v in run]
            axes.plot(range(1, len(run) + 1), values, color=f"C{i % 10}", alpha=0.7, linewidth=1, label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"{metric} (%)")
    axes.legend()
    figure.savefig(file, dpi=120)
    plt.close(figure)
