"""What corrupted images cost trained detectors: mAP under noise, JPEG and blur, and its loss against clean images.

Losses are compared with those of the first checkpoint's model, seed by seed, each with its own 95 % interval: of twenty
one leaves zero out by chance.

Images are corrupted where the validator has resized them to imgsz and not padded them yet, so a strength means the same
to the network whatever the size of the files. The noise depends on the file's name and the image's size alone, so every
checkpoint sees the same.
"""

from __future__ import annotations

import itertools
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.data import BaseDataset
from ultralytics.data.utils import check_det_dataset
from ultralytics.engine.validator import BaseValidator

from ..errors import ConfigError, import_extra, wrap_errors
from ..files import sha256, write_atomic
from . import records, statistics
from .folds import list_images
from .records import METRIC
from .train import digest_data, load_model

DEVIATIONS: list[float] = [4, 8, 16, 32]
QUALITIES: list[float] = [50, 30, 20, 10]
SIGMAS: list[float] = [0.5, 1, 1.5, 2]
QUALITY, UNCHANGED = cv2.IMWRITE_JPEG_QUALITY, cv2.IMREAD_UNCHANGED


def draw_highpass(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return white noise minus its blur of sigma 1 pixel, of deviation 1; -3 dB at 0.25 cycles per pixel."""
    noise = rng.standard_normal(shape, np.float32)
    noise -= cv2.GaussianBlur(noise, (0, 0), 1).reshape(shape)
    return noise / noise.std()


CORRUPTIONS = {  # of an image (H, W, C): strengths are deviations in grey levels, a quality, and pixels
    "highpass": lambda image, deviation, rng: image + deviation * draw_highpass(image.shape, rng),
    "gaussian": lambda image, deviation, rng: image + deviation * rng.standard_normal(image.shape, np.float32),
    "jpeg": lambda image, quality, _: cv2.imdecode(cv2.imencode(".jpg", image, (QUALITY, int(quality)))[1], UNCHANGED),
    "blur": lambda image, sigma, _: cv2.GaussianBlur(image, (0, 0), sigma),
}


def corrupt(image: np.ndarray, corruption: str, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Return a corrupted image (H, W, C) of 8 bits."""
    changed = np.asarray(CORRUPTIONS[corruption](image, strength, rng)).reshape(image.shape)
    return changed.round().clip(0, 255).astype(np.uint8)


def corrupting(stock: type[BaseValidator], corruption: str, strength: float) -> type[BaseValidator]:
    """Return a validator like `stock` whose images are corrupted between resizing and padding."""

    def transform(labels: dict[str, Any]) -> dict[str, Any]:
        rng = np.random.default_rng([0, zlib.crc32(Path(labels["im_file"]).name.encode())])
        return labels | {"img": corrupt(labels["img"], corruption, strength, rng)}

    class Corrupting(stock):
        def build_dataset(self, *args: Any, **kwargs: Any) -> BaseDataset:
            dataset = super().build_dataset(*args, **kwargs)
            dataset.transforms.insert(0, transform)
            return dataset

    return Corrupting


def read_checkpoint(file: str, names: dict[int, str]) -> dict[str, Any]:
    """Return file, model, seed and checksum of a checkpoint; raise ConfigError if it has other classes than `names`."""
    yolo = load_model(file, ("detect", "segment", "pose", "obb"))  # the tasks with a mAP of boxes
    if not yolo.ckpt or dict(yolo.names) != names:
        raise ConfigError(f"{file} must be a checkpoint that is trained to find {list(names.values())}")
    model, seed = yolo.model.yaml.get("yaml_file", file), yolo.ckpt.get("train_args", {}).get("seed", 0)
    return {"file": file, "model": Path(model).stem, "seed": seed, "weights": sha256(Path(file))}


def measure(name: str, file: str, settings: dict[str, Any], strengths: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Return corruption, strength and mAP in percent: of clean images, then of each corruption and strength."""
    yolo, rows = YOLO(file), []
    stock = yolo.task_map[yolo.task]["validator"]
    for corruption, strength in [("clean", None), *((c, s) for c, values in strengths.items() for s in values)]:
        validator = stock if strength is None else corrupting(stock, corruption, strength)
        print(f"{name}: {corruption} {strength or ''}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            box = yolo.val(validator, **{"verbose": False, **settings}, plots=False, project=folder).box
        row = {"corruption": corruption, "strength": strength}
        rows.append({**row, METRIC: 100 * float(box.map), "mAP50": 100 * float(box.map50)})
    return rows


def summarize(found: Sequence[Mapping[str, Any]]) -> Any:
    """Return a table of the records of checkpoints, the reference first: mAP, its loss, and paired differences."""
    pandas = import_extra("pandas", "compare")
    scores = pandas.DataFrame({(r["model"], r["seed"]): [row[METRIC] for row in r["rows"]] for r in found})
    losses, reference = scores.iloc[0] - scores, found[0]["model"]
    table = []
    for (i, row), model in itertools.product(enumerate(found[0]["rows"]), scores.columns.unique(0)):
        loss = losses.loc[i, model].sort_index()
        apart = (loss - losses.loc[i, reference]).dropna() if model != reference else []
        mean, half = statistics.paired(apart)[:2] if len(apart) else (np.nan, np.nan)
        cells = {"corruption": row["corruption"], "strength": row["strength"], "model": model}
        cells |= {"seeds": " ".join(map(str, loss.index)), METRIC: scores.loc[i, model].mean()}
        table.append({**cells, "loss": loss.mean(), "loss std": loss.std(), "difference": mean, "difference +-": half})
    return pandas.DataFrame(table).round(3)


def noise(
    *checkpoints: str,
    data: str,
    imgsz: int,
    out: Path,
    highpass: list[float] | None = DEVIATIONS,
    gaussian: list[float] | None = DEVIATIONS,
    jpeg: list[float] | None = QUALITIES,
    blur: list[float] | None = SIGMAS,
    **settings: Any,
) -> None:
    """Measure what corrupted images cost checkpoints: mAP under noise, JPEG and blur beside clean images.

    OUT gets a JSON file per checkpoint, and summary.csv with mAP, losses and paired differences.

    Args:
        checkpoints: Trained checkpoints (.pt), the reference first; told apart by their model and seed.
        data: YAML of the dataset.
        imgsz: Pixels.
        out: New folder of the results.
        highpass: Standard deviations of high-pass filtered noise, grey levels; none to leave it out.
        gaussian: Standard deviations of white noise, grey levels; none to leave it out.
        jpeg: Qualities of JPEG, 1 to 100; none to leave it out.
        blur: Sigmas of a Gaussian blur, pixels; none to leave it out.
        settings: Arguments of Ultralytics' validator, for all checkpoints alike.

    Raises:
        ConfigError: If a setting, a strength or a checkpoint does not fit, or OUT holds something else.
    """
    for module in ("pandas", "scipy.stats"):
        import_extra(module, "compare")
    given = zip(CORRUPTIONS, (highpass, gaussian, jpeg, blur), strict=True)
    strengths = {name: values for name, values in given if values}
    if not checkpoints or not strengths:
        raise ConfigError("name the checkpoints, the reference first, and leave a corruption to measure")
    if any(not 0 < value < np.inf for values in strengths.values() for value in values):
        raise ConfigError("strengths must be above 0")
    if any(not 1 <= quality <= 100 for quality in strengths.get("jpeg", ())):
        raise ConfigError("jpeg= must be qualities from 1 to 100")
    settings = {"data": data, "imgsz": imgsz, **settings}
    with wrap_errors("Ultralytics"):
        get_cfg(overrides=settings)
    split = settings.get("split", "val")
    with wrap_errors(f"data={data}, split={split}"):
        spec = check_det_dataset(data)
        if not list_images(spec, split):
            raise FileNotFoundError("there are no images")
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"out={out} holds something already; choose another folder")
    found = [read_checkpoint(file, spec["names"]) for file in checkpoints]
    files = {records.run_name(checkpoint["model"], checkpoint["seed"]): checkpoint for checkpoint in found}
    if len(files) < len(found):
        raise ConfigError(f"each checkpoint must be of another model or seed, not {', '.join(files)}")
    records.make_folder(out)
    about = {"settings": settings, "strengths": strengths, "binding": {"data": digest_data(data, [split])}}
    about |= records.describe_run(settings.get("device"))
    for name, checkpoint in files.items():
        checkpoint |= about | {"rows": measure(name, checkpoint["file"], settings, strengths)}
        records.write(checkpoint, out / f"{name}.json")
    table = summarize(found)
    write_atomic(out / "summary.csv", table.to_csv(index=False, lineterminator="\n"))
    print(table.to_string(index=False, na_rep="", float_format="{:.2f}".format))
