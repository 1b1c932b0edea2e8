"""What corrupted pictures cost trained detectors: mAP under noise, JPEG and blur, and its loss against clean pictures.

Checkpoints are grouped by the model YAML that they were trained from, and told apart by the seed of their training;
both stand in the checkpoint. Losses are compared with those of the first checkpoint's model, seed by seed.

Pictures are corrupted where the validator has resized them to imgsz and has not padded them yet: so a strength means
the same to the network whatever the size of the files, and no camera's noise lies on the padding. The result is
rounded and clipped to 8 bits, as any picture is. All strengths but JPEG's grow with the damage:

    highpass  white Gaussian noise minus its Gaussian blur of sigma 1 pixel (-3 dB at 0.25 cycles per pixel, half of
              Nyquist's frequency), for each colour by itself; the strength is its standard deviation after filtering
              and before clipping, in 8-bit grey levels, exact in each picture
    gaussian  the same white noise unfiltered; the strength is its standard deviation, in 8-bit grey levels
    jpeg      compression; the strength is libjpeg's quality
    blur      Gaussian blur; the strength is its sigma in pixels

The noise depends on the file's name, the picture's size and the seed of the noise alone, so every checkpoint sees the
same.
"""

from __future__ import annotations

import csv
import io
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from matplotlib import pyplot as plt
from ultralytics import YOLO
from ultralytics.data import BaseDataset
from ultralytics.data.utils import check_det_dataset
from ultralytics.engine.validator import BaseValidator

from ..configs import ConfigError
from . import records, statistics
from .folds import SPLITS
from .training import METRIC, check_settings, data_digest, load_checkpoint

FILTER_SIGMA = 1  # of the blur that is taken off the white noise, pixels
TASKS = ("detect", "segment", "pose", "obb")  # those with a mAP of boxes
CLEAN = "clean"
REQUIRED = ("model", "seed", "weights", "settings", "strengths", "noise_seed", "binding", "rows")  # of a record


def _as_picture(values: np.ndarray) -> np.ndarray:
    return values.round().clip(0, 255).astype(np.uint8)


def highpass_noise(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Add high-pass filtered Gaussian noise of standard deviation `strength`, grey levels."""
    noise = rng.standard_normal(image.shape, np.float32)
    noise -= cv2.GaussianBlur(noise, (0, 0), FILTER_SIGMA).reshape(image.shape)
    return _as_picture(image + strength / noise.std() * noise)


def gaussian_noise(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Add white Gaussian noise of standard deviation `strength`, grey levels."""
    return _as_picture(image + strength * rng.standard_normal(image.shape, np.float32))


def jpeg(image: np.ndarray, quality: float, _: np.random.Generator) -> np.ndarray:
    """Compress to JPEG of a quality and decompress."""
    compressed = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, int(quality)))[1]
    return np.asarray(cv2.imdecode(compressed, cv2.IMREAD_UNCHANGED)).reshape(image.shape)


def blur(image: np.ndarray, sigma: float, _: np.random.Generator) -> np.ndarray:
    """Blur with a Gaussian, `sigma` in pixels."""
    return cv2.GaussianBlur(image, (0, 0), sigma).reshape(image.shape)


class Corruption(NamedTuple):
    """A way to corrupt a picture (H, W, C) of 8 bits, and the strengths that are measured unless others are named."""

    title: str
    apply: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
    strengths: list[float]
    unit: str
    most: float = float("inf")


CORRUPTIONS = {
    "highpass": Corruption(
        "high-pass filtered Gaussian noise", highpass_noise, [4, 8, 16, 32], "standard deviation, grey levels"
    ),
    "gaussian": Corruption("Gaussian noise", gaussian_noise, [4, 8, 16, 32], "standard deviation, grey levels"),
    "jpeg": Corruption("JPEG compression", jpeg, [50, 30, 20, 10], "quality", 100),
    "blur": Corruption("Gaussian blur", blur, [0.5, 1, 1.5, 2], "sigma, pixels"),
}


@dataclass(frozen=True)
class Corrupt:
    """A transform of a data set's pictures, the same on every call."""

    corruption: str
    strength: float
    seed: int

    def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
        """Return `labels`, a picture with its boxes and file, with the picture corrupted."""
        rng = np.random.default_rng([self.seed, zlib.crc32(Path(labels["im_file"]).name.encode())])
        return labels | {"img": CORRUPTIONS[self.corruption].apply(labels["img"], self.strength, rng)}


def corrupting(validator: type[BaseValidator], corrupt: Corrupt) -> type[BaseValidator]:
    """Return a validator like `validator` whose pictures are corrupted between resizing and padding."""

    class Corrupting(validator):
        def build_dataset(self, *args: Any, **kwargs: Any) -> BaseDataset:
            dataset = super().build_dataset(*args, **kwargs)
            dataset.transforms.insert(0, corrupt)
            return dataset

    return Corrupting


class Checkpoint(NamedTuple):
    """A trained checkpoint: its file, the stem of its model YAML, the seed of its training, and its checksum."""

    file: str
    model: str
    seed: int
    weights: str

    @property
    def name(self) -> str:
        """Name of its record."""
        return f"{self.model}-{self.seed}"


def read_checkpoint(file: str, names: dict[int, str], data: str) -> Checkpoint:
    """Return what a checkpoint says about itself.

    Args:
        file: The checkpoint.
        names: Classes of the data set.
        data: What the data set is called, for messages.

    Raises:
        ConfigError: If it is no trained model that detects exactly these classes.
    """
    if not Path(file).is_file() or Path(file).suffix != ".pt":
        raise ConfigError(f"{file} is no checkpoint (.pt), or is not there")
    if load_checkpoint(Path(file)) is None:
        raise ConfigError(f"{file} is no whole checkpoint")
    yolo = YOLO(file)
    if yolo.task not in TASKS:
        raise ConfigError(f"{file} is trained to {yolo.task}; mAP of boxes needs one of {', '.join(TASKS)}")
    if len(yolo.names) != len(names):
        raise ConfigError(f"{file} detects {len(yolo.names)} classes, {data} has {len(names)}")
    for c, name in names.items():
        if yolo.names[c] != name:
            raise ConfigError(f"class {c} of {file} is {yolo.names[c]!r}, of {data} {name!r}")
    model, seed = yolo.model.yaml.get("yaml_file", file), yolo.ckpt.get("train_args", {}).get("seed", 0)
    return Checkpoint(file, Path(model).stem, seed, records.file_digest(Path(file)))


def check(files: Sequence[str], settings: dict[str, Any]) -> list[Checkpoint]:
    """Return the checkpoints of `files`, all fit for the data set.

    Raises:
        ConfigError: If a setting is none of the validator's, a checkpoint does not fit the data, or two are of the
            same model and seed.
    """
    check_settings(settings)
    if settings.get("batch", 1) < 1:
        raise ConfigError(f"batch={settings['batch']} must be 1 or more: what fits a training is not looked for here")
    spec, split = check_det_dataset(settings["data"]), settings.get("split", "val")
    if split not in SPLITS or not spec.get(split):
        there = ", ".join(s for s in SPLITS if spec.get(s))
        raise ConfigError(f"split={split}: {settings['data']} has {there}")
    names = spec["names"]
    known: dict[tuple[str, int], Checkpoint] = {}
    for file in files:
        checkpoint = read_checkpoint(file, names, settings["data"])
        one = checkpoint.model, checkpoint.seed
        if one in known:
            raise ConfigError(f"{known[one].file} and {file} are both {one[0]} trained with seed {one[1]}")
        known[one] = checkpoint
    return list(known.values())


def measure(
    checkpoint: Checkpoint, settings: dict[str, Any], strengths: dict[str, Sequence[float]], noise_seed: int
) -> Iterator[dict[str, Any]]:
    """Yield corruption, strength and mAP in percent: of clean pictures, then of each corruption and strength.

    Args:
        checkpoint: What to measure.
        settings: Arguments of the validator.
        strengths: Strengths of each corruption.
        noise_seed: Seed of the noise.
    """
    yolo = YOLO(checkpoint.file)
    stock = yolo.task_map[yolo.task]["validator"]
    conditions: list[tuple[str, float | None]] = [(CLEAN, None)]
    conditions += [(name, strength) for name, values in strengths.items() for strength in values]
    for name, strength in conditions:
        validator = stock if strength is None else corrupting(stock, Corrupt(name, strength, noise_seed))
        print(f"{checkpoint.name}: {name} {'' if strength is None else strength}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            box = yolo.val(validator, **{"verbose": False, **settings}, plots=False, project=folder).box
        yield {"corruption": name, "strength": strength, METRIC: 100 * float(box.map), "mAP50": 100 * float(box.map50)}


def kept_results(out: Path) -> dict[Path, dict[str, Any]]:
    """Return the results in a folder that `noise` made, or that is new.

    Raises:
        ConfigError: If it holds anything else, which must not be overwritten.
    """
    results = {file: records.read(file, REQUIRED, "this command") for file in sorted(out.glob("*.json"))}
    if out.exists() and not results and any(file.name != ".lock" for file in out.iterdir()):
        raise ConfigError(f"{out} holds something else than results of this command; choose another out=")
    for file, result in results.items():
        if file.stem != (name := f"{result['model']}-{result['seed']}"):
            raise ConfigError(f"{file} is the record of {name}; delete it to measure {file.stem}")
    return results


def measure_all(checkpoints: Sequence[Checkpoint], options: dict[str, Any], out: Path) -> None:
    """Write a JSON file for each checkpoint that has none yet.

    Args:
        checkpoints: What to measure.
        options: The keyword arguments of `measure`, which all results in the folder must share.
        out: The folder.

    Raises:
        ConfigError: If the folder holds something else, or results of another training, set or versions, or with other
            options.
    """
    command = records.command()
    data, split = options["settings"]["data"], options["settings"].get("split", "val")
    binding = {"data": data_digest(data, [split]), "versions": records.digest(records.versions())}
    kept = kept_results(out)
    for file, result in kept.items():
        for key, value in options.items():
            if result[key] != value:
                raise ConfigError(f"{file} was made with {key} {result[key]}, not {value}; choose another out=")
        for key, value in binding.items():
            if result["binding"][key] != value:
                raise ConfigError(f"{file} was made with another {key}; choose another out=")
    files = {out / f"{c.name}.json": c for c in checkpoints}
    for file, checkpoint in files.items():
        if file in kept and kept[file]["weights"] != checkpoint.weights:
            raise ConfigError(f"{file} is of another training than {checkpoint.file}; choose another out=")
    for file, checkpoint in files.items():
        if file not in kept:
            rows = list(measure(checkpoint, **options))
            about = records.circumstances(command, options["settings"].get("device"))
            records.keep({**checkpoint._asdict(), **options, "binding": binding, "rows": rows, **about}, file)


def summarize(out: Path, reference: str) -> list[dict[str, Any]]:
    """Make results.csv, summary.csv and losses.png of a folder of results; return the rows of the summary.

    Args:
        out: The folder.
        reference: The model that others are compared with.
    """
    found: dict[str, dict[int, dict[tuple[str, float], dict]]] = {reference: {}}
    results = []
    for result in kept_results(out).values():
        clean, rows = result["rows"][0], {}
        for row in result["rows"]:
            losses = {f"{metric} loss": clean[metric] - row[metric] for metric in (METRIC, "mAP50")}
            rows[row["corruption"], row["strength"]] = row | losses
            results.append({key: result[key] for key in ("model", "seed", "file")} | row | losses)
        found.setdefault(result["model"], {})[result["seed"]] = rows
    _write(out / "results.csv", results)
    summary = []
    for condition in next(iter(found[reference].values())):
        base = {seed: rows[condition][f"{METRIC} loss"] for seed, rows in found[reference].items()}
        for name, runs in found.items():
            by_seed = {seed: rows[condition][f"{METRIC} loss"] for seed, rows in runs.items()}
            estimate = statistics.paired(by_seed, base) if by_seed.keys() & base.keys() else None
            summary.append(
                {
                    "corruption": condition[0],
                    "strength": condition[1],
                    "model": name,
                    "seeds": " ".join(map(str, sorted(runs))),
                    METRIC: float(np.mean([rows[condition][METRIC] for rows in runs.values()])),
                    "loss": float(np.mean(list(by_seed.values()))),
                    "loss std": float(np.std(list(by_seed.values()), ddof=1)) if len(by_seed) > 1 else None,
                    "difference": estimate and estimate.mean,
                    "difference +-": estimate and estimate.half,
                }
            )
    _write(out / "summary.csv", summary)
    _plot(summary, out / "losses.png")
    return summary


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    writer = csv.DictWriter(text := io.StringIO(newline=""), rows[0].keys())
    writer.writeheader()
    writer.writerows({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    records.write(file, text.getvalue())


def _plot(summary: list[dict[str, Any]], file: Path) -> None:
    """Draw the loss over the strength, a panel per corruption, a line per model, a band of one standard deviation."""
    panels = [name for name in CORRUPTIONS if any(row["corruption"] == name for row in summary)]
    down, across = -(-len(panels) // 2), min(2, len(panels))
    size = 4.5 * across, 0.8 + 3 * down
    figure, grid = plt.subplots(down, across, figsize=size, squeeze=False, layout="constrained")
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    models = list(dict.fromkeys(row["model"] for row in summary))
    for axes, name in zip(grid.flat, panels, strict=False):
        for i, model in enumerate(models):
            rows = [row for row in summary if row["model"] == model and row["corruption"] in (CLEAN, name)]
            clean, *others = rows
            x, mean = range(len(rows)), np.array([row["loss"] for row in rows])
            spread = np.array([row["loss std"] or 0 for row in rows])
            label = f"{model}, {METRIC} {clean[METRIC]:.1f} on clean pictures"
            axes.plot(x, mean, "o-", color=f"C{i}", markersize=4, label=label)
            axes.fill_between(x, mean - spread, mean + spread, color=f"C{i}", alpha=0.2, linewidth=0)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xticks(x, [CLEAN, *(f"{row['strength']:g}" for row in others)])
        axes.set_title(CORRUPTIONS[name].title)
        axes.set_xlabel(CORRUPTIONS[name].unit)
    for axes in grid[:, 0]:
        axes.set_ylabel(f"loss of {METRIC}, points")
    title = "mean over seeds, and a band of one standard deviation"
    handles = grid[0, 0].get_legend_handles_labels()
    figure.legend(*handles, title=title, loc="outside upper center", ncols=across)
    figure.savefig(picture := io.BytesIO(), dpi=120)
    records.write(file, picture.getvalue())
    plt.close(figure)


def noise(
    *checkpoints: str,
    data: str,
    imgsz: int,
    out: Path,
    highpass: list[float] | None = CORRUPTIONS["highpass"].strengths,
    gaussian: list[float] | None = CORRUPTIONS["gaussian"].strengths,
    jpeg: list[float] | None = CORRUPTIONS["jpeg"].strengths,
    blur: list[float] | None = CORRUPTIONS["blur"].strengths,
    noise_seed: int = 0,
    **settings: Any,
) -> None:
    """Measure what corrupted pictures cost checkpoints: mAP under noise, JPEG and blur beside clean pictures.

    OUT gets a JSON file per checkpoint, and, made from all of them, results.csv with mAP and loss of each, summary.csv
    with means, spreads and paired differences, and losses.png. Run again, it keeps the checkpoints that are finished;
    more may be added.

    Args:
        checkpoints: Trained checkpoints (.pt), the reference first; told apart by their model and seed.
        data: YAML of the data set.
        imgsz: Pixels.
        out: Folder of the results.
        highpass: Standard deviations of high-pass filtered noise, grey levels; none to leave it out.
        gaussian: Standard deviations of white noise, grey levels; none to leave it out.
        jpeg: Qualities of JPEG, 1 to 100; none to leave it out.
        blur: Sigmas of a Gaussian blur, pixels; none to leave it out.
        noise_seed: Seed of the noise.
        settings: Arguments of Ultralytics' validator, for all checkpoints alike.

    Raises:
        ConfigError: If a setting, a strength or a checkpoint does not fit, or OUT holds something else.
    """
    if not checkpoints:
        raise ConfigError(
            "name the checkpoints, the reference first: yolo sgdm noise a/best.pt b/best.pt data=my.yaml ..."
        )
    if taken := settings.keys() & {"model", "task", "mode", "plots", "project", "name"}:
        raise ConfigError(f"{taken.pop()}= is set by this command")
    given = {"highpass": highpass, "gaussian": gaussian, "jpeg": jpeg, "blur": blur}
    strengths = {name: list(values) for name, values in given.items() if values}
    if not strengths:
        raise ConfigError("no corruption is left")
    for name, values in strengths.items():
        for value in values:
            if not 0 < value <= CORRUPTIONS[name].most or value == float("inf"):
                most = CORRUPTIONS[name].most
                limit = "" if most == float("inf") else f" and at most {most:g}"
                raise ConfigError(f"{name}={value} must be a number above 0{limit}")
    if imgsz < 1 or noise_seed < 0:
        raise ConfigError(f"imgsz={imgsz} must be 1 or more, and noise_seed={noise_seed} 0 or more")
    settings = {"data": data, "imgsz": imgsz, **settings}
    found = check(checkpoints, settings)
    reference = found[0].model
    with records.claimed(out, "out="):
        measure_all(found, {"settings": settings, "strengths": strengths, "noise_seed": noise_seed}, out)
        rows = summarize(out, reference)
    print(f"{'':20}{'model':<28}{METRIC}   loss +- std    difference to {reference} +- 95 % interval")
    for row in rows:
        strength = "" if row["strength"] is None else f"{row['strength']:g}"
        loss, difference = (
            "" if row[key] is None else f"{row[key]:{form}}" + ("" if row[pm] is None else f" +- {row[pm]:.2f}")
            for key, pm, form in (("loss", "loss std", ".2f"), ("difference", "difference +-", "+.2f"))
        )
        print(f"{row['corruption']:<10}{strength:<10}{row['model']:<28}{row[METRIC]:8.2f}   {loss:<15}{difference}")
