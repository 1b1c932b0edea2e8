"""What deploy/predict_onnx.py reads and writes."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, features
from ultralytics.utils import patches

pytestmark = pytest.mark.slow

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SCRIPT = Path(__file__).parents[2] / "ultralytics_sgdm/deploy/predict_onnx.py"
PREDICT = runpy.run_path(str(SCRIPT))
BLOCK = "import sys, runpy; sys.modules.update(torch=None, torchvision=None, ultralytics=None, ultralytics_sgdm=None);"


@pytest.fixture
def source(tmp_path, images):
    """A folder with images, a video, and files that are none."""
    source = tmp_path / "source"
    source.mkdir()
    for name, image in (("a.jpg", images[0]), ("a.png", images[1]), ("c.jpg", images[3])):
        cv2.imwrite(str(source / name), image)
    (source / "b.jpg").write_bytes(b"no image")
    (source / "empty.png").touch()
    (source / "link.jpg").symlink_to("nowhere.jpg")
    (source / "folder.jpg").mkdir()
    (source / "cut.jpg").write_bytes((source / "a.jpg").read_bytes()[:100])
    (source / "broken.mp4").write_bytes(b"no video")
    (source / "notes.txt").write_text("not asked for")
    video = cv2.VideoWriter(str(source / "film.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (192, 128))
    for _ in range(5):
        video.write(images[8])
    video.release()
    return source


def test_command_line_without_torch_and_ultralytics(shell, models, source, tmp_path):
    def run(*arguments, status=0):
        code = (
            f"{BLOCK} sys.argv[:] = {list(map(str, arguments))!r}; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
        )
        return shell(sys.executable, "-c", code, cwd=tmp_path, status=status)

    out = run("predict_onnx.py", models["dynamic"], source, source / "a.*", "batch=2")
    assert "images: 8, " in out and "skipped: 6," in out
    results = tmp_path / "predictions"
    assert {f.name for f in results.iterdir()} == {"a.jpg", "a.png", "c.jpg", "film.mp4", "predictions.json"}
    content = json.loads((results / "predictions.json").read_text())
    assert [p["frame"] for p in content["predictions"] if "frame" in p] == [0, 1, 2, 3, 4]
    assert {Path(s["source"]).name: s["reason"] for s in content["skipped"]} == {
        "b.jpg": "not an image that OpenCV reads, or cut off",
        "cut.jpg": "not an image that OpenCV reads, or cut off",
        "empty.png": "empty",
        "folder.jpg": "Is a directory",
        "link.jpg": "No such file or directory",
        "broken.mp4": "not a video that can be opened",
    }
    assert all(f"skipped {s['source']}: {s['reason']}" in out for s in content["skipped"])
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
        (["dynamic", "empty"], "source empty holds no image"),
        (["dynamic", "out"], "source out does not exist"),
        (["missing.onnx", "a.jpg"], "model missing.onnx does not exist"),
        ([__file__, "a.jpg"], "is not a model that `yolo export format=onnx` wrote"),
        (["dynamic", "a.jpg", "out=/proc/nowhere"], "out=/proc/nowhere cannot be written"),
        (["dynamic", "a.jpg", "conf=1.5"], "conf= and iou= must be from 0 to 1"),
        (["dynamic", "a.jpg", "batch=0"], "max_det= and batch= 1 or more"),
        (["dynamic", "a.jpg", "imgsz=big"], "'big'"),
        (["dynamic", "a.jpg", "imgsz=100"], "takes multiples of 32"),
        (["fixed", "a.jpg", "imgsz=64"], "takes (96, 96), for which it was exported"),
        (["fixed"], "name a source"),
    ],
)
def test_mistakes_are_one_line(models, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    cv2.imwrite("a.jpg", np.zeros((9, 9, 3), np.uint8))
    before = sorted(tmp_path.iterdir())
    arguments[0] = str(models.get(arguments[0], arguments[0]))
    assert PREDICT["main"](arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert sorted(tmp_path.iterdir()) == before


def test_sources_are_files_folders_lists_and_patterns(tmp_path, monkeypatch):
    find = PREDICT["find_files"]
    monkeypatch.chdir(tmp_path)
    for file in ("2024/p.JPG", "2024/q.png", "br[1]/p.png", "a=b.png", "2024/film.mp4", "2024/notes.md"):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).touch()
    assert find("2024") == ["2024/p.JPG", "2024/q.png", "2024/film.mp4"]
    assert find("**/*.png") == ["2024/q.png", "a=b.png", "br[1]/p.png"] and find("br[1]/p.png") == ["br[1]/p.png"]
    Path("2024/list.txt").write_text("\ufeffq.png\r\n\nbr[1]/p.png\nnowhere.jpg\n", encoding="utf-8")
    assert find("2024/list.txt") == ["2024/q.png", "br[1]/p.png", "2024/nowhere.jpg"]
    Path("utf16.txt").write_bytes("\ufeffx.jpg".encode("utf-16"))
    with pytest.raises(PREDICT["InputError"], match=r"source utf16\.txt cannot be read"):
        find("utf16.txt")
    with pytest.raises(PREDICT["InputError"], match="source '' does not exist"):
        find("")


def test_images_are_read_as_ultralytics_reads_them(tmp_path, images):
    image = images[0][:60, :80]
    wide = image.astype(np.uint16) * 16  # a image of 12 bits in 16
    kinds = {"colour": image, "alpha": np.dstack([image, image[..., 0]]), "grey": image[..., 0]}
    kinds |= {"wide": wide, "wide_grey": wide[..., 0]}
    for suffix in ("png", "tif", "jp2", "webp", "bmp"):
        for name, content in kinds.items():
            if suffix in {"png", "tif", "jp2"} or "wide" not in name:
                assert cv2.imwrite(str(tmp_path / f"{name}.{suffix}"), content)
    colours = Image.fromarray(image)
    colours.convert("CMYK").save(tmp_path / "cmyk.jpg")
    colours.quantize(16).save(tmp_path / "palette.png")
    colours.convert("LA").save(tmp_path / "la.tif")
    colours.save(tmp_path / "pages.tif", save_all=True, append_images=[colours])
    kinds = ["jpg", "tif", "png", "webp"]
    if features.check("avif") and cv2.haveImageWriter("x.avif"):
        kinds.append("avif")
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
        np.testing.assert_array_equal(PREDICT["read_image"](file), patches.imread(file), err_msg=file.name)
    cv2.imwrite(str(tmp_path / "float.tif"), image.astype(np.float32))
    assert PREDICT["read_image"](tmp_path / "float.tif") == "pixels of float32, not of 8 or 16 bits"


@pytest.fixture
def add(tmp_path):
    """Write a result; return the name of its file."""
    output = PREDICT["Output"](tmp_path / "out")

    def add(source, number=None, size=(64, 48), fps=10.0):
        image = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8)
        output.add(PREDICT["Frame"](str(source), image, number, fps), np.zeros((0, 6)), {})
        return output.predictions[-1]["drawn"]

    add.output = output
    return add


def test_each_result_has_a_file_of_its_own(add):
    names = ("a/x.jpg", "b/x.jpg", "c/x.jpg", "x-2.jpg", "x.dng", "y/x.dng", "UP.JPG")
    assert [add(name) for name in names] == [
        *("x.jpg", "x-2.jpg", "x-3.jpg", "x-2-2.jpg", "x.dng.png", "x.dng-2.png", "UP.JPG")
    ]
    videos = [add(f"{n}/v.{s}", i) for n, s in (("a", "mp4"), ("b", "mp4"), ("c", "avi")) for i in (0, 1)]
    assert videos[::2] == ["v.mp4", "v-2.mp4", "v.avi.mp4"] and videos[1::2] == videos[::2]
    add.output.close()
    for name in videos:
        video = cv2.VideoCapture(str(add.output.folder / name))
        assert (video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)) == (2, 10)


@pytest.mark.parametrize(("name", "size"), [("x.webp", (17000, 1)), ("x.jpg", (66000, 1)), ("x.heic", (9, 9))])
def test_an_image_that_opencv_cannot_write_so_becomes_png(add, name, size):
    assert add(name, size=size) == f"{name}.png"
    assert cv2.imread(str(add.output.folder / f"{name}.png")).shape == (*size[::-1], 3)


def test_a_full_disk_is_reported(add, models, images, tmp_path):
    resource = pytest.importorskip("resource")
    cv2.imwrite(str(tmp_path / "a.png"), images[0])
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    add("v.mp4", 0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))  # as a full disk
    try:
        with pytest.raises(PREDICT["InputError"], match=r"out=\S+full cannot be written: File too large"):
            PREDICT["predict"](models["fixed"], str(tmp_path / "a.png"), out=tmp_path / "full")
        with pytest.raises(OSError, match=r"v\.mp4 could not be written; is the disk full"):
            add.output.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_nothing_is_overwritten(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for folder, taken in ((".", "here"), ("../here", "here2"), ("new", "here/new")):
        output = PREDICT["Output"](Path(folder))
        assert output.folder == tmp_path.resolve() / taken
        (output.folder / "result").touch()


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("nms", {}, "fixes the minimum conf=, iou=, agnostic_nms= and at most 300 boxes"),
        ("end2end", {"iou": 0.5}, "fixes iou=, agnostic_nms= and at most 189 boxes"),
        ("end2end", {}, None),
        ("dynamic", {"conf": 0.01, "iou": 0.5, "max_det": 1000, "agnostic_nms": True}, None),
    ],
)
def test_what_the_graph_has_fixed_is_said(models, end2end, images, tmp_path, capsys, kind, options, said):
    cv2.imwrite(str(tmp_path / "a.png"), images[0])
    model = end2end if kind == "end2end" else models[kind]
    PREDICT["predict"](model, str(tmp_path / "a.png"), out=tmp_path / "out", **options)
    error = capsys.readouterr().err
    assert (said in error) if said else not error


def test_it_is_a_command_of_yolo_too(command, mistake, models, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("a[1.jpg", images[0])
    cv2.imwrite("b=2.jpg", images[1])
    status, printed, error = command("sgdm", "predict", models["fixed batch"], "a[1.jpg", "b=2.jpg", "batch=2")
    assert status == 0 and printed.startswith("images: 2, "), error
    assert {f.name for f in Path("predictions").iterdir()} == {"a[1.jpg", "b=2.jpg", "predictions.json"}
    named = (f"model={models['fixed']}", "source=b=2.jpg", "out=named", "agnostic_nms=True")
    assert command("sgdm", "predict", *named)[0] == 0 and Path("named/b=2.jpg").is_file()
    assert mistake("predict", models["fixed"], "nowhere.jpg") == "source nowhere.jpg does not exist"
