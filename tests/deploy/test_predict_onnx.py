"""deploy/predict_onnx.py: the boxes of Ultralytics without Ultralytics."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import save_detector
from PIL import Image, features
from ultralytics import YOLO
from ultralytics.data.augment import LetterBox
from ultralytics.utils import patches

from ultralytics_sgdm.data import make_shapes

pytestmark = pytest.mark.slow

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SCRIPT = Path(__file__).parents[2] / "ultralytics_sgdm/deploy/predict_onnx.py"
PREDICT = runpy.run_path(str(SCRIPT))
BLOCK = "import sys, runpy; sys.modules.update(torch=None, torchvision=None, ultralytics=None, ultralytics_sgdm=None);"
SIZES = (
    (480, 640),
    (640, 480),
    (97, 301),
    (64, 64),
    (65, 63),
    (50, 21),
    (1080, 1920),
    (300, 2),
    (128, 192),
    (1, 1),
)
THIN = (4000, 10)  # the short side is less than half a pixel at 96: older versions of Ultralytics stop there
EXPORTS = {
    "fixed": {},
    "fixed batch": {"batch": 4},
    "dynamic": {"dynamic": True},
    "nms": {"nms": True},
    "nms dynamic": {"nms": True, "dynamic": True, "batch": 4},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("predict")


def letterboxed(size):
    try:
        return LetterBox((96, 96))(image=np.zeros((*size, 3), np.uint8)).any()
    except cv2.error:
        return False


@pytest.fixture(scope="module")
def pictures(folder):
    """Pictures of many aspect ratios, in memory."""
    sizes = [*SIZES, THIN] if letterboxed(THIN) else SIZES
    make_shapes(folder / "shapes", train=0, val=len(sizes), size=160)
    files = sorted((folder / "shapes/images/val").glob("*.jpg"))
    return [cv2.resize(cv2.imread(str(f)), (w, h)) for f, (h, w) in zip(files, sizes, strict=True)]


@pytest.fixture(scope="module")
def models(folder):
    """An exported model of each kind."""
    detector = save_detector("yolov8n-sgdm.yaml", folder)
    files = {}
    for name, options in EXPORTS.items():
        file = YOLO(detector).export(format="onnx", imgsz=96, simplify=False, verbose=False, **options)
        files[name] = Path(file).rename(folder / f"{name}.onnx")
    return files


def check_boxes(model, detector, batch, **options):
    """Compare with `yolo predict` of the same file; return the number of boxes."""
    theirs = model.predict(batch, imgsz=96, verbose=False, batch=len(batch), **options)
    count = 0
    for ours, result in zip(detector(batch, **options), theirs, strict=True):
        boxes = result.boxes.data.numpy()
        assert ours.shape == boxes.shape
        assert np.abs(ours[:, :4] - boxes[:, :4]).max(initial=0) < 1
        assert np.abs(ours[:, 4] - boxes[:, 4]).max(initial=0) < 1e-4
        assert (ours[:, 5] == boxes[:, 5]).all()
        count += len(boxes)
    return count


@pytest.mark.parametrize("kind", ["fixed", "dynamic", "nms", "nms dynamic"])
def test_boxes_are_those_of_ultralytics(models, pictures, kind):
    model, detector = YOLO(models[kind], task="detect"), PREDICT["Detector"](models[kind])
    assert detector.names == {0: "0", 1: "1", 2: "2"}
    assert sum(check_boxes(model, detector, [picture]) for picture in pictures) > 50
    if "dynamic" in kind:
        assert check_boxes(model, detector, pictures[:4]) > 10
        assert check_boxes(model, detector, [pictures[0]] * 3) > 10


def test_nms_takes_its_settings_as_ultralytics_does(models, pictures):
    model, detector = YOLO(models["dynamic"], task="detect"), PREDICT["Detector"](models["dynamic"])
    loose = check_boxes(model, detector, pictures[:1], conf=0.2, iou=0.9)
    assert check_boxes(model, detector, pictures[:1], conf=0.2, iou=0.3) < loose
    assert check_boxes(model, detector, pictures[:1], conf=0.2, iou=0.9, max_det=5) == 5
    both = {"conf": 0.2, "iou": 0.3}
    ours = detector(pictures[:1], **both, agnostic=True)[0]
    theirs = model.predict(pictures[0], imgsz=96, verbose=False, agnostic_nms=True, **both)[0].boxes.data.numpy()
    np.testing.assert_allclose(ours, theirs, atol=0.1)
    assert check_boxes(model, detector, pictures[:1], conf=1.0) == 0


def test_a_model_of_fixed_batch_takes_what_is_left_over(models, pictures):
    four, one = (PREDICT["Detector"](models[kind]) for kind in ("fixed batch", "fixed"))
    for rows, picture in zip(four(pictures[:3]), pictures[:3], strict=True):
        np.testing.assert_allclose(rows, one([picture])[0], atol=1e-2)


@pytest.fixture(scope="module")
def end2end(folder):
    """YOLO26, whose export without NMS gives the boxes of its head that needs none."""
    detector = save_detector("yolo26n.yaml", folder)
    options = {"imgsz": 96, "simplify": False, "verbose": False, "nms": False}
    return Path(YOLO(detector).export(format="onnx", **options)).rename(folder / "end2end.onnx")


def test_a_model_that_needs_no_nms(end2end, pictures):
    model, detector = YOLO(end2end, task="detect"), PREDICT["Detector"](end2end)
    assert detector.has_nms
    assert sum(check_boxes(model, detector, [picture]) for picture in pictures) > 50
    assert check_boxes(model, detector, pictures[:1], max_det=3, conf=0.01) == 3


@pytest.fixture
def with_metadata(models, tmp_path):
    """Return a copy of a model with entries of its metadata set, or dropped (None)."""

    def change(kind="fixed", **entries):
        model = onnx.load(models[kind])
        meta = {**{p.key: p.value for p in model.metadata_props}, **entries}
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, {k: v for k, v in meta.items() if v is not None})
        onnx.save(model, tmp_path / "changed.onnx")
        return tmp_path / "changed.onnx"

    return change


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"task": None}, "wrote: its metadata lacks 'task'"),
        ({"names": None}, "wrote: its metadata lacks 'names'"),
        ({"stride": None}, "wrote: its metadata lacks 'stride'"),
        ({"imgsz": None}, "wrote: its metadata lacks 'imgsz'"),
        ({"names": "garbage"}, "wrote: its metadata has names=garbage"),
        ({"names": "5"}, "wrote: its metadata has names=5"),
        ({"stride": "0"}, "wrote: its metadata has stride=0"),
        ({"imgsz": "[96]"}, r"wrote: its metadata has imgsz=\[96\]"),
        ({"args": "["}, r"wrote: its metadata has args=\["),
        ({"head": "RTDETRDecoder"}, "is an RT-DETR, this takes YOLO"),
        ({"channels": "1"}, "takes pictures of 1 channels"),
    ],
)
def test_metadata_that_is_not_ultralytics(with_metadata, entries, message):
    with pytest.raises(PREDICT["InputError"], match=message):
        PREDICT["Detector"](with_metadata(**entries))


def test_metadata_of_other_versions(with_metadata, pictures):
    listed = PREDICT["Detector"](with_metadata(names="['a', 'b', 'c']", args=None, end2end=None, head=None, batch=None))
    assert listed.names == {0: "a", 1: "b", 2: "c"} and not listed.has_nms
    with pytest.raises(PREDICT["InputError"], match="has 3 classes, its metadata names 1"):
        PREDICT["Detector"](with_metadata(names="['a']"))(pictures[:1])
    inside = PREDICT["Detector"](with_metadata("nms", names="['a']", args=None, end2end=None))
    assert inside.has_nms  # rows of six figures
    with pytest.raises(PREDICT["InputError"], match=r"found the class [12], which its metadata does not name"):
        inside(pictures[:1])


@pytest.fixture
def source(tmp_path, pictures):
    """A folder with pictures, a video, and files that are none."""
    source = tmp_path / "source"
    source.mkdir()
    for name, picture in (("a.jpg", pictures[0]), ("a.png", pictures[1]), ("c.jpg", pictures[3])):
        cv2.imwrite(str(source / name), picture)
    (source / "b.jpg").write_bytes(b"no picture")
    (source / "empty.png").touch()
    (source / "link.jpg").symlink_to("nowhere.jpg")
    (source / "folder.jpg").mkdir()
    (source / "cut.jpg").write_bytes((source / "a.jpg").read_bytes()[:100])
    (source / "broken.mp4").write_bytes(b"no video")
    (source / "notes.txt").write_text("not asked for")
    video = cv2.VideoWriter(str(source / "film.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (192, 128))
    for _ in range(5):
        video.write(pictures[8])
    video.release()
    return source


def test_command_line_without_torch_and_ultralytics(shell, models, source, tmp_path):
    def run(*arguments, status=0):
        code = (
            f"{BLOCK} sys.argv[:] = {list(map(str, arguments))!r}; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
        )
        return shell(sys.executable, "-c", code, cwd=tmp_path, status=status)

    out = run("predict_onnx.py", models["dynamic"], source, source / "a.*", "--batch", 2)
    assert "8 pictures" in out and "6 skipped" in out
    results = tmp_path / "predictions"
    assert {f.name for f in results.iterdir()} == {"a.jpg", "a.png", "c.jpg", "film.mp4", "predictions.json"}
    content = json.loads((results / "predictions.json").read_text())
    assert [p["frame"] for p in content["predictions"] if "frame" in p] == [0, 1, 2, 3, 4]
    assert {Path(s["source"]).name: s["reason"] for s in content["skipped"]} == {
        "b.jpg": "no picture that OpenCV reads, or one that is cut",
        "cut.jpg": "no picture that OpenCV reads, or one that is cut",
        "empty.png": "empty",
        "folder.jpg": "Is a directory",
        "link.jpg": "a link to nothing",
        "broken.mp4": "no video that can be opened",
    }
    assert all(f"skipped, {s['reason']}: {s['source']}" in out for s in content["skipped"])
    first = content["predictions"][0]
    assert (first["source"], first["width"], first["height"]) == (str(source / "a.jpg"), 640, 480)
    detector = PREDICT["Detector"](models["dynamic"])
    expected = detector([cv2.imread(str(source / n)) for n in ("a.jpg", "a.png")])[0]
    got = [[*b["box"], b["confidence"], b["class"]] for b in first["boxes"]]
    np.testing.assert_allclose(got, expected, atol=1e-3)
    assert (cv2.imread(str(results / "a.jpg")) != cv2.imread(str(source / "a.jpg"))).any()
    assert cv2.VideoCapture(str(results / "film.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 5

    run("predict_onnx.py", models["nms"], source / "a.jpg")  # a second run overwrites nothing
    assert json.loads((results / "predictions.json").read_text()) == content
    assert (tmp_path / "predictions2/a.jpg").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dynamic", "nowhere.jpg"], "source nowhere.jpg does not exist"),
        (["dynamic", "."], "holds no picture"),
        (["missing.onnx", "0"], "model missing.onnx does not exist"),
        ([__file__, "0"], "is no model that `yolo export format=onnx` wrote"),
        (["dynamic", "0", "--output", "/proc/nowhere"], "output /proc/nowhere cannot be written"),
        (["dynamic", "*.png"], "source *.png does not exist"),
        (["dynamic", "0", "--conf", "1.5"], "conf=1.5 must be from 0 to 1"),
        (["dynamic", "0", "--batch", "0"], "batch=0 must be 1 or more"),
        (["dynamic", "0", "--imgsz", "big"], "imgsz=big must be 640, or height and width"),
        (["dynamic", "0", "--imgsz", "100"], "multiples of the model's stride 32"),
        (["fixed", "0", "--imgsz", "64"], "was exported for (96, 96) only"),
        (["fixed", "0", "--batch", "2"], "was exported for batches up to 1"),
        (["nms dynamic", "0", "--batch", "5"], "was exported for batches up to 4"),
    ],
)
def test_mistakes_are_told_in_one_line(models, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    arguments[0] = str(models.get(arguments[0], arguments[0]))
    monkeypatch.setattr(sys, "argv", ["predict_onnx.py", *arguments])
    assert PREDICT["main"]() == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_told_how_it_becomes_onnx(tmp_path):
    (tmp_path / "best.pt").touch()
    with pytest.raises(PREDICT["InputError"], match=r"best\.pt is a checkpoint; `yolo export model=\S+ format=onnx`"):
        PREDICT["Detector"](tmp_path / "best.pt")


def test_sources_are_what_exists_and_each_is_read_once(tmp_path, monkeypatch):
    def found(*sources):
        return PREDICT["once"]([f for source in sources for f in PREDICT["find"](source)])

    monkeypatch.chdir(tmp_path)
    for file in (
        "2024/p.JPG",
        "2024/q.png",
        "br[1]/p.png",
        "deep/2024/x.jpg",
        "runs/a.jpg",
        "runs/own.jpg",
        "a=b*.png",
    ):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).touch()
    Path("0").touch()
    Path("runs/predictions.json").write_text('{"predictions": [{"drawn": "a.jpg"}, {"source": "b.jpg"}]}')
    assert found("2024") == ["2024/p.JPG", "2024/q.png"] and found("2025", "rtsp://x/y.jpg") == [
        "2025",
        "rtsp://x/y.jpg",
    ]
    assert found("2024/q.png", "2024", str(tmp_path / "2024"), "**/*.png", "2024/../2024/p.JPG", "a=b*.png") == [
        "2024/q.png", "2024/p.JPG", "a=b*.png", "br[1]/p.png"
    ]  # fmt: skip
    Path("2024/loop").symlink_to(".")
    assert found("2024/**/*.png") == ["2024/q.png"]
    assert found("br[1]/*.png") == found("br[[]1]/?.png") == ["br[1]/p.png"]
    assert found("*/*.jpg") == ["runs/own.jpg"] and found("runs") == ["runs/a.jpg", "runs/own.jpg"]
    Path("2024/list.txt").write_text("\ufeffq.png\r\n\nbr[1]/p.png\nnowhere.jpg\n", encoding="utf-8")
    assert found("2024/list.txt") == ["2024/q.png", "br[1]/p.png", "2024/nowhere.jpg"]
    Path("utf16.txt").write_text("x.jpg", encoding="utf-16-le")
    for source, message in {
        "0": "source 0 holds no picture",
        "": "source '' does not exist",
        "²": "source ² does not exist",
        "deep": "or video; the folders in it are searched by 'deep/**'",
        "runs/a*": "1 files that an earlier run drew are left out, which leaves none; name their folder",
        "utf16.txt": "source utf16.txt cannot be read: it is no text in UTF-8; save it so",
    }.items():
        with pytest.raises(PREDICT["InputError"]) as error:
            found(source)
        assert message in str(error.value)
    monkeypatch.setattr(Path, "iterdir", lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(PREDICT["InputError"], match="source runs cannot be read: Permission denied"):
        found("runs")


def test_pictures_are_read_as_ultralytics_reads_them(tmp_path, pictures):
    picture = pictures[0][:60, :80]
    wide = picture.astype(np.uint16) * 16  # a picture of 12 bits in 16
    for suffix in ("png", "tif", "jp2", "webp", "bmp"):
        kinds = {"colour": picture, "alpha": np.dstack([picture, picture[..., 0]]), "grey": picture[..., 0]}
        if suffix in {"png", "tif", "jp2"}:
            kinds |= {
                f"{name}16": np.dstack([wide, wide])[..., :n].squeeze() for name, n in (("wide", 3), ("greyish", 1))
            }
        for name, content in kinds.items():
            assert cv2.imwrite(str(tmp_path / f"{name}.{suffix}"), content)
    colours = Image.fromarray(picture)
    colours.convert("CMYK").save(tmp_path / "cmyk.jpg")
    colours.quantize(16).save(tmp_path / "palette.png")
    colours.convert("LA").save(tmp_path / "la.tif")
    colours.save(tmp_path / "pages.tif", save_all=True, append_images=[colours])
    kinds = [
        "jpg",
        "tif",
        "png",
        "webp",
        *(["avif"] if features.check("avif") and cv2.haveImageWriter("x.avif") else []),
    ]
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        for kind in kinds:
            colours.save(tmp_path / f"turned{turn}.{kind}", exif=exif)
    shutil.copy(tmp_path / "turned6.jpg", tmp_path / "jpeg.avif")
    shutil.copy(tmp_path / "turned6.jpg", tmp_path / "m.mpo")
    as_stored = patches.imread(tmp_path / "alpha.tif").shape[2] == 4  # older versions: every TIFF as it is in the file
    for file in tmp_path.iterdir():
        if file.suffix == ".tif" and as_stored:
            continue
        np.testing.assert_array_equal(PREDICT["read_picture"](file), patches.imread(file), err_msg=file.name)
    cv2.imwrite(str(tmp_path / "float.tif"), picture.astype(np.float32))
    assert PREDICT["read_picture"](tmp_path / "float.tif") == "pixels of float32, not of 8 or 16 bits"


@pytest.fixture
def add(tmp_path):
    """Write a result; return the name of its file, and the output."""
    output = PREDICT["Output"](tmp_path / "out", False)

    def add(source, number=None, size=(64, 48), fps=10.0):
        image = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8)
        output.add(PREDICT["Frame"](str(source), image, number, 2, fps), np.zeros((0, 6)), {})
        return output.predictions[-1]["drawn"]

    add.output = output
    return add


def frames(file):
    video = cv2.VideoCapture(str(file))
    return video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FPS)


def test_each_result_has_a_file_of_its_own(add):
    names = ("a/x.jpg", "b/x.jpg", "c/x.jpg", "x-2.jpg", "x.dng", "y/x.dng", "x.dng.jpg", "UP.JPG", "predictions.json")
    assert [add(name) for name in names] == [
        "x.jpg", "x-2.jpg", "x-3.jpg", "x-2-2.jpg", "x.dng.jpg", "x.dng-2.jpg", "x.dng-3.jpg", "UP.JPG",
        "predictions.json.jpg",
    ]  # fmt: skip
    assert [add(f"{n}/v.{s}", i) for n, s in (("a", "mp4"), ("b", "mp4"), ("b", "MP4"), ("c", "avi")) for i in (0, 1)][
        ::2
    ] == ["v.mp4", "v-2.mp4", "v.MP4", "v.avi.mp4"]
    live = [("0", 0.0), ("1", 90000.0), ("rtsp://x/y", float("nan")), ("rtsp://z/y.mp4", 1000 / 7)]
    assert [add(source, 0, fps=fps) for source, fps in live] == [f"stream{n}.mp4" for n in ("", "-2", "-3", "-4")]
    assert add("rtsp://z/y.mp4", 1, size=(32, 32)) == "stream-5.mp4"  # a stream that changes its size
    add.output.close()
    folder = add.output.folder
    drawn = [p["drawn"] for p in json.loads((folder / "predictions.json").read_text())["predictions"]]
    assert {f.name for f in folder.iterdir()} == {*drawn, "predictions.json"} and len(drawn) == 22
    assert [frames(folder / f"v{n}.mp4") for n in ("", "-2", ".avi")] == [(2, 64, 10)] * 3
    rates = [frames(folder / f"stream{n}.mp4")[2] for n in ("", "-2", "-3", "-4", "-5")]
    assert rates == [30, 30, 30, 143, 10]


def test_names_are_told_apart_as_the_file_system_does(add, monkeypatch):
    touch = Path.touch
    monkeypatch.setattr(Path, "touch", lambda self, **o: touch(self.with_name(self.name.lower()), **o))
    assert [add("X.jpg"), add("x.jpg"), add("Predictions.JPG")] == ["X.jpg", "x-2.jpg", "Predictions.JPG"]


@pytest.mark.parametrize(
    ("suffix", "size", "taken"),
    [(".webp", (17000, 1), ".jpg"), (".jpg", (66000, 1), ".png"), (".heic", (9, 9), ".jpg")],
)
def test_a_picture_that_opencv_cannot_write_so_is_written_otherwise(suffix, size, taken):
    picture = np.zeros((*size[::-1], 3), np.uint8)
    kind, content = PREDICT["encode"](picture, suffix)
    assert kind == taken and cv2.imdecode(np.frombuffer(content, np.uint8), 1).shape == picture.shape


def test_what_cannot_be_written_is_told(add, tmp_path):
    resource = pytest.importorskip("resource")
    add("v.mp4", 0)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))  # as a full disk
    try:
        with pytest.raises(PREDICT["InputError"], match=r"out/x\.png cannot be written: File too large"):
            add("x.png")
        with pytest.raises(
            PREDICT["InputError"], match=r"out/v\.mp4 could not be written to its end; is the disk full"
        ):
            add("w.mp4", 0)
        add.output.skipped.append({"source": "x" * 1000})
        with pytest.raises(PREDICT["InputError"], match=r"predictions\.json cannot be written: File too large"):
            add.output.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert {f.name for f in (tmp_path / "out").iterdir()} == {"v.mp4", "predictions.json"}
    with pytest.raises(PREDICT["InputError"], match="OpenCV cannot write a video of 1x1 pixels here"):
        add("w.mp4", 0, size=(1, 1))


def test_output_may_be_the_working_folder_and_no_file(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "file.jpg").touch()
    monkeypatch.chdir(tmp_path / "here")
    for folder, taken in ((".", "here"), (".", "here2"), ("../here", "here3")):
        assert PREDICT["Output"](Path(folder), False).folder.resolve() == tmp_path.resolve() / taken
    mkdir = Path.mkdir
    with monkeypatch.context() as m:  # another run takes the folder at the same moment
        m.setattr(Path, "mkdir", lambda p, **o: (mkdir(p, **o), p.name == "new" and (p / "predictions.json").touch()))
        assert PREDICT["Output"](Path("new"), False).folder == Path("new2")
    for folder, reason in (
        ("../file.jpg", "it is a file"),
        ("\udcff", "its name is not UTF-8"),
        ("../file.jpg/x", "Not a directory"),
    ):
        with pytest.raises(PREDICT["InputError"], match=f"output {folder} cannot be written: {reason}"):
            PREDICT["Output"](Path(folder), False)


def test_a_source_that_cannot_be_opened_as_video_is_told():
    for source in ("9" * 20, "http://127.0.0.1:9/x.jpg"):
        assert [f.image for f in PREDICT["read"]([source])] == ["no video that can be opened"]
    assert [f.image for f in PREDICT["read"](["\udcff.mp4"])] == ["a name that is not UTF-8"]


def test_another_task_and_a_missing_display_are_told(folder, models, monkeypatch):
    monkeypatch.chdir(folder)  # where a model of a YAML is exported to
    file = Path(YOLO("yolov8n-cls.yaml").export(format="onnx", imgsz=32, simplify=False, verbose=False))
    with pytest.raises(PREDICT["InputError"], match="is a model of the task classify, this takes detect"):
        PREDICT["predict"](file, "0")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(PREDICT["InputError"], match="there is no display here"):
        PREDICT["predict"](models["fixed"], "0", show=True)
    monkeypatch.setenv("DISPLAY", ":77")  # where no server listens, Qt ends the process
    with pytest.raises(PREDICT["InputError"], match="there is no display here"):
        PREDICT["predict"](models["fixed"], "0", show=True)


def test_it_is_a_command_of_yolo_too(command, mistake, models, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("a[1.jpg", pictures[0])
    cv2.imwrite("b=2.jpg", pictures[1])
    status, printed, error = command("sgdm", "predict", models["fixed batch"], "a[1.jpg", "b=2.jpg", "batch=2")
    assert status == 0 and printed.startswith("2 pictures")
    assert "takes 4 pictures at a time: batch=2 is filled up to it" in error
    assert {f.name for f in Path("predictions").iterdir()} == {"a[1.jpg", "b=2.jpg", "predictions.json"}
    assert mistake("predict", models["fixed"], "nowhere.jpg") == "source nowhere.jpg does not exist"
    assert "has no argument source=; sources are written by themselves: yolo sgdm predict MODEL a.jpg" in mistake(
        "predict", models["fixed"], "source=a.jpg"
    )
    assert "agnostic and iou have no effect" in command("sgdm", "predict", models["nms"], "b=2.jpg", "iou=0.5")[2]
