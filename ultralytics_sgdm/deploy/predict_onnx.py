"""Detect with an exported ONNX model: onnxruntime, numpy and opencv are all it needs; the boxes are Ultralytics' own.

Pictures, videos, cameras and streams in; the same with boxes drawn, and predictions.json, out:

    python predict_onnx.py best.onnx picture.jpg
    python predict_onnx.py best.onnx pictures/ "more/*.png" --batch 8 --conf 0.4
    python predict_onnx.py best.onnx 0 --show

With the package installed, `yolo sgdm predict best.onnx pictures/ batch=8` is the same.
"""

from __future__ import annotations

import argparse
import ast
import glob
import inspect
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np

IMAGES = {f".{kind}" for kind in ("avif", "bmp", "dng", "heic", "heif", "jp2", "jpeg", "jpg", "mpo", "png", "webp")}
IMAGES |= {".tif", ".tiff"}
VIDEOS = {".asf", ".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
CLASS_OFFSET = 7680  # pixels between the boxes of two classes, so that NMS never compares them
MAX_CANDIDATES = 30000  # boxes of one picture that enter NMS
USUAL_FPS = 30.0  # for a stream that does not tell its own

T = TypeVar("T")


class InputError(Exception):
    """The model, the source, an argument or the output cannot be used; the message says why."""


class Frame(NamedTuple):
    """One picture (BGR uint8, (H, W, 3), or why there is none) and where it is from."""

    source: str
    image: Any
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
        try:
            import onnxruntime
        except ImportError as e:
            raise InputError("this needs onnxruntime: pip install onnxruntime") from e
        available = onnxruntime.get_available_providers()
        if not Path(path).is_file():
            raise InputError(f"model {path} {'is a folder' if Path(path).is_dir() else 'does not exist'}")
        if Path(path).suffix == ".pt":
            raise InputError(
                f"model {path} is a checkpoint; `yolo export model={path} format=onnx` makes the ONNX file"
            )
        try:
            self.session = onnxruntime.InferenceSession(path, providers=[p for p in PROVIDERS if p in available])
            meta = self.session.get_modelmeta().custom_metadata_map
            task = meta["task"]
            self.names: dict[int, str] = parse(meta, "names", numbered)
            self.stride: int = parse(meta, "stride", positive)
            exported_for: tuple[int, int] = parse(meta, "imgsz", lambda sides: (positive(sides[0]), positive(sides[1])))
            options: dict[str, Any] = parse({"args": "{}", **meta}, "args", dict)  # versions before 8.3 wrote none
            exported_batch: int = parse({"batch": "1", **meta}, "batch", positive)
            self.input = self.session.get_inputs()[0]
            batch, _, height, width = self.input.shape
        except Exception as e:  # onnxruntime's own classes have no common base
            reason = f"its metadata lacks {e}" if isinstance(e, KeyError) else first_line(e)
            raise InputError(f"{path} is no model that `yolo export format=onnx` wrote: {reason}") from e
        if task != "detect":
            raise InputError(f"{path} is a model of the task {task}, this takes detect")
        if meta.get("head") == "RTDETRDecoder":
            raise InputError(f"{path} is an RT-DETR, this takes YOLO")
        if meta.get("channels", "3") != "3":
            raise InputError(f"{path} takes pictures of {meta['channels']} channels, this has pictures of 3")
        self.path = path
        inside = options.get("nms") or meta.get("end2end") == "True"
        self.has_nms = bool(inside) or self.session.get_outputs()[0].shape[-1] == 6
        self.dynamic = isinstance(height, str)
        self.batch = batch if isinstance(batch, int) else None
        self.max_batch = self.batch or (exported_batch if options.get("nms") else None)
        self.size: tuple[int, int] = (imgsz or exported_for) if self.dynamic else (height, width)
        if any(side <= 0 or side % self.stride for side in self.size):
            raise InputError(f"imgsz {self.size} must be positive multiples of the model's stride {self.stride}")
        if imgsz and imgsz != self.size:
            raise InputError(f"imgsz {imgsz}: {path} was exported for {self.size} only; try dynamic=True")

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
        inputs = (inputs.astype(np.float32) / 255).astype(dtype)
        try:
            outputs = self.session.run(None, {self.input.name: inputs})[0]
        except Exception as e:
            raise InputError(f"{self.path} fails on an input of the shape {inputs.shape}: {first_line(e)}") from e
        if not self.has_nms and outputs.shape[1] != 4 + len(self.names):
            raise InputError(f"{self.path} has {outputs.shape[1] - 4} classes, its metadata names {len(self.names)}")
        results = []
        for output, image in zip(outputs.astype(np.float32), images, strict=False):
            rows = output[output[:, 4] > conf][:max_det] if self.has_nms else nms(output, conf, iou, max_det, agnostic)
            rows[:, :4] = to_picture(rows[:, :4], inputs.shape[2:], image.shape[:2])
            unknown = {*rows[:, 5].astype(int).tolist()} - self.names.keys()
            if unknown:
                raise InputError(f"{self.path} found the class {min(unknown)}, which its metadata does not name")
            results.append(rows)
        return results


def parse(meta: Mapping[str, str], key: str, kind: Callable[[Any], T]) -> T:
    """Return an entry of a model's metadata as `kind` makes it of the value that its text means."""
    text = meta[key]
    try:
        return kind(ast.literal_eval(text))
    except Exception as e:
        raise ValueError(f"its metadata has {key}={text[:40]}") from e


def numbered(names: Any) -> dict[int, str]:
    """Return class names by number, of a dictionary or a list."""
    pairs = enumerate(names) if isinstance(names, list) else names.items()
    return {int(number): str(name) for number, name in pairs}


def positive(number: Any) -> int:
    """Return a whole number of 1 or more."""
    if number != int(number) or number < 1:
        raise ValueError
    return int(number)


def first_line(error: Exception) -> str:
    """Return what an error says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


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


def is_live(source: str) -> bool:
    """Whether a source is the number of a camera or the address of a stream; what exists as a file is neither."""
    return not os.path.lexists(source) and ("://" in source or (source.isascii() and source.isdigit()))


def find(source: str) -> list[str]:
    """Return the files that `source` means.

    That is itself, the files of a folder, the lines of a list (.txt), or what a pattern (`*`, `?`, `[abc]`) matches.
    A pattern leaves out what an earlier run drew.

    Raises:
        InputError: If there is no such source, or no picture or video in it.
    """
    if is_live(source):
        return [source]
    path = Path(source)
    try:
        if path.is_dir() and source:
            files = sorted(map(str, path.iterdir()))
        elif os.path.lexists(source):
            files = [source]
        else:
            files = matches(source)
        if files == [source] and path.suffix.lower() == ".txt":
            return listed(path)
    except (OSError, UnicodeError) as e:
        reason = "it is no text in UTF-8; save it so" if isinstance(e, UnicodeError) else e.strerror or e
        raise InputError(f"source {source} cannot be read: {reason}") from e
    known = [f for kinds in (IMAGES, VIDEOS) for f in files if Path(f).suffix.lower() in kinds]
    if not known:
        hint = f"; the folders in it are searched by {str(path / '**')!r}" if path.is_dir() else ""
        raise InputError(f"source {source} holds no picture ({' '.join(sorted(IMAGES))}) or video{hint}")
    return known


def listed(path: Path) -> list[str]:
    """Return the sources that the lines of a list name, from the working folder or else from the list's own."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    if any("\0" in line for line in lines):
        raise UnicodeError
    if not any(lines):
        raise InputError(f"source {path} is empty; a list has pictures, one a line")
    return [s if os.path.lexists(s) or is_live(s) else str(path.parent / s) for s in lines if s]


def matches(pattern: str) -> list[str]:
    """Return the files that a pattern matches, sorted, without those that an earlier run drew."""
    for text in (pattern, pattern.replace("[", "[[]")):  # [ may be a letter of a folder's name
        found = glob.glob(text, recursive=True)  # noqa: PTH207 (an absolute pattern too)
        files = sorted(once(sorted(found, key=len)))  # ** goes round and round in a loop of links
        if files:
            break
    else:
        raise InputError(f"source {pattern or repr(pattern)} does not exist")
    drawn = {folder: drawn_in(folder) for folder in {Path(f).parent for f in files}}
    sources = [f for f in files if Path(f).name not in drawn[Path(f).parent]]
    if len(sources) < len(files):
        left_out = f"{len(files) - len(sources)} files that an earlier run drew are left out"
        if not sources:
            raise InputError(f"source {pattern}: {left_out}, which leaves none; name their folder to read them")
        print(f"{pattern}: {left_out}", file=sys.stderr)
    return sources


def drawn_in(folder: Path) -> set[str]:
    """Return the names of the files that an earlier run drew into `folder`, as its predictions.json tells."""
    try:
        content = json.loads((folder / "predictions.json").read_text(encoding="utf-8"))
        return {p["drawn"] for p in content["predictions"] if "drawn" in p}
    except (OSError, ValueError, KeyError, TypeError):  # none, or another program's
        return set()


def once(files: Sequence[str]) -> list[str]:
    """Return the files without repetitions, whatever way each was named; two links to one file are two."""
    folders = {folder: os.path.realpath(folder) for folder in {Path(f).parent for f in files}}
    first: dict[tuple[str, str], str] = {}
    for file in files:
        first.setdefault((folders[Path(file).parent], Path(file).name), file)
    return list(first.values())


def read(files: Sequence[str]) -> Iterator[Frame]:
    """Yield the pictures and the frames of the videos, cameras and streams that `find` returned."""
    for file in files:
        if Path(file).suffix.lower() in IMAGES and not is_live(file):
            yield Frame(file, read_picture(Path(file)), total=len(files))
        else:
            yield from read_video(file)


def read_picture(file: Path) -> np.ndarray | str:
    """Return a picture, upright and with pixels as Ultralytics reads them, or why it cannot be read."""
    try:
        content = np.frombuffer(file.read_bytes(), np.uint8)
    except OSError as e:
        return "a link to nothing" if file.is_symlink() and not file.exists() else e.strerror or str(e)
    if not content.size:
        return "empty"
    suffix = file.suffix.lower()
    image = None
    try:
        if suffix == ".avif" and content[4:8].tobytes() == b"ftyp":
            image = cv2.imdecode(content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
            image = image if image is None else turned(image, content.tobytes())
        elif suffix in {".tif", ".tiff"}:
            image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
            image = image[..., :3] if image is not None and image.shape[2:] > (2,) else None  # grey is read below
        if image is None:
            image = cv2.imdecode(content, cv2.IMREAD_COLOR)
    except cv2.error as e:
        return e.err or "no picture"
    if image is None:
        return "no picture that OpenCV reads, or one that is cut"
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    return image if image.dtype == np.uint8 else f"pixels of {image.dtype}, not of 8 or 16 bits"


def turned(image: np.ndarray, content: bytes) -> np.ndarray:
    """Turn an AVIF as the properties irot (quarters anticlockwise) and imir (mirror) of the file say."""
    properties = content.partition(b"mdat")[0]
    quarters, mirror = (re.search(b"\0\0\0\x09" + kind + b"(.)", properties, re.S) for kind in (b"irot", b"imir"))
    if quarters:
        image = np.rot90(image, quarters[1][0] & 3)
    if mirror:
        image = np.flip(image, mirror[1][0] & 1)
    return np.ascontiguousarray(image)


def read_video(source: str) -> Iterator[Frame]:
    """Yield the frames of a video file, camera or stream; one without picture if it cannot be opened."""
    try:
        source.encode()
    except UnicodeError:  # OpenCV would end the process
        yield Frame(source, "a name that is not UTF-8")
        return
    try:
        if not is_live(source):
            capture = cv2.VideoCapture(str(Path(source).absolute()))  # FFmpeg takes a:b.mp4 for an address
        else:
            capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
    except cv2.error:  # a number that is too large
        capture = cv2.VideoCapture()
    total, fps = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))), capture.get(cv2.CAP_PROP_FPS)
    number = 0
    try:
        while True:
            success, image = capture.read()
            if not success:
                break
            yield Frame(source, image, number, total, fps)
            number += 1
    finally:
        capture.release()
    if not number:
        yield Frame(source, "no video that can be opened")


def batches(frames: Iterator[Frame], size: int) -> Iterator[list[Frame]]:
    """Yield lists of up to `size` pictures or frames of one video; an unreadable one comes as a list of its own."""
    waiting: list[Frame] = []
    for frame in frames:
        if isinstance(frame.image, str):
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


def encode(picture: np.ndarray, suffix: str) -> tuple[str, bytes]:
    """Return a picture as a file's content, with the suffix: as JPEG or PNG where OpenCV cannot write `suffix` so."""
    for kind in (suffix, ".jpg", ".png"):
        try:
            success, content = cv2.imencode(kind, picture)
        except cv2.error:  # unknown to this build
            continue
        if success:
            return kind, content.tobytes()
    raise InputError(f"OpenCV cannot write a picture of {picture.shape[1]}x{picture.shape[0]} pixels")


def playable(fps: float) -> float:
    """Return a rate that MPEG-4 can hold, thousandths up to 65.535: streams tell 0, 90000 or no number."""
    if not 0.1 <= fps <= 1000:
        return USUAL_FPS
    return fps if fps < 65 else float(round(fps))


def check_window() -> None:
    """Open a window in a process of its own: without a display, some builds of OpenCV end the process.

    Raises:
        InputError: If there are no windows here.
    """
    code = "import cv2; cv2.namedWindow('predict')"
    if subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode:
        raise InputError(
            "show: no window can be opened: there is no display here, or OpenCV is opencv-python-headless; "
            "the pictures are written all the same without it"
        )


def taken(folder: Path) -> bool:
    """Make `folder`, or take it if it is empty, by a predictions.json in it; return whether it was free."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    try:
        (folder / "predictions.json").touch(exist_ok=False)
    except FileExistsError:  # of a run that began at the same time
        return False
    return True


class Output:
    """The folder of results: drawn pictures, a drawn video for each video, and predictions.json.

    Args:
        folder: Where to write; if it holds something already, the next free name (`folder2`, ...) is taken.
        show: Whether to show the drawn pictures in a window as well.

    Raises:
        InputError: If the folder cannot be written, or there is no display.
    """

    def __init__(self, folder: Path, show: bool) -> None:
        if show:
            check_window()
        if folder.name in {"", ".."}:
            folder = folder.resolve()
        try:
            str(folder.absolute()).encode()  # else OpenCV would end the process
            if folder.exists() and not folder.is_dir():
                raise NotADirectoryError(None, "it is a file")
            numbered = itertools.chain([folder], (folder.parent / f"{folder.name}{i}" for i in itertools.count(2)))
            self.folder = next(f for f in numbered if taken(f))
        except (OSError, UnicodeError) as e:
            reason = "its name is not UTF-8" if isinstance(e, UnicodeError) else e.strerror or e
            raise InputError(f"output {folder} cannot be written: {reason}") from e
        self.show = show
        self.predictions: list[dict[str, Any]] = []
        self.skipped: list[dict[str, str]] = []
        self._names: dict[str, int] = {}
        self._video: cv2.VideoWriter | None = None
        self._video_file = Path()
        self._video_of: tuple[str, int, int] | None = None

    def add(self, frame: Frame, rows: np.ndarray, names: dict[int, str]) -> bool:
        """Write one result; return False when the user pressed q in the window."""
        height, width = frame.image.shape[:2]
        boxes = [
            {"class": int(c), "name": names[int(c)], "confidence": round(float(p), 5), "box": np.round(b, 3).tolist()}
            for *b, p, c in rows
        ]
        number = {} if frame.number is None else {"frame": frame.number}
        result = {"source": frame.source, **number, "width": width, "height": height, "boxes": boxes}
        self.predictions.append(result)
        picture = draw(frame.image, rows, names)
        if frame.number is None:
            name = Path(frame.source).name
            suffix, content = encode(picture, Path(name).suffix)
            file = self._new(name if name.endswith(suffix) else name + suffix)
            try:
                file.write_bytes(content)
            except OSError as e:
                file.unlink(missing_ok=True)
                raise InputError(f"{file} cannot be written: {e.strerror or e}") from e
        else:
            file = self._write_frame(frame, picture)
        result["drawn"] = file.name
        if self.show:
            cv2.imshow(ascii(frame.source)[1:-1], picture)
            return cv2.waitKey(1) != ord("q")
        return True

    def _new(self, name: str) -> Path:
        """Make an empty file; it is called `name`, or name-2, ... if another result is called so."""
        stem, suffix = Path(name).stem, Path(name).suffix
        while True:
            number = self._names[name] = self._names.get(name, 0) + 1
            file = self.folder / (name if number == 1 else f"{stem}-{number}{suffix}")
            try:
                file.touch(exist_ok=False)
                return file
            except FileExistsError:  # as the file system sees it, which may not tell A.jpg from a.jpg
                continue
            except OSError as e:
                raise InputError(f"{file} cannot be written: {e.strerror or e}") from e

    def _write_frame(self, frame: Frame, picture: np.ndarray) -> Path:
        """Add a frame to the video of its source; another size, as streams may have, begins another video."""
        height, width = picture.shape[:2]
        if self._video is None or self._video_of != (frame.source, width, height):
            self._finish_video()
            name = "stream.mp4" if is_live(frame.source) else Path(frame.source).name
            self._video_file = self._new(name if name.lower().endswith(".mp4") else f"{name}.mp4")
            path, codec = str(self._video_file.absolute()), cv2.VideoWriter.fourcc(*"mp4v")
            self._video = cv2.VideoWriter(path, codec, playable(frame.fps), (width, height))
            if not self._video.isOpened():
                raise InputError(f"{self._video_file}: OpenCV cannot write a video of {width}x{height} pixels here")
            self._video_of = (frame.source, width, height)
        self._video.write(picture)
        return self._video_file

    def _finish_video(self) -> None:
        video, self._video = self._video, None
        if video is not None and video.isOpened():
            video.release()
            if not cv2.VideoCapture(str(self._video_file.absolute())).isOpened():  # OpenCV does not tell of a full disk
                raise InputError(f"{self._video_file} could not be written to its end; is the disk full?")

    def close(self) -> None:
        """Finish the video and write predictions.json."""
        content = {"predictions": self.predictions, "skipped": self.skipped}
        try:
            self._finish_video()
        finally:
            try:
                (self.folder / "predictions.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
            except OSError as e:
                raise InputError(f"{self.folder}/predictions.json cannot be written: {e.strerror or e}") from e


def show_progress(done: int, total: int, seconds: float) -> None:
    """Draw the progress bar on standard error, if that is a terminal."""
    if sys.stderr.isatty():
        bar = f"[{'#' * (30 * done // total):<30}] {done}/{total}" if total else f"{done}"
        print(f"\r{bar}  {1000 * seconds / done:.1f} ms each ", end="", file=sys.stderr, flush=True)


def predict(
    model: Path,
    *sources: str,
    output: Path = Path("predictions"),
    batch: int | None = None,
    imgsz: str | None = None,
    conf: float = 0.25,
    iou: float = 0.7,
    max_det: int = 300,
    agnostic: bool = False,
    show: bool = False,
) -> int:
    """Detect with an exported ONNX model; the boxes are those of Ultralytics.

    The output folder gets the pictures with boxes drawn, and predictions.json, which names for each source the file
    `drawn`: the second x.jpg is x-2.jpg. Nothing is overwritten: if the folder holds something already, the next free
    name is taken. A file is read once, however often it is named; a pattern leaves out what an earlier run drew.

    Args:
        model: ONNX file of `yolo export format=onnx`, with or without nms=True.
        sources: Pictures, videos, folders or lists (.txt) of these, patterns as "*.png", cameras (0), streams.
        output: Folder for the results.
        batch: Pictures at a time; what the model was exported for, or 1, unless given.
        imgsz: Size of the input of a dynamic model, 640 or 480,640 (height, width).
        conf: Least confidence of a box.
        iou: Overlap at which NMS drops a box.
        max_det: Most boxes of a picture.
        agnostic: NMS between classes too; it and iou cannot change a model with nms=True.
        show: Show the results in a window; q stops.

    Returns:
        Exit status: 1 if nothing could be read, 130 after Ctrl-C.

    Raises:
        InputError: If the model, a source, an argument or the output cannot be used.
    """
    if not sources:
        raise InputError("name a source: a picture, a video, a folder, a pattern, a camera or a stream")
    for name, share in (("conf", conf), ("iou", iou)):
        if not 0 <= share <= 1:
            raise InputError(f"{name}={share} must be from 0 to 1")
    for name, count in (("batch", batch), ("max_det", max_det)):
        if count is not None and count < 1:
            raise InputError(f"{name}={count} must be 1 or more")
    files = once([file for source in sources for file in find(source)])
    detector = Detector(model, height_width(imgsz))
    if detector.max_batch and batch and batch > detector.max_batch:
        raise InputError(f"batch={batch}: {model} was exported for batches up to {detector.max_batch}")
    if detector.batch and batch and batch != detector.batch:
        print(f"{model} takes {detector.batch} pictures at a time: batch={batch} is filled up to it", file=sys.stderr)
    if detector.has_nms and (agnostic or iou != inspect.signature(predict).parameters["iou"].default):
        print(f"{model} has its NMS inside: agnostic and iou have no effect", file=sys.stderr)
    results = Output(output, show)
    status, done, seconds = 0, 0, 0.0
    try:
        for group in batches(read(files), batch or detector.batch or 1):
            if isinstance(group[0].image, str):
                print(f"\rskipped, {group[0].image}: {group[0].source}", file=sys.stderr)
                results.skipped.append({"source": group[0].source, "reason": group[0].image})
                continue
            start = time.perf_counter()
            found = detector([frame.image for frame in group], conf, iou, max_det, agnostic)
            seconds += time.perf_counter() - start
            done += len(group)
            go_on = [results.add(f, rows, detector.names) for f, rows in zip(group, found, strict=True)]
            show_progress(done if group[-1].number is None else group[-1].number + 1, group[-1].total, seconds)
            if not all(go_on):
                break
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        status = 130
    finally:
        results.close()
    boxes = sum(len(p["boxes"]) for p in results.predictions)
    each = f", {1000 * seconds / done:.1f} ms each" if done else ""
    print(f"{done} pictures{each}, {boxes} boxes, {len(results.skipped)} skipped: {results.folder}")
    return status or (0 if done else 1)


def height_width(text: str | None) -> tuple[int, int] | None:
    """Return (height, width) of "480,640" or "640".

    Raises:
        InputError: If it is none.
    """
    if text is None:
        return None
    match = re.fullmatch(r"\s*\(?(\d+)(?:\s*[,x]\s*(\d+))?\)?\s*", str(text))
    if not match:
        raise InputError(f"imgsz={text} must be 640, or height and width such as 480,640")
    return int(match[1]), int(match[2] or match[1])


def main() -> int:
    """Read the command line and run; return the exit status."""
    documentation = inspect.getdoc(predict) or ""
    parser = argparse.ArgumentParser(description=documentation.split("\n\nArgs:")[0])
    meanings = dict(re.findall(r"^ {4}(\w+): (.*)", documentation, re.M))
    for name, p in inspect.signature(predict).parameters.items():
        if name == "model":
            parser.add_argument(name, type=Path, help=meanings[name])
        elif name == "sources":
            parser.add_argument(name, nargs="+", help=meanings[name])
        elif isinstance(p.default, bool):
            parser.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=meanings[name])
        else:
            kind = {"batch": int, "imgsz": str}.get(name, type(p.default))
            default = "" if p.default is None else f" (default: {p.default})"
            kind = Path if isinstance(p.default, Path) else kind
            parser.add_argument(
                f"--{name.replace('_', '-')}", type=kind, default=p.default, help=meanings[name] + default
            )
    arguments = vars(parser.parse_args())
    try:
        return predict(arguments.pop("model"), *arguments.pop("sources"), **arguments)
    except InputError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
