"""Detection with an exported ONNX model: needs only onnxruntime, numpy, opencv and Pillow; same boxes as Ultralytics.

`python predict_onnx.py best.onnx images/ "more/*.png" batch=8 conf=0.4`, or with the package `yolo sgdm predict ...`.
"""

from __future__ import annotations

import ast
import contextlib
import glob
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps

READ_BY_PILLOW = {".avif", ".heic", ".heif"}
IMAGES = {".bmp", ".dng", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp", *READ_BY_PILLOW}
VIDEOS = {".asf", ".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
CLASS_OFFSET, MAX_CANDIDATES = 7680, 30000  # pixels between the boxes of two classes; boxes of an image in NMS
DEFAULTS = {"conf": 0.25, "iou": 0.7, "max_det": 300, "agnostic_nms": False}


class InputError(Exception):
    """The model, the source, an argument or the output cannot be used; the message says why."""


class Frame(NamedTuple):
    """An image (BGR uint8, (H, W, 3)) and its source; of a video, the number of the frame, from 0, and the rate."""

    source: str
    image: np.ndarray
    number: int | None = None
    fps: float = 0.0


class Detector:
    """An exported detector; `imgsz` is (height, width) of a dynamic model's input (default: that of its export)."""

    def __init__(self, path: Path, imgsz: tuple[int, int] | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as e:
            raise InputError("this needs onnxruntime: pip install onnxruntime") from e
        if not Path(path).is_file():
            raise InputError(f"model {path} does not exist")
        available = onnxruntime.get_available_providers()
        try:
            self.session = onnxruntime.InferenceSession(path, providers=[p for p in PROVIDERS if p in available])
            meta = self.session.get_modelmeta().custom_metadata_map
            names = ast.literal_eval(meta["names"])
            self.names = {int(k): str(v) for k, v in (enumerate(names) if isinstance(names, list) else names.items())}
            self.stride, exported_for = int(meta["stride"]), tuple(ast.literal_eval(meta["imgsz"]))
            options = dict(ast.literal_eval(meta.get("args", "{}")))
            task = meta["task"]
            self.input = self.session.get_inputs()[0]
            batch, _, height, width = self.input.shape
            _, *shape = self.session.get_outputs()[0].shape  # (boxes, 6) with NMS inside, else (4 + classes, anchors)
        except Exception as e:  # onnxruntime's own classes have no common base
            reason = f"its metadata lacks {e}" if isinstance(e, KeyError) else str(e).partition("\n")[0]
            raise InputError(f"{path} is not a model that `yolo export format=onnx` wrote: {reason}") from e
        if task != "detect" or meta.get("head") == "RTDETRDecoder" or meta.get("channels", "3") != "3":
            what = f"task {task}, head {meta.get('head', '?')}, {meta.get('channels', '3')} channels"
            raise InputError(f"{path} is a model of {what}; this takes YOLO detectors of images with 3 channels")
        self.path = path
        self.has_nms = bool(options.get("nms")) or meta.get("end2end") == "True" or shape[-1] == 6
        self.end2end = self.has_nms and not options.get("nms")  # a head that needs no NMS
        self.most = shape[0] if self.has_nms else None
        self.dynamic = isinstance(height, str)
        self.batch = batch if isinstance(batch, int) else None
        self.size = (imgsz or exported_for) if self.dynamic else (height, width)
        if (imgsz or self.size) != self.size or any(side <= 0 or side % self.stride for side in self.size):
            sizes = f"multiples of {self.stride}" if self.dynamic else f"{self.size}, for which it was exported"
            raise InputError(f"imgsz {imgsz}: {path} takes {sizes}")

    def __call__(self, images: list[np.ndarray], **options: Any) -> list[np.ndarray]:
        """Return rows x1, y1, x2, y2 (pixels), confidence, class for each of a batch of BGR uint8 images (H, W, 3)."""
        conf, iou, max_det, agnostic_nms = (DEFAULTS | options).values()
        rectangle = self.dynamic and len({image.shape for image in images}) == 1
        inputs = np.stack([letterbox(image, self.size, self.stride if rectangle else None) for image in images])
        if self.batch:
            inputs = np.pad(inputs, ((0, self.batch - len(images)), (0, 0), (0, 0), (0, 0)))
        inputs = np.ascontiguousarray(inputs[..., ::-1].transpose(0, 3, 1, 2))  # BGR to RGB, BHWC to BCHW
        dtype = np.float16 if "float16" in self.input.type else np.float32
        inputs = (inputs.astype(np.float32) / 255).astype(dtype)
        try:
            outputs = self.session.run(None, {self.input.name: inputs})[0]
        except Exception as e:
            reason = str(e).partition("\n")[0]
            raise InputError(f"{self.path} fails on an input of the shape {inputs.shape}: {reason}") from e
        results = []
        for output, image in zip(outputs.astype(np.float32), images, strict=False):
            inside = output[output[:, 4] > conf][:max_det] if self.has_nms else None
            rows = select_boxes(output, conf, iou, max_det, agnostic_nms) if inside is None else inside
            rows[:, :4] = scale_boxes(rows[:, :4], inputs.shape[2:], image.shape[:2])
            if unknown := {*rows[:, 5].astype(int).tolist()} - self.names.keys():
                raise InputError(f"{self.path} found the class {min(unknown)}, which its metadata does not name")
            results.append(rows)
        return results


def fit_size(shape: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of an image of `shape` scaled to fit into `size`."""
    scale = min(size[0] / shape[0], size[1] / shape[1])
    return max(round(shape[0] * scale), 1), max(round(shape[1] * scale), 1)


def letterbox(image: np.ndarray, size: tuple[int, int], stride: int | None = None) -> np.ndarray:
    """Scale an image (H, W, 3) to fit into `size` and pad it with grey: to `size`, or only to multiples of `stride`."""
    height, width = fit_size(image.shape[:2], size)
    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    dy, dx = size[0] - height, size[1] - width
    if stride:
        dy, dx = dy % stride, dx % stride
    top, left = round(dy / 2 - 0.1), round(dx / 2 - 0.1)
    return cv2.copyMakeBorder(image, top, dy - top, left, dx - left, cv2.BORDER_CONSTANT, value=(114, 114, 114))


def scale_boxes(boxes: np.ndarray, size: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Map boxes (n, 4) from pixels of a letterboxed input of `size` to those of the image of `shape`."""
    height, width = fit_size(shape, size)
    corner = [round((size[1] - width) / 2 - 0.1), round((size[0] - height) / 2 - 0.1)] * 2
    return ((boxes - corner) / ([width / shape[1], height / shape[0]] * 2)).clip(0, [shape[1], shape[0]] * 2)


def select_boxes(output: np.ndarray, conf: float, iou: float, max_det: int, agnostic_nms: bool) -> np.ndarray:
    """Return rows of boxes by NMS from raw output (4 + classes, anchors), boxes as centre x, y, width, height."""
    output = output.T[output[4:].max(0) > conf]
    xywh, scores, classes = output[:, :4], output[:, 4:].max(1, initial=0), output[:, 4:].argmax(1)
    corners = np.concatenate([xywh[:, :2] - xywh[:, 2:] / 2, xywh[:, :2] + xywh[:, 2:] / 2], 1)
    apart = corners + (0 if agnostic_nms else np.float32(CLASS_OFFSET) * classes[:, None].astype(np.float32))
    rectangles = np.concatenate([apart[:, :2], apart[:, 2:] - apart[:, :2]], 1).astype(float)
    keep = cv2.dnn.NMSBoxes(rectangles.tolist(), scores.tolist(), conf, iou, top_k=MAX_CANDIDATES)
    keep = np.asarray(keep, int).reshape(-1)[:max_det]
    return np.column_stack([corners, scores, classes])[keep].astype(np.float32)


def find_files(source: str) -> list[str]:
    """Return the images and videos of a source: a file, a folder, the lines of a list (.txt), or a pattern."""
    path = Path(source)
    try:
        if path.is_file() and path.suffix.lower() == ".txt":
            lines = filter(None, map(str.strip, path.read_text(encoding="utf-8-sig").splitlines()))
            return [line if Path(line).exists() else str(path.parent / line) for line in lines]
        if source and path.is_dir():
            files = sorted(map(str, path.iterdir()))
        elif not (files := [source] if path.is_file() else sorted(glob.glob(source, recursive=True))):  # noqa: PTH207
            raise InputError(f"source {source or repr(source)} does not exist")
    except (OSError, UnicodeError) as e:
        raise InputError(f"source {source} cannot be read: {getattr(e, 'strerror', None) or e}") from e
    known = [f for kinds in (IMAGES, VIDEOS) for f in files if Path(f).suffix.lower() in kinds]
    if not known:
        raise InputError(f"source {source} holds no image ({' '.join(sorted(IMAGES))}) or video")
    return known


def read_frames(files: Sequence[str], skipped: list[dict[str, str]]) -> Iterator[Frame]:
    """Yield the images and the frames of the videos; report files that cannot be read, and add them to `skipped`."""
    for file in files:
        reason, number = "not a video that can be opened", 0
        if Path(file).suffix.lower() in VIDEOS:
            capture = cv2.VideoCapture(str(Path(file).absolute()))  # FFmpeg takes a:b.mp4 for an address
            fps = capture.get(cv2.CAP_PROP_FPS)
            while (read := capture.read())[0]:
                yield Frame(file, read[1], number, fps if 0.1 <= fps <= 65 else 30.0)  # what MPEG-4 holds
                number += 1
            capture.release()
        elif isinstance(image := read_image(Path(file)), str):
            reason = image
        else:
            yield Frame(file, image)
            continue
        if not number:
            print(f"skipped {file}: {reason}", file=sys.stderr)
            skipped.append({"source": file, "reason": reason})


def read_image(file: Path) -> np.ndarray | str:
    """Return an image, upright and with pixels as Ultralytics reads them, or the reason why it cannot be read."""
    suffix, image = file.suffix.lower(), None
    try:
        content = np.frombuffer(file.read_bytes(), np.uint8)
        if not content.size:
            return "empty"
        if suffix in READ_BY_PILLOW:
            with Image.open(file) as opened:
                return np.array(ImageOps.exif_transpose(opened).convert("RGB"))[..., ::-1].copy()
        if suffix in {".tif", ".tiff"}:
            image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
            image = image[..., :3] if image is not None and image.shape[2:] > (2,) else None  # grey is read below
        image = cv2.imdecode(content, cv2.IMREAD_COLOR) if image is None else image
    except (OSError, cv2.error) as e:
        return str(getattr(e, "strerror", None) or getattr(e, "err", None) or e).partition("\n")[0]
    if image is None:
        return "not an image that OpenCV reads, or cut off"
    image = (image >> 8).astype(np.uint8) if image.dtype == np.uint16 else image
    return image if image.dtype == np.uint8 else f"pixels of {image.dtype}, not of 8 or 16 bits"


def draw_boxes(image: np.ndarray, rows: np.ndarray, names: dict[int, str]) -> np.ndarray:
    """Return a copy of an image with boxes, class names and confidences drawn, a colour for each class."""
    image = image.copy()
    line = max(round(sum(image.shape[:2]) / 2 * 0.003), 1)
    for x1, y1, x2, y2, confidence, c in rows:
        colour = cv2.cvtColor(np.uint8([[[int(c) * 67 % 180, 200, 200]]]), cv2.COLOR_HSV2BGR)[0, 0].tolist()
        text, font = f"{names[int(c)]} {confidence:.2f}", (cv2.FONT_HERSHEY_SIMPLEX, line / 3)
        (width, height), _ = cv2.getTextSize(text, *font, max(line - 1, 1))
        left, bottom = round(float(x1)), max(round(float(y1)), height + 3)
        cv2.rectangle(image, (left, round(float(y1))), (round(float(x2)), round(float(y2))), colour, line, cv2.LINE_AA)
        cv2.rectangle(image, (left, bottom - height - 3), (left + width, bottom), colour, -1)
        cv2.putText(image, text, (left, bottom - 2), *font, (255, 255, 255), max(line - 1, 1), cv2.LINE_AA)
    return image


class Output:
    """The folder of results, or `folder2`, ... if it holds something: drawn images and videos, predictions.json."""

    def __init__(self, folder: Path) -> None:
        folder = folder.resolve()
        numbered = itertools.chain([folder], (folder.with_name(f"{folder.name}{i}") for i in itertools.count(2)))
        self.folder = next(f for f in numbered if not f.exists() or (f.is_dir() and not any(f.iterdir())))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.predictions: list[dict[str, Any]] = []
        self.skipped: list[dict[str, str]] = []
        self.videos: dict[str, tuple[cv2.VideoWriter, Path]] = {}

    def add(self, frame: Frame, rows: np.ndarray, names: dict[int, str]) -> None:
        """Write one result."""
        height, width = frame.image.shape[:2]
        keys = ("class", "name", "confidence", "box")
        values = ((int(c), names[int(c)], round(float(p), 5), np.round(box, 3).tolist()) for *box, p, c in rows)
        boxes = [dict(zip(keys, v, strict=True)) for v in values]
        number = {} if frame.number is None else {"frame": frame.number}
        drawn = draw_boxes(frame.image, rows, names)
        file = self._write_frame(frame, drawn) if number else self._write_image(Path(frame.source), drawn)
        result = {"source": frame.source, **number, "width": width, "height": height, "boxes": boxes}
        self.predictions.append({**result, "drawn": file.name})

    def _name_free(self, name: str, suffix: str) -> Path:
        """Return a file of this name, with the suffix behind it if it has another, or of name-2, ... if it is there."""
        path = Path(name if name.lower().endswith(suffix.lower()) else name + suffix)
        names = itertools.chain([path.name], (f"{path.stem}-{i}{path.suffix}" for i in itertools.count(2)))
        return next(file for n in names if not (file := self.folder / n).exists())

    def _write_image(self, source: Path, drawn: np.ndarray) -> Path:
        suffix = source.suffix if cv2.haveImageWriter(source.name) and max(drawn.shape) < 16384 else ".png"
        file = self._name_free(source.name, suffix)
        file.write_bytes(cv2.imencode(suffix, drawn)[1].tobytes())
        return file

    def _write_frame(self, frame: Frame, drawn: np.ndarray) -> Path:
        if frame.source not in self.videos:
            file = self._name_free(Path(frame.source).name, ".mp4")
            writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), frame.fps, drawn.shape[1::-1])
            self.videos[frame.source] = writer, file
        writer, file = self.videos[frame.source]
        writer.write(drawn)
        return file

    def close(self) -> None:
        """Finish the videos and write predictions.json."""
        content = json.dumps({"predictions": self.predictions, "skipped": self.skipped}, indent=1)
        (self.folder / "predictions.json").write_text(content, encoding="utf-8")
        for writer, file in self.videos.values():
            writer.release()
            if not cv2.VideoCapture(str(file)).isOpened():  # OpenCV does not report an error of the disk
                raise OSError(None, f"{file} could not be written; is the disk full?")


def predict(
    model: Path,
    *source: str,
    out: Path = Path("predictions"),
    batch: int = 1,
    imgsz: list[int] | None = None,
    conf: float = 0.25,
    iou: float = 0.7,
    max_det: int = 300,
    agnostic_nms: bool = False,
) -> int:
    """Detect with an exported ONNX detector; the boxes are those of Ultralytics.

    OUT gets the images with boxes drawn, and predictions.json (its fields: docs/deployment.md). Nothing is overwritten:
    if OUT holds something already, the next free name is taken.

    Args:
        model: ONNX file of `yolo export format=onnx` of the task detect, with or without nms=True.
        source: Images, videos, folders of them, lists of files (.txt), patterns as "*.png".
        out: Folder of the results.
        batch: Images at a time, of a dynamic model.
        imgsz: Size of the input of a dynamic model, 640 or 480,640 (height, width).
        conf: Minimum confidence of a box.
        iou: Overlap at which NMS drops a box.
        max_det: Maximum number of boxes of an image.
        agnostic_nms: NMS that ignores the classes.

    Returns:
        Exit status: 1 if nothing could be read.

    Raises:
        InputError: If the model, a source, an argument or the output cannot be used.
    """
    if not (source and 0 <= conf <= 1 and 0 <= iou <= 1 and max_det >= 1 and batch >= 1):
        raise InputError("name a source; conf= and iou= must be from 0 to 1, max_det= and batch= 1 or more")
    files = list(dict.fromkeys(file for s in source for file in find_files(s)))
    detector = Detector(model, (imgsz[0], imgsz[-1]) if imgsz else None)
    options = {"conf": conf, "iou": iou, "max_det": max_det, "agnostic_nms": agnostic_nms}
    if detector.has_nms and (options != DEFAULTS or not detector.end2end):
        conf_too = "" if detector.end2end else "the minimum conf=, "
        print(
            f"warning: {model} fixes {conf_too}iou=, agnostic_nms= and at most {detector.most} boxes", file=sys.stderr
        )
    try:
        with contextlib.closing(Output(out)) as results:
            frames = read_frames(files, results.skipped)
            while group := list(itertools.islice(frames, detector.batch or batch)):
                found = detector([frame.image for frame in group], **options)
                for frame, rows in zip(group, found, strict=True):
                    results.add(frame, rows, detector.names)
    except OSError as e:
        raise InputError(f"out={out} cannot be written: {e.strerror or e}") from e
    boxes = sum(len(p["boxes"]) for p in results.predictions)
    print(f"images: {len(results.predictions)}, boxes: {boxes}, skipped: {len(results.skipped)}, in {results.folder}")
    return 0 if results.predictions else 1


def main(argv: Sequence[str]) -> int:
    """Run `predict` with a command line as `best.onnx images/ conf=0.4`; return the exit status."""
    keys = {*DEFAULTS, "out", "batch", "imgsz"}
    given = {key: value for key, equals, value in (a.partition("=") for a in argv) if equals and key in keys}
    model, *source = [a for a in argv if "=" not in a or a.partition("=")[0] not in keys] or [""]
    try:
        options: dict[str, Any] = {k: ast.literal_eval(v) for k, v in given.items() if k not in ("out", "imgsz")}
        options |= {"out": Path(given["out"])} if "out" in given else {}
        options |= {"imgsz": [int(side) for side in given["imgsz"].split(",")]} if "imgsz" in given else {}
        return predict(Path(model), *source, **options)
    except (InputError, ValueError, SyntaxError) as e:
        print(f"error: {e}; usage: MODEL SOURCE ... [KEY=VALUE ...] with {', '.join(sorted(keys))}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
