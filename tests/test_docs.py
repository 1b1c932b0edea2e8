"""README and the site: every block of Python and shell runs on tiny data, or says why not; links lead somewhere."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import save_detector, save_shapes
from small_datasets import an_object, make_voc
from ultralytics import YOLO, cfg
from ultralytics.engine.model import Model
from ultralytics.nn import tasks

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(f for f in (ROOT / "docs").rglob("*.md") if "results" not in f.parts)]
BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<kind>bash|python)\n(?P<text>.*?)```", re.S)
TINY = {"epochs": 1, "imgsz": 64, "batch": 2, "workers": 0, "device": "cpu", "plots": False, "verbose": False}
OF_MODE = {
    "train": TINY,
    "tune": {**TINY, "val": False},
    "val": {k: v for k, v in TINY.items() if k != "epochs"},
    "predict": {"imgsz": 64, "device": "cpu", "verbose": False},
    "export": {"imgsz": 64, "device": "cpu", "verbose": False},
}


def blocks(page):
    """Return kind and text of the blocks of a page that run."""
    return [m.group("kind", "text") for m in BLOCK.finditer(page.read_text(encoding="utf-8")) if not m["reason"]]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """What the pages take to be there: data, images, weights with random values, an exported model."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("world")
    save_shapes(folder, train=4, val=4, size=96).rename(folder / "my.yaml")
    shutil.copytree(folder / "shapes/images/val", folder / "images")
    shutil.copy(next((folder / "images").glob("*.jpg")), folder / "image.jpg")
    for name in ("yolov8n", "yolov8s", "yolo11s"):
        YOLO(f"{name}.yaml").save(folder / f"{name}.pt")
    best = save_detector("yolov8n-sgdm.yaml", folder).rename(folder / "best.pt")
    YOLO(best).export(format="onnx", imgsz=64, verbose=False)
    make_voc(folder / "VOCfolder", train={"a": [an_object()]}, val={"b": [an_object()]})
    return folder


@pytest.fixture
def place(world, tmp_path, monkeypatch):
    """A copy of the world in which a page runs, with every training cut short."""
    folder = tmp_path / "page"
    shutil.copytree(world, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setitem(cfg.SETTINGS, "runs_dir", str(folder / "runs"))
    train, export = Model.train, Model.export
    monkeypatch.setattr(Model, "train", lambda self, **options: train(self, **{**options, **TINY}))
    monkeypatch.setattr(Model, "export", lambda self, **options: export(self, **{**options, **OF_MODE["export"]}))
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])  # as of a script in it
    return folder


def run_line(line, command):
    """Run one line of a shell block: our own command in this process, anything else in a shell."""
    words = shlex.split(line, comments=True)
    if words[:1] != ["yolo"]:
        subprocess.run(["bash", "-ec", line], check=True)
        return
    argv = words[1:]
    if argv[0] in OF_MODE:
        given = dict(word.split("=", 1) for word in argv[1:] if "=" in word)
        argv = [argv[0], *(f"{k}={v}" for k, v in {**given, **OF_MODE[argv[0]]}.items())]
    status, _, error = command(*argv)
    assert status == 0, f"{line}: {error}"


def of_page(page):
    long = [pytest.mark.long] if page.parent.name == "howto" else []
    return pytest.param(page, marks=long, id=page.relative_to(ROOT).as_posix())


@pytest.mark.parametrize("page", [of_page(p) for p in PAGES if blocks(p)])
def test_every_block_of_a_page_runs(page, place, command):
    space = {"__name__": "page"}
    for kind, text in blocks(page):
        if kind == "python":
            exec(compile(text, page.name, "exec"), space)
        else:
            for line in re.sub(r"\\\n\s*", " ", text).splitlines():
                if line.strip() and not line.startswith("#"):
                    run_line(line, command)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", ["README.md", "docs/place.md"])
def test_the_rows_shown_for_editing_build(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    rows = yaml.safe_load(re.search(r"```yaml\n(backbone:\n.+?)```", text, re.S).group(1))["backbone"]
    assert len(rows) >= 3
    for row in rows:
        layers, _ = tasks.parse_model({"nc": 1, "backbone": [row], "head": []}, ch=64, verbose=False)
        assert type(layers[0]).__name__ == row[2]


def test_the_site_builds_strictly_without_network(shell, tmp_path):
    pytest.importorskip("mkdocs")
    # without -q, which keeps warnings from being counted
    shell(sys.executable, "-m", "mkdocs", "build", "--strict", "-d", tmp_path / "site", cwd=ROOT)
    pages = {f.relative_to(tmp_path / "site").as_posix() for f in (tmp_path / "site").rglob("index.html")}
    assert {"index.html", "howto/compare/index.html", "reference/index.html"} <= pages
    assert "insert" in (tmp_path / "site/reference/index.html").read_text(encoding="utf-8")


def test_the_table_of_conversions_is_that_of_the_record():
    runs = json.loads((ROOT / "results/data-scale.json").read_text())["runs"]
    lines = [f"| {r['format']} | {r['images']:,} | {r['seconds']:.0f} s | {r['peak_mb']:,} MB |" for r in runs]
    assert sorted(re.findall(r"^\| (?:voc|coco) \|.*$", (ROOT / "docs/data.md").read_text(), re.M)) == sorted(lines)


@pytest.mark.long
def test_the_notebook_is_that_of_its_script_and_runs(yolo, tmp_path, monkeypatch):
    jupytext, nbclient = pytest.importorskip("jupytext"), pytest.importorskip("nbclient")
    script = jupytext.read(ROOT / "examples/quickstart.py")
    notebook = jupytext.read(ROOT / "examples/quickstart.ipynb")
    assert [(c.cell_type, c.source) for c in notebook.cells] == [(c.cell_type, c.source) for c in script.cells]
    assert not any(cell.get("outputs") for cell in notebook.cells)
    for cell in script.cells:
        cell.source = cell.source.replace("EPOCHS = 50", "EPOCHS = 1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    nbclient.NotebookClient(
        script, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    said = "".join(o.get("text", "") for c in script.cells for o in c.get("outputs", []))
    assert "+186,552 parameters" in said
    assert "best.onnx:" in said


def test_results_go_to_the_working_folder_as_the_readme_says(shell, world, tmp_path):
    """Whatever repository the environment is in: the line of "Install", then the lines that follow in README."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    line = re.search(r"^yolo (settings runs_dir=runs)$", readme, re.M)[1]
    assert "model=runs/detect/train/weights/best.pt" in readme[readme.index(line) :]
    run = (sys.executable, "-m", "ultralytics_sgdm")
    where = {"cwd": tmp_path, "YOLO_CONFIG_DIR": str(tmp_path / "settings")}
    shell(*run, *line.split(), **where)
    arguments = ("model=yolov8n-sgdm.yaml", f"data={world / 'my.yaml'}", *(f"{k}={v}" for k, v in TINY.items()))
    shell(*run, "train", *arguments, **where)
    assert (tmp_path / "runs/detect/train/weights/best.pt").is_file()
