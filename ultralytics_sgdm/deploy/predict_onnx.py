"""Detection with an exported ONNX model: needs only onnxruntime, numpy, opencv and Pillow; same boxes as Ultralytics.

Takes images, folders, lists (.txt), patterns and videos; writes them with boxes drawn, and predictions.json:

    python predict_onnx.py best.onnx images/ "more/*.png" batch=8 conf=0.4

With the package installed, `yolo sgdm predict best.onnx images/ batch=8` is the same.
"""

from __future__ import annotations

import ast
import glob
import itertools
import json
import re
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
CLASS_OFFSET = 7680  # pixels between the boxes of two classes, so that NMS never compares them
MAX_CANDIDATES = 30000  # boxes of one image that enter NMS


class InputError(Exception):
    """The model, the source, an argument or the output cannot be used; the message says why."""


class Frame(NamedTuple):
    """An image (BGR uint8, (H, W, 3)) and its source; of a video, the number of the frame, from 0, and the rate."""

    source: str
    image: np.ndarray
    number: int | None = None
    fps: float = 0.0


class Options(NamedTuple):
    """Least confidence of a box, overlap at which NMS drops one, most boxes of an image, NMS between classes too."""

    conf: float = 0.25
    iou: float = 0.7
    max_det: int = 300
    agnostic_nms: bool = False


class Detector:
    """An exported detector; names, stride and sizes come from the model's own metadata.

    Args:
        path: ONNX file that `yolo export` wrote.
        imgsz: (height, width) of the network's input, for a dynamic model (default: the size it was exported for).
    """

    def __init__(self, path: Path, imgsz: tuple[int, int] | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as e:
            raise InputError("this needs onnxruntime: pip install onnxruntime") from e
        if not Path(path).is_file():
            raise InputError(f"model {path} {'is a folder' if Path(path).is_dir() else 'does not exist'}")
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
        few = self.end2end and isinstance(shape[0], int) and shape[0] < Options().max_det  # all that a small input has
        self.most = shape[0] if self.has_nms and isinstance(shape[0], int) and not few else None
        self.dynamic = isinstance(height, str)
        self.batch = batch if isinstance(batch, int) else None
        self.size = (imgsz or exported_for) if self.dynamic else (height, width)
        if (imgsz or self.size) != self.size or any(side <= 0 or side % self.stride for side in self.size):
            sizes = f"multiples of {self.stride}" if self.dynamic else f"{self.size}, for which it was exported"
            raise InputError(f"imgsz {imgsz}: {path} takes {sizes}")

    def __call__(self, images: list[np.ndarray], options: Options) -> list[np.ndarray]:
        """Detect on one batch of BGR uint8 images (H, W, 3), each its own size.

        Returns:
            For each image an array of rows x1, y1, x2, y2 (pixels of the image), confidence, class; best first.
        """
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
        if not self.has_nms and outputs.shape[1] != 4 + len(self.names):
            raise InputError(f"{self.path} has {outputs.shape[1] - 4} classes, its metadata names {len(self.names)}")
        results = []
        for output, image in zip(outputs.astype(np.float32), images, strict=False):
            inside = output[output[:, 4] > options.conf][: options.max_det] if self.has_nms else None
            rows = select_boxes(output, options) if inside is None else inside
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
    left, top = round((size[1] - width) / 2 - 0.1), round((size[0] - height) / 2 - 0.1)
    boxes = (boxes - [left, top, left, top]) / ([width / shape[1], height / shape[0]] * 2)
    return boxes.clip(0, [shape[1], shape[0]] * 2)


def select_boxes(output: np.ndarray, options: Options) -> np.ndarray:
    """Return rows of boxes by NMS from raw output (4 + classes, anchors), boxes as centre x, y, width, height."""
    output = output.T[output[4:].max(0) > options.conf]
    xywh, scores, classes = output[:, :4], output[:, 4:].max(1, initial=0), output[:, 4:].argmax(1)
    corners = np.concatenate([xywh[:, :2] - xywh[:, 2:] / 2, xywh[:, :2] + xywh[:, 2:] / 2], 1)
    apart = corners + (0 if options.agnostic_nms else np.float32(CLASS_OFFSET) * classes[:, None].astype(np.float32))
    rectangles = np.concatenate([apart[:, :2], apart[:, 2:] - apart[:, :2]], 1).astype(float)
    limits = options.conf, options.iou
    keep = cv2.dnn.NMSBoxes(rectangles.tolist(), scores.tolist(), *limits, top_k=MAX_CANDIDATES)
    keep = np.asarray(keep, int).reshape(-1)[: options.max_det]
    return np.column_stack([corners, scores, classes])[keep].astype(np.float32)


def find_files(source: str) -> list[str]:
    """Return the images and videos of a source: a file, a folder, the lines of a list (.txt), or a pattern.

    Raises:
        InputError: If there is no such source, or no image or video in it.
    """
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
                yield Frame(file, read[1], number, fps if 0.1 <= fps <= 1000 else 30.0)
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
        self._video, self._video_file, self._video_of = cv2.VideoWriter(), Path(), ""

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
        if self._video_of != frame.source:
            self.finish_video()
            self._video_of, self._video_file = frame.source, self._name_free(Path(frame.source).name, ".mp4")
            rate = frame.fps if frame.fps < 65 else float(round(frame.fps))  # MPEG-4 holds thousandths up to 65.535
            codec, size = cv2.VideoWriter.fourcc(*"mp4v"), drawn.shape[1::-1]
            self._video = cv2.VideoWriter(str(self._video_file), codec, rate, size)
        self._video.write(drawn)
        return self._video_file

    def finish_video(self) -> None:
        """Finish the present video."""
        self._video.release()
        if self._video_of and not cv2.VideoCapture(str(self._video_file)).isOpened():  # which OpenCV does not report
            raise OSError(None, f"the video could not be written; is the disk full? {self._video_file}")
        self._video_of = ""


def predict(
    model: Path,
    *source: str,
    out: Path = Path("predictions"),
    batch: int | None = None,
    imgsz: str | None = None,
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
        source: Images, videos, folders or lists (.txt) of these, patterns as "*.png".
        out: Folder of the results.
        batch: Images at a time, of a dynamic model (default: 1).
        imgsz: Size of the input of a dynamic model, 640 or 480,640 (height, width).
        conf: Least confidence of a box.
        iou: Overlap at which NMS drops a box.
        max_det: Most boxes of an image.
        agnostic_nms: NMS between classes too.

    Returns:
        Exit status: 1 if nothing could be read, 130 after Ctrl-C.

    Raises:
        InputError: If the model, a source, an argument or the output cannot be used.
    """
    for name, value, least, most in (
        *(("conf", conf, 0, 1), ("iou", iou, 0, 1)),
        *(
            ("batch", 1 if batch is None else batch, 1, np.inf),
            ("max_det", max_det, 1, np.inf),
            ("sources", len(source), 1, np.inf),
        ),
    ):
        if not least <= value <= most:
            raise InputError(f"{name}={value} must be {'from 0 to 1' if most == 1 else '1 or more'}")
    files = list(dict.fromkeys(file for s in source for file in find_files(s)))
    size = re.fullmatch(r"\(?(\d+)(?:\s*[,x]\s*(\d+))?\)?", imgsz or "0")
    if not size:
        raise InputError(f"imgsz={imgsz} must be 640, or height and width such as 480,640")
    detector = Detector(model, (int(size[1]), int(size[2] or size[1])) if imgsz else None)
    fixed = [f"max_det above {detector.most}"] if detector.most and max_det > detector.most else []
    if detector.has_nms and (not detector.end2end or iou != 0.7 or agnostic_nms):
        fixed += ["iou", "agnostic_nms"] if detector.end2end else ["conf below that of its export, iou", "agnostic_nms"]
    if fixed:
        print(f"warning: {model} has its NMS inside; no effect has {', '.join(fixed)}", file=sys.stderr)
    options, status = Options(conf, iou, max_det, agnostic_nms), 0
    try:
        results = Output(out)
        try:
            frames = read_frames(files, results.skipped)
            while group := list(itertools.islice(frames, detector.batch or batch or 1)):
                found = detector([frame.image for frame in group], options)
                for frame, rows in zip(group, found, strict=True):
                    results.add(frame, rows, detector.names)
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            status = 130
        finally:
            content = json.dumps({"predictions": results.predictions, "skipped": results.skipped}, indent=1)
            (results.folder / "predictions.json").write_text(content, encoding="utf-8")
            results.finish_video()
    except OSError as e:
        raise InputError(f"out={out} cannot be written: {e.strerror or e}") from e
    done, boxes = len(results.predictions), sum(len(p["boxes"]) for p in results.predictions)
    print(f"images: {done}, boxes: {boxes}, skipped: {len(results.skipped)}, results: {results.folder}")
    return status or (0 if done else 1)


def main(argv: Sequence[str]) -> int:
    """Run `predict` with a command line as `best.onnx images/ conf=0.4`; return the exit status."""
    options = dict(a.split("=", 1) for a in argv if re.match(r"\w+=", a) and not Path(a).exists())
    kinds: dict[str, Any] = {
        "out": Path,
        "batch": int,
        "conf": float,
        "iou": float,
        "max_det": int,
        "agnostic_nms": ast.literal_eval,
    }
    positional = [a for a in argv if a.partition("=")[0] not in options]
    try:
        if len(positional) < 2 or options.keys() - {*kinds, "imgsz"}:
            raise InputError(f"usage: MODEL SOURCE ... {' '.join(f'{k}=' for k in (*kinds, 'imgsz'))}")
        arguments: dict[str, Any] = {k: kinds.get(k, str)(v) for k, v in options.items()}
        return predict(Path(positional[0]), *positional[1:], **arguments)
    except (InputError, ValueError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
