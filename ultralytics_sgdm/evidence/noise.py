"""What corrupted images cost trained detectors: mAP under noise, JPEG and blur, and its loss against clean images.

Checkpoints are told apart by the model YAML that they were trained from and the seed of their training; both stand in
the checkpoint. Losses are compared with those of the first checkpoint's model, seed by seed, each with its own 95 %
interval: of twenty one leaves zero out by chance.

Images are corrupted where the validator has resized them to imgsz and not padded them yet, so a strength means the same
to the network whatever the size of the files. The noise depends on the file's name, the image's size and the seed of
the noise alone, so every checkpoint sees the same.
"""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ultralytics import YOLO
from ultralytics.data import BaseDataset
from ultralytics.data.utils import check_det_dataset
from ultralytics.engine.validator import BaseValidator

from ..errors import ConfigError, import_extra, one_line
from ..files import sha256, write_atomic
from . import records, statistics
from .train import METRIC, check_settings, digest_data

TASKS = ("detect", "segment", "pose", "obb")  # those with a mAP of boxes
REQUIRED = ("model", "seed", "rows")  # of a record
DEVIATIONS: list[float] = [4, 8, 16, 32]
QUALITIES: list[float] = [50, 30, 20, 10]
SIGMAS: list[float] = [0.5, 1, 1.5, 2]


def corrupt(image: np.ndarray, corruption: str, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Return a corrupted image (H, W, C) of 8 bits.

    Args:
        image: The image.
        corruption: "jpeg", whose strength is the quality; "blur", Gaussian, with sigma in pixels; "gaussian", white
            noise with its standard deviation in grey levels; "highpass", the same minus its blur of sigma 1 pixel, with
            the deviation after filtering, which has -3 dB at 0.25 cycles per pixel, half of Nyquist's frequency.
        strength: See above.
        rng: Source of the noise.
    """
    if corruption == "jpeg":
        compressed = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, int(strength)))[1]
        return np.asarray(cv2.imdecode(compressed, cv2.IMREAD_UNCHANGED)).reshape(image.shape)
    if corruption == "blur":
        return cv2.GaussianBlur(image, (0, 0), strength).reshape(image.shape)
    noise = rng.standard_normal(image.shape, np.float32)
    if corruption == "highpass":
        noise -= cv2.GaussianBlur(noise, (0, 0), 1).reshape(image.shape)
        noise /= noise.std()
    return (image + strength * noise).round().clip(0, 255).astype(np.uint8)


def corrupting(
    validator: type[BaseValidator], corruption: str, strength: float, noise_seed: int
) -> type[BaseValidator]:
    """Return a validator like `validator` whose images are corrupted between resizing and padding."""

    def transform(labels: dict[str, Any]) -> dict[str, Any]:
        rng = np.random.default_rng([noise_seed, zlib.crc32(Path(labels["im_file"]).name.encode())])
        return labels | {"img": corrupt(labels["img"], corruption, strength, rng)}

    class Corrupting(validator):
        def build_dataset(self, *args: Any, **kwargs: Any) -> BaseDataset:
            dataset = super().build_dataset(*args, **kwargs)
            dataset.transforms.insert(0, transform)
            return dataset

    return Corrupting


def read_checkpoint(file: str, names: dict[int, str]) -> dict[str, Any]:
    """Return file, model, seed and checksum of a checkpoint.

    Raises:
        ConfigError: If Ultralytics cannot load it, or it does not detect exactly the classes `names`.
    """
    if not Path(file).is_file() or Path(file).suffix != ".pt":
        raise ConfigError(f"{file} is not a checkpoint (.pt), or is not there")
    try:  # by Ultralytics alone: under ULTRALYTICS_SAFE_LOAD nothing in the file is executed
        yolo = YOLO(file)
    except Exception as e:  # a damaged file raises anything
        raise ConfigError(f"{file} cannot be loaded: {one_line(e)}") from e
    if yolo.task not in TASKS or dict(yolo.names) != names:
        found = f"{yolo.task} {list(yolo.names.values())}"
        raise ConfigError(f"{file} is trained to {found}, and must be to find the classes {list(names.values())}")
    model, seed = yolo.model.yaml.get("yaml_file", file), yolo.ckpt.get("train_args", {}).get("seed", 0)
    return {"file": file, "model": Path(model).stem, "seed": seed, "weights": sha256(Path(file))}


def measure(
    checkpoint: dict[str, Any], settings: dict[str, Any], strengths: dict[str, list[float]], noise_seed: int
) -> list[dict[str, Any]]:
    """Return corruption, strength and mAP in percent: of clean images, then of each corruption and strength."""
    yolo, rows = YOLO(checkpoint["file"]), []
    stock = yolo.task_map[yolo.task]["validator"]
    for name, strength in [("clean", None), *((name, s) for name, values in strengths.items() for s in values)]:
        validator = stock if strength is None else corrupting(stock, name, strength, noise_seed)
        print(f"{checkpoint['model']}-{checkpoint['seed']}: {name} {'' if strength is None else strength}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            box = yolo.val(validator, **{"verbose": False, **settings}, plots=False, project=folder).box
        scores = {METRIC: 100 * float(box.map), "mAP50": 100 * float(box.map50)}
        rows.append({"corruption": name, "strength": strength, **scores})
    return rows


def summarize(out: Path, reference: str) -> Any:
    """Write summary.csv of a folder of records and return it as a table: mAP and its loss, and paired differences."""
    pandas = import_extra("pandas", "compare")
    losses: dict[tuple, dict[str, dict[int, float]]] = {}
    scores: dict[tuple, list[float]] = {}
    for record in (records.read(file, REQUIRED) for file in sorted(out.glob("*.json"))):
        for row in record["rows"]:
            condition, model = (row["corruption"], row["strength"]), record["model"]
            by_model = losses.setdefault(condition, {reference: {}})
            by_model.setdefault(model, {})[record["seed"]] = record["rows"][0][METRIC] - row[METRIC]
            scores.setdefault((*condition, model), []).append(row[METRIC])
    rows = []
    for (corruption, strength), by_model in losses.items():
        base = by_model[reference]
        for model, found in by_model.items():
            row = {"corruption": corruption, "strength": strength, "model": model}
            row |= {"seeds": " ".join(map(str, sorted(found))), METRIC: np.mean(scores[corruption, strength, model])}
            values = list(found.values())
            row |= {"loss": np.mean(values), "loss std": np.std(values, ddof=1) if len(values) > 1 else None}
            if model != reference and (common := found.keys() & base.keys()):
                estimate = statistics.paired([found[seed] - base[seed] for seed in sorted(common)])
                row |= {"difference": estimate.mean, "difference +-": estimate.half}
            rows.append(row)
    table = pandas.DataFrame(rows).round(3)
    write_atomic(out / "summary.csv", table.to_csv(index=False, lineterminator="\n"))
    return table


def noise(
    *checkpoints: str,
    data: str,
    imgsz: int,
    out: Path,
    highpass: list[float] | None = DEVIATIONS,
    gaussian: list[float] | None = DEVIATIONS,
    jpeg: list[float] | None = QUALITIES,
    blur: list[float] | None = SIGMAS,
    noise_seed: int = 0,
    **settings: Any,
) -> None:
    """Measure what corrupted images cost checkpoints: mAP under noise, JPEG and blur beside clean images.

    OUT gets a JSON file per checkpoint, and, made from all of them, summary.csv with mAP, losses and paired
    differences.

    Args:
        checkpoints: Trained checkpoints (.pt), the reference first; told apart by their model and seed.
        data: YAML of the dataset.
        imgsz: Pixels.
        out: New folder of the results.
        highpass: Standard deviations of high-pass filtered noise, grey levels; none to leave it out.
        gaussian: Standard deviations of white noise, grey levels; none to leave it out.
        jpeg: Qualities of JPEG, 1 to 100; none to leave it out.
        blur: Sigmas of a Gaussian blur, pixels; none to leave it out.
        noise_seed: Seed of the noise.
        settings: Arguments of Ultralytics' validator, for all checkpoints alike.

    Raises:
        ConfigError: If a setting, a strength or a checkpoint does not fit, or OUT holds something else.
    """
    for module in ("pandas", "scipy.stats"):
        import_extra(module, "compare")
    given = {"highpass": highpass, "gaussian": gaussian, "jpeg": jpeg, "blur": blur}
    strengths = {name: list(values) for name, values in given.items() if values}
    if not checkpoints or not strengths:
        raise ConfigError("name the checkpoints, the reference first, and leave a corruption to measure")
    if any(not 0 < value < np.inf for values in strengths.values() for value in values) or noise_seed < 0:
        raise ConfigError("strengths must be above 0, and noise_seed= 0 or more")
    settings = {"data": data, "imgsz": imgsz, **settings}
    check_settings(settings)
    split, spec = settings.get("split", "val"), check_det_dataset(data)
    if not spec.get(split) or settings.get("batch", 1) < 1:
        raise ConfigError(f"split={split} must be one of {data}, and batch= 1 or more")
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"out={out} holds something already; choose another folder")
    found: dict[str, dict[str, Any]] = {}
    for file in checkpoints:
        checkpoint = read_checkpoint(file, spec["names"])
        other = found.setdefault(f"{checkpoint['model']}-{checkpoint['seed']}.json", checkpoint)
        if other is not checkpoint:
            raise ConfigError(f"{other['file']} and {file} are both of {other['model']} and seed {other['seed']}")
    records.writable(out)
    options: dict[str, Any] = {"settings": settings, "strengths": strengths, "noise_seed": noise_seed}
    about = {**options, "binding": {"data": digest_data(data, [split])}}
    about |= records.describe_run(records.command_line(), settings.get("device"))
    for name, checkpoint in found.items():
        records.write({**checkpoint, **about, "rows": measure(checkpoint, **options)}, out / name)
    table = summarize(out, next(iter(found.values()))["model"])
    print(table.to_string(index=False, na_rep="", float_format="{:.2f}".format))
