"""Detect with an exported ONNX model: onnxruntime, numpy and opencv are all it needs; the boxes are Ultralytics' own.

Pictures, videos, cameras and streams in; the same with boxes drawn, and predictions.json, out:

    python scripts/predict_onnx.py best.onnx picture.jpg
    python scripts/predict_onnx.py best.onnx pictures/ --batch 8 --conf 0.4
    python scripts/predict_onnx.py best.onnx 0 --show
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import onnxruntime

IMAGES = {".avif", ".bmp", ".jpeg", ".jpg", ".jp2", ".png", ".tif", ".tiff", ".webp"}
VIDEOS = {".asf", ".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
CLASS_OFFSET = 7680  # pixels between the boxes of two classes, so that NMS never compares them
MAX_CANDIDATES = 30000  # boxes of one picture that enter NMS


class InputError(Exception):
    """The model, the source or an argument cannot be used; the message says why."""


class Frame(NamedTuple):
    """One picture (BGR uint8, (H, W, 3), or None if unreadable) and where it is from."""

    source: str
    image: np.ndarray | None
    number: int | None = None  # of a video's frame, from 0
    total: int = 1  # frames of the source, 0 if unknown
    fps: float = 0.0  # 0 for a picture


class Detector:
    """An exported detector; names, stride, sizes and kind of output come from the model's own metadata.

    Args:
        path: ONNX file that `yolo export` wrote.
        imgsz: (height, width) of the network's input, for a dynamic model; default: the size it was exported for.

    Raises:
        InputError: If the file is no such model, or `imgsz` does not fit it.
    """

    def __init__(self, path: Path, imgsz: tuple[int, int] | None = None) -> None:
        available = onnxruntime.get_available_providers()
        try:
            self.session = onnxruntime.InferenceSession(path, providers=[p for p in PROVIDERS if p in available])
            meta = self.session.get_modelmeta().custom_metadata_map
            self.names: dict[int, str] = ast.literal_eval(meta["names"])
            self.stride = int(meta["stride"])
            exported_for = ast.literal_eval(meta["imgsz"])
            options = ast.literal_eval(meta["args"])
        except Exception as e:  # onnxruntime's own classes have no common base
            reason = f"its metadata lacks {e}" if isinstance(e, KeyError) else str(e).splitlines()[0]
            raise InputError(f"{path} is no model that `yolo export format=onnx` wrote: {reason}") from e
        if meta["task"] != "detect" or meta.get("channels", "3") != "3":
            raise InputError(f"{path} is no detector of colour pictures: task {meta['task']}, metadata {meta}")
        self.has_nms = bool(options.get("nms")) or meta.get("end2end") == "True"
        self.input = self.session.get_inputs()[0]
        batch, _, height, width = self.input.shape
        self.dynamic = isinstance(height, str)
        self.batch = batch if isinstance(batch, int) else None
        self.max_batch = self.batch or (int(meta["batch"]) if options.get("nms") else None)
        self.size = tuple(imgsz or exported_for) if self.dynamic else (height, width)
        if any(side <= 0 or side % self.stride for side in self.size):
            raise InputError(f"--imgsz {self.size} must be positive multiples of the model's stride {self.stride}")
        if imgsz and tuple(imgsz) != self.size:
            raise InputError(f"--imgsz {tuple(imgsz)}: {path} was exported for {self.size} only; try dynamic=True")

    def __call__(
        self, images: list[np.ndarray], conf: float = 0.25, iou: float = 0.7, max_det: int = 300, agnostic: bool = False
    ) -> list[np.ndarray]:
        """Detect on one batch.

        Args:
            images: BGR uint8 pictures of shape (H, W, 3), each its own size.
            conf: Least confidence of a box.
            iou: Overlap from which NMS drops the less confident of two boxes.
            max_det: Most boxes of a picture.
            agnostic: Whether NMS compares boxes of different classes.

        Returns:
            Per picture an array of rows x1, y1, x2, y2 (pixels of the picture), confidence, class; best first.
        """
        rectangle = self.dynamic and len({image.shape for image in images}) == 1
        inputs = np.stack([letterbox(image, self.size, self.stride if rectangle else None) for image in images])
        if self.batch:
            inputs = np.pad(inputs, ((0, self.batch - len(images)), (0, 0), (0, 0), (0, 0)))
        inputs = np.ascontiguousarray(inputs[..., ::-1].transpose(0, 3, 1, 2))  # BGR to RGB, BHWC to BCHW
        dtype = np.float16 if "float16" in self.input.type else np.float32
        outputs = self.session.run(None, {self.input.name: (inputs.astype(np.float32) / 255).astype(dtype)})[0]
        results = []
        for output, image in zip(outputs.astype(np.float32), images, strict=False):
            rows = output[output[:, 4] > conf][:max_det] if self.has_nms else nms(output, conf, iou, max_det, agnostic)
            rows[:, :4] = to_picture(rows[:, :4], inputs.shape[2:], image.shape[:2])
            results.append(rows)
        return results


def placement(shape: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of a picture of `shape` scaled to fit into `size`."""
    scale = min(size[0] / shape[0], size[1] / shape[1])
    return max(round(shape[0] * scale), 1), max(round(shape[1] * scale), 1)


def letterbox(image: np.ndarray, size: tuple[int, int], stride: int | None = None) -> np.ndarray:
    """Scale a picture to fit into `size` and pad it with grey on all sides.

    Args:
        image: (H, W, 3).
        size: Height and width to fit into.
        stride: If given, pad only to the next multiple of it, not to `size`.

    Returns:
        The padded picture.
    """
    height, width = placement(image.shape[:2], size)
    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    dy, dx = size[0] - height, size[1] - width
    if stride:
        dy, dx = dy % stride, dx % stride
    top, left = round(dy / 2 - 0.1), round(dx / 2 - 0.1)
    return cv2.copyMakeBorder(image, top, dy - top, left, dx - left, cv2.BORDER_CONSTANT, value=(114, 114, 114))


def to_picture(boxes: np.ndarray, size: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Take boxes (n, 4) from pixels of a letterboxed input of `size` back to those of the picture of `shape`."""
    height, width = placement(shape, size)
    left, top = round((size[1] - width) / 2 - 0.1), round((size[0] - height) / 2 - 0.1)
    boxes = (boxes - [left, top, left, top]) / ([width / shape[1], height / shape[0]] * 2)
    return boxes.clip(0, [shape[1], shape[0]] * 2)


def nms(output: np.ndarray, conf: float, iou: float, max_det: int, agnostic: bool) -> np.ndarray:
    """Turn raw output (4 + classes, anchors), boxes as x, y, width, height of the centre, into rows of boxes."""
    output = output.T[output[4:].max(0) > conf]
    xywh, scores, classes = output[:, :4], output[:, 4:].max(1, initial=0), output[:, 4:].argmax(1)
    corners = np.concatenate([xywh[:, :2] - xywh[:, 2:] / 2, xywh[:, :2] + xywh[:, 2:] / 2], 1)
    apart = corners + (0 if agnostic else np.float32(CLASS_OFFSET) * classes[:, None].astype(np.float32))
    rectangles = np.concatenate([apart[:, :2], apart[:, 2:] - apart[:, :2]], 1).astype(float)
    keep = cv2.dnn.NMSBoxes(rectangles.tolist(), scores.tolist(), conf, iou, top_k=MAX_CANDIDATES)
    keep = np.asarray(keep, int).reshape(-1)[:max_det]
    return np.column_stack([corners, scores, classes])[keep].astype(np.float32)


def read(source: str) -> Iterator[Frame]:
    """Yield the pictures that `source` means: a file, a folder, a camera's number or a stream's address.

    Raises:
        InputError: If there is no such source, or nothing in it that could be read.
    """
    if source.isdigit() or "://" in source:
        yield from read_video(int(source) if source.isdigit() else source)
        return
    path = Path(source)
    if not path.exists():
        raise InputError(f"source {source} does not exist")
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    pictures = [f for f in files if f.suffix.lower() in IMAGES]
    videos = [f for f in files if f.suffix.lower() in VIDEOS]
    if not pictures and not videos:
        raise InputError(f"source {source} holds no picture ({' '.join(sorted(IMAGES))}) or video")
    for file in pictures:
        content = np.fromfile(file, np.uint8)
        image = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
        yield Frame(str(file), image, total=len(pictures))
    for file in videos:
        yield from read_video(str(file))


def read_video(source: str | int) -> Iterator[Frame]:
    """Yield the frames of a video file, camera or stream; one without image if it cannot be opened."""
    capture = cv2.VideoCapture(source)
    total, fps = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))), capture.get(cv2.CAP_PROP_FPS) or 30.0
    number = 0
    try:
        while True:
            success, image = capture.read()
            if not success:
                break
            yield Frame(str(source), image, number, total, fps)
            number += 1
    finally:
        capture.release()
    if not number:
        yield Frame(str(source), None)


def batches(frames: Iterator[Frame], size: int) -> Iterator[list[Frame]]:
    """Yield lists of up to `size` pictures or frames of one video; an unreadable one comes as a list of its own."""
    waiting: list[Frame] = []
    for frame in frames:
        if frame.image is None:
            yield [frame]
            continue
        if waiting and frame.number is not None and frame.source != waiting[0].source:
            yield waiting
            waiting = []
        waiting.append(frame)
        if len(waiting) == size:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def draw(image: np.ndarray, rows: np.ndarray, names: dict[int, str]) -> np.ndarray:
    """Return a copy of `image` with boxes, class names and confidences drawn, a colour for each class."""
    image = image.copy()
    line = max(round(sum(image.shape[:2]) / 2 * 0.003), 1)
    scale, thickness = line / 3, max(line - 1, 1)
    for x1, y1, x2, y2, confidence, c in rows:
        hue = np.uint8([[[int(c) * 67 % 180, 200, 200]]])
        colour = cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0].tolist()
        text = f"{names[int(c)]} {confidence:.2f}"
        corner, other = (round(float(x1)), round(float(y1))), (round(float(x2)), round(float(y2)))
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
        bottom = max(corner[1], height + 3)
        cv2.rectangle(image, corner, other, colour, line, cv2.LINE_AA)
        cv2.rectangle(image, (corner[0], bottom - height - 3), (corner[0] + width, bottom), colour, -1)
        cv2.putText(image, text, (corner[0], bottom - 2), 0, scale, (255, 255, 255), thickness, cv2.LINE_AA)
    return image


class Output:
    """The folder of results: drawn pictures, a drawn video for each video, and predictions.json.

    Args:
        folder: Where to write; if it holds something already, the next free name (`folder2`, ...) is taken.
        show: Whether to show the drawn pictures in a window as well.
    """

    def __init__(self, folder: Path, show: bool) -> None:
        numbered = itertools.chain([folder], (folder.with_name(f"{folder.name}{i}") for i in itertools.count(2)))
        self.folder = next(f for f in numbered if not f.exists() or (f.is_dir() and not any(f.iterdir())))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.show = show
        self.predictions: list[dict[str, Any]] = []
        self.skipped: list[str] = []
        self._video: cv2.VideoWriter | None = None
        self._video_of = ""

    def add(self, frame: Frame, rows: np.ndarray, names: dict[int, str]) -> bool:
        """Write one result; return False when the user pressed q in the window."""
        height, width = frame.image.shape[:2]
        boxes = [
            {"class": int(c), "name": names[int(c)], "confidence": round(float(p), 5), "box": np.round(b, 3).tolist()}
            for *b, p, c in rows
        ]
        number = {} if frame.number is None else {"frame": frame.number}
        self.predictions.append({"source": frame.source, **number, "width": width, "height": height, "boxes": boxes})
        picture = draw(frame.image, rows, names)
        if frame.number is None:
            name = Path(frame.source).name
            file = self.folder / (name if cv2.haveImageWriter(name) else f"{name}.jpg")
            file.write_bytes(cv2.imencode(file.suffix, picture)[1].tobytes())
        else:
            self._video_for(frame).write(picture)
        if self.show:
            cv2.imshow(frame.source, picture)
            return cv2.waitKey(1) != ord("q")
        return True

    def _video_for(self, frame: Frame) -> cv2.VideoWriter:
        if self._video is None or self._video_of != frame.source:
            self._release()
            name = Path(frame.source).name if Path(frame.source).is_file() else "stream.mp4"
            file = self.folder / (name if name.endswith(".mp4") else f"{name}.mp4")
            size = frame.image.shape[1::-1]
            self._video = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"mp4v"), frame.fps, size)
            self._video_of = frame.source
        return self._video

    def _release(self) -> None:
        if self._video is not None:
            self._video.release()

    def close(self) -> None:
        """Finish the video and write predictions.json."""
        self._release()
        content = {"predictions": self.predictions, "skipped": self.skipped}
        (self.folder / "predictions.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def show_progress(done: int, total: int, seconds: float) -> None:
    """Draw the progress bar on standard error, if that is a terminal."""
    if sys.stderr.isatty():
        bar = f"[{'#' * (30 * done // total):<30}] {done}/{total}" if total else f"{done}"
        print(f"\r{bar}  {1000 * seconds / done:.1f} ms each ", end="", file=sys.stderr, flush=True)


def run(arguments: argparse.Namespace) -> int:
    """Detect as the command line asks; return the exit status."""
    detector = Detector(arguments.model, arguments.imgsz)
    size = arguments.batch or detector.batch or 1
    if detector.max_batch and size > detector.max_batch:
        raise InputError(f"--batch {size}: {arguments.model} was exported for batches up to {detector.max_batch}")
    frames = read(arguments.source)
    first = next(frames)
    output = Output(arguments.output, arguments.show)
    done, seconds = 0, 0.0
    try:
        for batch in batches(itertools.chain([first], frames), size):
            if batch[0].image is None:
                print(f"\rskipped, cannot be read: {batch[0].source}", file=sys.stderr)
                output.skipped.append(batch[0].source)
                continue
            start = time.perf_counter()
            images = [frame.image for frame in batch]
            results = detector(images, arguments.conf, arguments.iou, arguments.max_det, arguments.agnostic)
            seconds += time.perf_counter() - start
            done += len(batch)
            go_on = [output.add(f, rows, detector.names) for f, rows in zip(batch, results, strict=True)]
            show_progress(done if batch[-1].number is None else batch[-1].number + 1, batch[-1].total, seconds)
            if not all(go_on):
                break
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
    finally:
        output.close()
    boxes = sum(len(p["boxes"]) for p in output.predictions)
    each = f", {1000 * seconds / done:.1f} ms each" if done else ""
    print(f"{done} pictures{each}, {boxes} boxes, {len(output.skipped)} skipped: {output.folder}")
    return 0 if done else 1


def positive(text: str) -> int:
    """Return a whole number of at least 1, for argparse."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def fraction(text: str) -> float:
    """Return a number from 0 to 1, for argparse."""
    if not 0 <= (number := float(text)) <= 1:
        raise ValueError
    return number


def height_width(text: str) -> tuple[int, int]:
    """Return (height, width) of "480,640" or "640", for argparse."""
    height, *width = map(int, text.split(","))
    (width,) = width or [height]
    return height, width


def main() -> int:
    """Read the command line and run; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("model", type=Path, help="ONNX file of `yolo export format=onnx`, with or without nms=True")
    add("source", help="picture, video, folder of these, number of a camera, or address of a stream")
    add("--output", type=Path, default=Path("predictions"), help="folder for the results (default: predictions)")
    add("--batch", type=positive, help="pictures at a time (default: what the model was exported for, or 1)")
    add("--imgsz", type=height_width, help="size of the input of a dynamic model, 640 or 480,640 (height, width)")
    add("--conf", type=fraction, default=0.25, help="least confidence (default: 0.25)")
    add("--iou", type=fraction, default=0.7, help="overlap at which NMS drops a box (default: 0.7)")
    add("--max-det", type=positive, default=300, help="most boxes of a picture (default: 300)")
    add("--agnostic", action="store_true", help="NMS between classes too; it and --iou cannot change an nms=True model")
    add("--show", action="store_true", help="show the results in a window; q stops")
    try:
        return run(parser.parse_args())
    except InputError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
