"""Compare models in pairs: the same recipe, data and seeds for each, through the standard trainer.

    python scripts/compare.py yolov8n.yaml yolov8n-sgdm.yaml data=bccd/data.yaml epochs=60 imgsz=192 --out results/bccd

Differences are to the first model named, seed by seed. OUT gets a JSON file per finished run, and, made from all of
them, summary.csv with means, spreads and paired differences, the same as a table for people in summary.md,
differences.png and curves.png. Run again, it keeps what is finished and goes on with what was interrupted; models and
seeds may be added. Arguments of the form key=value are the recipe: they go to the trainer, for all models alike.
Layers of your own that the models name are registered in a Python file, which --layers imports.

With --ray the runs are tasks of a Ray cluster, one per GPU, or one per CPU where there is no GPU or device=cpu is said.
Results are the same, and are written by this process. Every node needs the same environment (this package, PyTorch),
and what the recipe and --layers name (data, pretrained weights) under the same paths, on a shared file system or as
copies; model YAMLs travel with the tasks. A run whose process or node dies is taken up again, up to three times: from
its last epoch where its files are at hand (on the same node, or if SCRATCH is shared between the nodes), else from the
start. Going on is Ultralytics' resume: the figures are then not those of an undisturbed run to the last digit.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml
from matplotlib import pyplot as plt
from scipy import stats
from ultralytics import YOLO, cfg, nn
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.utils.torch_utils import get_flops

from ultralytics_sgdm.configs import ConfigError

CONFIDENCE = 0.95
METRIC = "mAP50-95"


def import_layers(files: Sequence[str]) -> None:
    """Import Python files, by absolute paths, under the names by which checkpoints find the classes in them."""
    for file in map(Path, files):
        sys.path.insert(0, str(file.parent))
        module = importlib.import_module(file.stem)
        if Path(getattr(module, "__file__", None) or "").resolve() != file:
            sys.exit(f"error: --layers {file}: Python finds another module named {file.stem}; rename the file")


def run(
    model: str, seed: int, recipe: dict[str, Any], bf16: bool, folder: Path, layers: Sequence[str]
) -> dict[str, Any]:
    """Train a model with a seed, or go on where an earlier process was stopped; return the figures of its best.pt.

    Args:
        model: Model YAML.
        seed: Seed of the run.
        recipe: Arguments of the trainer.
        bf16: Whether to train in bfloat16 with channels last, about twice as fast on many CPUs.
        folder: Folder of the run's own files.
        layers: Python files that register layers.
    """
    import_layers(layers)
    start, last = time.monotonic(), folder / "weights/last.pt"
    resume = zipfile.is_zipfile(last)  # not if it is only half written
    yolo = YOLO(last if resume else model)
    # The epochs count from 0, and a finished run's checkpoint is soon stripped to -1.
    if not resume or 0 <= yolo.ckpt["epoch"] < yolo.ckpt["train_args"]["epochs"] - 1:
        if bf16:
            yolo.add_callback("on_train_start", _to_bf16)
        place = {"project": str(folder.parent), "name": folder.name, "exist_ok": True, "plots": False}
        yolo.train(**({"resume": True} if resume else {**recipe, **place, "seed": seed}))
    best = YOLO(folder / "weights/best.pt")
    settings = {k: recipe[k] for k in ("data", "imgsz", "batch", "workers", "device") if k in recipe}
    box = best.val(**settings, plots=False, project=str(folder), name="val", exist_ok=True).box
    with (folder / "results.csv").open() as f:
        curve = [float(row[f"metrics/{METRIC}(B)"]) for row in csv.DictReader(f)]
    untrained = YOLO(model).model
    return {
        "model": model,
        "seed": seed,
        "recipe": recipe,
        "bf16": bf16,
        METRIC: float(box.map),
        "mAP50": float(box.map50),
        "classes": {
            best.names[c]: {"AP50-95": float(all_), "AP50": float(at50)}
            for c, all_, at50 in zip(box.ap_class_index.tolist(), box.ap, box.ap50, strict=True)
        },
        "curve": curve,
        "parameters": sum(p.numel() for p in untrained.parameters()),
        "gflops": round(get_flops(untrained, recipe.get("imgsz", 640)), 3),
        "minutes": round((time.monotonic() - start) / 60, 1),
    }


def _to_bf16(trainer: BaseTrainer) -> None:
    """Train in bfloat16, forward pass and loss; the weights that are saved and validated stay fp32."""
    model = trainer.model.to(memory_format=torch.channels_last)
    model.forward = torch.autocast(trainer.device.type, torch.bfloat16)(model.forward)


def run_in_process(task: dict[str, Any], result: Path) -> str | None:
    """Call `run` in a process of its own and keep its result; return what went wrong, or None."""
    log = Path(task["folder"]).with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as f:
        command = [sys.executable, __file__, "--run", json.dumps(task), str(result)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        status = subprocess.run(command, stdout=f, stderr=f, env=environment).returncode
    print(f"{result.stem}: {'done' if status == 0 else f'failed, see {log}'}", flush=True)
    return None if status == 0 else result.stem


def run_on_node(task: dict[str, Any], spec: dict[str, Any], cwd: Path) -> dict[str, Any]:
    """Call `run` in a worker process of Ray, with the model of `spec` and relative paths as in `cwd`."""
    import ultralytics_sgdm  # noqa: F401, for its layers: Ray ships this function, not the file that it stands in

    folder = Path(task["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".log").open("ab") as f:
        for stream in (1, 2):
            os.dup2(f.fileno(), stream)
    cwd.mkdir(parents=True, exist_ok=True)
    os.chdir(cwd)
    file = folder / Path(spec["yaml_file"]).name
    file.write_text(yaml.safe_dump(spec, sort_keys=False))
    return {**run(**{**task, "model": str(file), "folder": folder}), "model": task["model"]}


def run_over_ray(tasks: Sequence[tuple[dict[str, Any], Path]], address: str | None) -> list[str]:
    """Call `run` in a Ray cluster, one run per GPU or CPU, and keep the results; return the names of what failed.

    Args:
        tasks: Arguments of `run`, and the file of the result.
        address: Cluster, as `ray.init` takes it; None for that of the environment, or a new one on this machine.
    """
    import ray

    try:
        ray.init(address, include_dashboard=False, log_to_driver=False)
    except ConnectionError as e:
        sys.exit(f"error: {e}")
    on_gpu = ray.cluster_resources().get("GPU", 0) > 0 and tasks[0][0]["recipe"].get("device") != "cpu"
    print(f"Ray: {len(tasks)} runs, one per {'GPU' if on_gpu else 'CPU'}", flush=True)
    remote = ray.remote(
        num_cpus=1,
        num_gpus=int(on_gpu),
        max_calls=1,  # a process per run, as without Ray
        max_retries=3,  # of those whose process dies; errors of Python are final
        runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
    )(run_on_node)
    specs = {model: nn.yaml_model_load(model) for model in {task["model"] for task, _ in tasks}}
    failed = []
    try:
        pending = {remote.remote(task, specs[task["model"]], Path.cwd()): (task, result) for task, result in tasks}
        while pending:
            (reference,), _ = ray.wait(list(pending))
            task, result = pending.pop(reference)
            try:
                keep(ray.get(reference), result)
                print(f"{result.stem}: done", flush=True)
            except ray.exceptions.RayError as e:
                log = Path(task["folder"]).with_suffix(".log")
                log.parent.mkdir(parents=True, exist_ok=True)
                with log.open("a") as f:
                    f.write(f"{e}\n")
                print(f"{result.stem}: failed, see {log}", flush=True)
                failed.append(result.stem)
    finally:
        ray.shutdown()
    return failed


def keep(result: dict[str, Any], file: Path) -> None:
    """Write a result so that the file is whole or not there."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1) + "\n")
    part.replace(file)


def compare(
    models: Sequence[str],
    seeds: Sequence[int],
    recipe: dict[str, Any],
    out: Path,
    jobs: int,
    bf16: bool,
    scratch: Path,
    layers: Sequence[str],
    ray: str | None = None,
) -> list[str]:
    """Do all runs that have no result yet, `jobs` at a time or over Ray; return the names of those that failed."""
    out.mkdir(parents=True, exist_ok=True)
    tasks = []
    for seed in seeds:
        for model in models:
            result = out / f"{Path(model).stem}-{seed}.json"
            task = {"model": model, "seed": seed, "recipe": recipe, "bf16": bf16}
            if result.exists():
                kept = json.loads(result.read_text())
                if any(kept[key] != value for key, value in task.items()):
                    sys.exit(f"error: {result} was made with another recipe: {kept['recipe']}; choose another --out")
            else:
                folder = str((scratch / out.name / result.stem).resolve())
                tasks.append(({**task, "folder": folder, "layers": layers}, result))
    if tasks and ray is not None:
        return run_over_ray(tasks, ray or None)
    with ThreadPoolExecutor(jobs) as pool:
        return [name for name in pool.map(lambda t: run_in_process(*t), tasks) if name]


def paired_difference(ours: dict[int, float], reference: dict[int, float]) -> tuple[float, float]:
    """Return the mean of the differences over common seeds and the half width of its 95 % interval (Student's t)."""
    differences = [ours[seed] - reference[seed] for seed in sorted(ours.keys() & reference.keys())]
    n = len(differences)
    spread = statistics.stdev(differences) if n > 1 else float("nan")
    return statistics.mean(differences), float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * spread / n**0.5


def summarize(out: Path, reference: str) -> list[dict[str, Any]]:
    """Make summary.csv, summary.md and the two plots of a folder of results; return the rows of the summary."""
    results: dict[str, dict[int, dict]] = {}
    for file in sorted(out.glob("*-*.json")):
        result = json.loads(file.read_text())
        results.setdefault(result["model"], {})[result["seed"]] = result
    names = [reference, *(name for name in results if name != reference)]
    rows = []
    for name in names:
        runs = results[name]
        row = {"model": name, "seeds": " ".join(map(str, sorted(runs)))}
        row |= {key: next(iter(runs.values()))[key] for key in ("parameters", "gflops")}
        row["minutes"] = round(statistics.mean(r["minutes"] for r in runs.values()), 1)
        for metric in (METRIC, "mAP50"):
            values = {seed: 100 * r[metric] for seed, r in runs.items()}
            base = {seed: 100 * r[metric] for seed, r in results[reference].items()}
            difference, interval = paired_difference(values, base)
            row |= {
                metric: round(statistics.mean(values.values()), 2),
                f"{metric} std": round(statistics.stdev(values.values()), 2) if len(values) > 1 else "",
                f"{metric} difference": round(difference, 2),
                f"{metric} +-": round(interval, 2) if len(values) > 1 else "",
            }
        for c in next(iter(runs.values()))["classes"]:
            found = [r["classes"].get(c, {}).get("AP50-95", 0) for r in runs.values()]
            row[f"AP {c}"] = round(100 * statistics.mean(found), 2)
        rows.append(row)
    with (out / "summary.csv").open("w", newline="") as f:
        writer = csv.DictWriter(f, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    (out / "summary.md").write_text(_table(rows), encoding="utf-8")
    if len(rows) > 1:
        _plot_differences(rows, results, reference, out / "differences.png")
    _plot_curves(results, names, out / "curves.png")
    return rows


def _table(rows: list[dict]) -> str:
    lines = [
        f"| model | parameters | seeds | {METRIC} | difference | mAP50 | difference |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    for i, row in enumerate(rows):
        cells = [Path(row["model"]).stem, f"{row['parameters']:,}", row["seeds"]]
        for metric in (METRIC, "mAP50"):
            spread, interval = row[f"{metric} std"], row[f"{metric} +-"]
            cells.append(f"{row[metric]:.1f}" + (f" ± {spread:.1f}" if spread != "" else ""))
            cells.append(f"{row[f'{metric} difference']:+.1f}" + (f" ± {interval:.1f}" if interval != "" else ""))
            if i == 0:
                cells[-1] = ""
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _plot_differences(rows: list[dict], results: dict[str, dict[int, dict]], reference: str, file: Path) -> None:
    others = rows[1:]
    figure, axes = plt.subplots(figsize=(7, 1.2 + 0.5 * len(others)), layout="constrained")
    for y, row in enumerate(others):
        pairs = results[row["model"]].keys() & results[reference].keys()
        points = [100 * (results[row["model"]][s][METRIC] - results[reference][s][METRIC]) for s in pairs]
        axes.plot(points, [y] * len(points), "o", color="tab:gray", alpha=0.6)
        axes.errorbar(
            row[f"{METRIC} difference"], y, xerr=row[f"{METRIC} +-"] or None, fmt="D", color="tab:blue", capsize=4
        )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(others)), [Path(row["model"]).stem for row in others])
    axes.set_ylim(len(others) - 0.5, -0.5)
    axes.set_xlabel(f"{METRIC}, difference to {Path(reference).stem}\ngrey: seeds, blue: mean and 95 % interval")
    figure.savefig(file, dpi=120)
    plt.close(figure)


def _plot_curves(results: dict[str, dict[int, dict]], names: Sequence[str], file: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for i, name in enumerate(names):
        for j, result in enumerate(results[name].values()):
            curve = [100 * v for v in result["curve"]]
            label = Path(name).stem if j == 0 else None
            axes.plot(range(1, len(curve) + 1), curve, color=f"C{i}", alpha=0.7, linewidth=1, label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"{METRIC} (%)")
    axes.legend()
    figure.savefig(file, dpi=120)
    plt.close(figure)


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ["--run"]:
        task = json.loads(sys.argv[2])
        keep(run(**{**task, "folder": Path(task["folder"])}), Path(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arguments", nargs="+", help="model YAMLs, the reference first, and key=value of the recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--scratch", type=Path, default=Path("runs/compare"), help="folder of Ultralytics' files")
    parser.add_argument(
        "--layers", type=Path, action="append", default=[], metavar="FILE", help="Python file that registers layers"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=int, default=1, help="runs at a time, each on one thread")
    where.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="run over a Ray cluster: host:port, 'local' to start one, or nothing for that of RAY_ADDRESS",
    )
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16 with channels last")
    args = parser.parse_intermixed_args()
    models = [a for a in args.arguments if "=" not in a]
    recipe = dict(cfg.parse_key_value_pair(a) for a in args.arguments if "=" in a)
    if not models or "data" not in recipe:
        parser.error("name the models, and the data set with data=")
    taken = recipe.keys() & {"model", "seed", "project", "name", "resume"}
    if taken:
        parser.error(f"{taken.pop()}= is set by this script")
    if missing := [str(file) for file in args.layers if not file.is_file()]:
        parser.error(f"--layers {missing[0]} does not exist")
    layers = [str(file.resolve()) for file in args.layers]
    import_layers(layers)
    if args.ray is not None:
        if args.ray not in ("", "auto", "local"):
            host, _, port = args.ray.removeprefix("ray://").rpartition(":")
            try:
                socket.create_connection((host, int(port)), timeout=5).close()  # Ray itself would try for minutes
            except (OSError, ValueError) as e:
                parser.error(f"--ray {args.ray}: {e}; say host:port of a cluster, auto or local, after the models")
        if recipe.get("device", "cpu") != "cpu":
            parser.error("with --ray each run has the GPU that Ray gives it: leave device= out, or say device=cpu")
        if not find_spec("ray"):
            parser.error('--ray needs Ray: pip install -e ".[ray]"')
    for model in models:
        try:
            YOLO(model)  # a mistake in a YAML is said before anything is trained
        except ConfigError as e:
            sys.exit(f"error: {e}")
    failed = compare(models, args.seeds, recipe, args.out, args.jobs, args.bf16, args.scratch, layers, args.ray)
    if not failed:
        for row in summarize(args.out, models[0]):
            interval = f" +- {row[f'{METRIC} +-']}" if row[f"{METRIC} +-"] != "" else ""
            difference = f"{row[f'{METRIC} difference']:+.2f}{interval}"
            print(f"{row['model']:<28}{METRIC} {row[METRIC]:6.2f}  {difference:<18}mAP50 {row['mAP50']:6.2f}")
    sys.exit(f"error: {len(failed)} runs failed: {', '.join(failed)}; run the same command again" if failed else 0)


if __name__ == "__main__":
    main()
