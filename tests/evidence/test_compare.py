"""`yolo sgdm compare` from end to end, on trainings of seconds."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml

from ultralytics_sgdm import errors
from ultralytics_sgdm.data import make_shapes
from ultralytics_sgdm.evidence import compare, records, runners, train

pytestmark = pytest.mark.slow

for module in compare.EXTRAS:
    pytest.importorskip(module)
ROOT = Path(__file__).parents[2]
MODELS = ("tiny.yaml", "tiny-sgdm.yaml")
RECIPE = ("data=data.yaml", "epochs=2", "imgsz=64", "workers=0", "device=cpu", "optimizer=SGD")
COMMAND = ("sgdm", "compare", *MODELS, *RECIPE, "seeds=0,1", "bf16=True")
HUNG = 300  # seconds
TINY = {
    "backbone": [*[[-1, 1, "Conv", [16, 3, 2]]] * 3, [-1, 1, "C2f", [32, True]]],
    "head": [[[3], 1, "Detect", ["nc"]]],
    "nc": 6,
}


def make_project(folder):
    make_shapes(folder / "shapes", train=8, val=6, size=96)
    spec = {"train": "shapes/images/train", "val": "shapes/images/val", "names": list("abcdef")}
    (folder / "data.yaml").write_text(yaml.safe_dump(spec))
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    return folder


@pytest.fixture(scope="module")
def finished(yolo, tmp_path_factory):
    """Folder of a finished comparison, and what it printed."""
    folder = make_project(tmp_path_factory.mktemp("compare"))
    return folder, yolo(*COMMAND, "out=res", "jobs=2", cwd=folder)


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    """A copy of the finished comparison, in which the test runs."""
    shutil.copytree(finished[0], tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def record(name, out="res"):
    return json.loads(Path(out, f"{name}.json").read_text())


def scratch(name, out="res"):
    (folder,) = (f for f in Path("runs/compare", out).glob(f"{name}-*") if f.is_dir())
    return folder


def test_a_comparison_keeps_records_and_says_how_sure_it_is(finished, project):
    printed = finished[1]
    assert all(f"{name}: done" in printed for name in ("tiny-0", "tiny-1", "tiny-sgdm-0", "tiny-sgdm-1"))
    summary = Path("res/summary.md").read_text(encoding="utf-8")
    assert summary in printed  # with its warnings
    assert "Warning: an interval rests on 2 seeds" in summary and "Warning: only 6 images" in summary
    ours = record("tiny-sgdm-0")
    assert len(ours["curve"]) == ours["recipe"]["epochs"] == 2
    assert ours["versions"]["torch"] == torch.__version__
    assert ours["machine"]["threads"] == 1
    assert {"commit", "date", "command", "validation_loss", "pictures"} <= ours.keys()
    assert "compare" in ours["command"]
    assert str(project) not in json.dumps(ours)
    with open("res/summary.csv", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    assert [row["model"] for row in rows] == ["tiny", "tiny-sgdm"]
    files = {p.name for p in Path("res").iterdir()} - {".lock"}
    assert {f for f in files if "tiny" not in f} == {"summary.md", "summary.csv", "analysis.json", "differences.png"}


def test_what_is_done_is_kept_and_what_was_lost_is_made_again(project, command):
    ours, last = record("tiny-sgdm-0"), scratch("tiny-sgdm-0") / "weights/last.pt"
    Path("res/tiny-sgdm-0.json").unlink()  # as if killed between training and its last line
    torch.save({**torch.load(last, weights_only=False), "epoch": 1}, last)  # as if killed before it was stripped
    stamp = last.stat().st_mtime_ns
    status, printed, _ = command(*COMMAND, "out=res")
    assert status == 0 and "tiny-sgdm-0: done" in printed and "tiny-0: done" not in printed
    assert last.stat().st_mtime_ns == stamp
    same = ("mAP50-95", "mAP50", "curve", "classes", "binding")
    assert {k: record("tiny-sgdm-0")[k] for k in same} == {k: ours[k] for k in same}

    Path("res/tiny-sgdm-0.json").unlink()
    last.write_bytes(last.read_bytes()[:1000])  # cut: trained again, to the same figures
    assert command(*COMMAND, "out=res")[0] == 0
    assert last.stat().st_size > 1000
    assert {k: record("tiny-sgdm-0")[k] for k in same} == {k: ours[k] for k in same}


def test_no_figure_is_reported_under_another_recipe(project, mistake, command):
    for change, what in (("epochs=3", "recipe"), ("imgsz=32", "recipe"), ("bf16=False", "bf16")):
        arguments = [a for a in COMMAND[1:] if a.partition("=")[0] != change.partition("=")[0]]
        assert f"was made with another {what}" in mistake(*arguments, change, "out=res")
    others = [a for a in COMMAND[1:] if not a.startswith(("epochs", "seeds"))]  # the records of other runs count too
    assert "tiny-0.json was made with another recipe" in mistake(*others, "epochs=3", "seeds=2", "out=res")
    assert "tiny-0.json was made with another folds=" in mistake(*COMMAND[1:], "folds=2", "out=res")
    shutil.copy("res/tiny-0.json", "res/tiny-1.json")
    assert "tiny-1.json is the record of tiny-0; delete it to run tiny-1" in mistake(*COMMAND[1:], "out=res")
    Path("res/tiny-1.json").unlink()
    before = record("tiny-0")
    label = next(Path("shapes/labels/val").glob("*.txt"))
    label.write_text("0 0.5 0.5 0.2 0.2\n")
    assert "was made with another data; choose another out=" in mistake(*COMMAND[1:], "out=res")
    Path("tiny.yaml").write_text(yaml.safe_dump({**TINY, "backbone": [*TINY["backbone"], [-1, 1, "Conv", [32, 3, 1]]]}))
    for file in Path("res").glob("*.json"):  # then it is trained, in a folder of its own: the old weights are not taken
        file.unlink()
    arguments = [a for a in COMMAND if not a.startswith(("epochs", "seeds"))]
    assert command(*arguments, "epochs=1", "seeds=0", "out=res")[0] == 0
    assert len(record("tiny-0")["curve"]) == 1
    assert record("tiny-0")["parameters"] != before["parameters"]


def test_folders_that_are_in_use_or_cannot_be_written_are_refused(project, mistake):
    with records.claim(Path("res")):
        assert "out=res is in use by another process" in mistake(*COMMAND[1:], "out=res")
    with records.claim(Path("runs/compare/res")):
        assert "scratch=runs/compare/res is in use by another process" in mistake(*COMMAND[1:], "out=other/res")
    Path("file").touch()
    assert "scratch=file/runs/res cannot be written" in mistake(*COMMAND[1:], "out=res", "scratch=file/runs")
    assert "out=file/new cannot be written" in mistake(*COMMAND[1:], "out=file/new")


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_command_takes_its_runs_along_and_says_how_to_go_on(project, shell, by):
    arguments = [a for a in COMMAND if not a.startswith(("epochs", "seeds"))]
    arguments += ["epochs=300", "seeds=7", "out=killed"]
    driver = subprocess.Popen(
        [sys.executable, "-m", "ultralytics_sgdm", *arguments],
        env=shell.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # else ignored where these tests are
    )
    try:
        end = time.monotonic() + HUNG
        while not list(Path("runs/compare/killed").glob("tiny-7-*/weights/last.pt")):
            assert driver.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        (child,) = (c for c in psutil.Process(driver.pid).children() if "evidence.runners" in " ".join(c.cmdline()))
        driver.send_signal(by)
        printed = driver.communicate(timeout=HUNG / 10)[0]
    finally:
        driver.kill()
        driver.wait()
    psutil.wait_procs([child], timeout=HUNG)
    assert not child.is_running()
    assert not list(Path("killed").glob("*.json"))
    if by == signal.SIGINT:
        assert "stopped: 0 of 2 runs are done; the same command goes on from here" in printed
        assert "failed" not in printed


def test_progress_names_run_epoch_and_time_left(tmp_path):
    def task(arm, epochs):
        folder = tmp_path / arm
        folder.mkdir()
        (folder / "results.csv").write_text("epoch\n" + "1\n" * epochs)
        return train.Task(arm, f"{arm}.yaml", 0, None, {"epochs": 10}, False, [], str(folder), {})

    tasks = [task("a", 10), task("b", 4), train.Task("c", "c.yaml", 0, None, {"epochs": 10}, False, [], "nowhere", {})]
    line = runners.describe_progress(tasks, [tasks[1]], trained=8, seconds=240)
    assert line == "run 2 of 3: b-0, epoch 4/10, about 8 min left"  # 16 epochs of half a minute
    assert (
        runners.describe_progress(tasks, tasks[1:], 0, 9) == "run 2 of 3: b-0, epoch 4/10; run 3 of 3: c-0, epoch 0/10"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tiny.yaml", "data=nosuch.yaml"), "'nosuch.yaml' does not exist"),
        (("tiny.yaml", "data=yolov8.yaml"), "data=yolov8.yaml is a model"),
        (("tiny.yaml", "data=data.yaml", "epoch=2"), "'epoch' is not a valid YOLO argument. Similar arguments"),
        (
            ("tiny.yaml", "tiny.yaml", "data=data.yaml"),
            "each model needs a name of its own without / \\ and |, not 'tiny'",
        ),
        (("tiny-sdgm.yaml", "data=data.yaml"), "'tiny-sdgm.yaml' does not exist"),
        (("tiny.yaml",), "name the models, and the dataset with data="),
        (("data=data.yaml",), "dataset with data=: yolo sgdm compare yolov8n.yaml yolov8n-sgdm.yaml data=my.yaml"),
        (("tiny.yaml", "data=data.yaml", "seeds=0,0"), "seeds=[0, 0] must be different whole numbers"),
        (("tiny.yaml", "data=data.yaml", "seeds=a"), "seeds=a must be a whole number"),
        (("tiny.yaml", "data=data.yaml", "seed=3"), "seed= is not for a recipe"),
        (("tiny.yaml", "data=data.yaml", "cfg=my.yaml"), "cfg= is not for a recipe"),
        (("tiny.pt", "data=data.yaml"), "tiny.pt is not the YAML of a detector"),
        (("yolov8n-seg.yaml", "data=data.yaml"), "yolov8n-seg.yaml is not the YAML of a detector"),
        (("tiny.yaml", "data=data.yaml", "jobs=0"), "jobs= must be 1 or more"),
        (("tiny.yaml", "data=data.yaml", "pretrained=nosuch.pt"), "nosuch.pt"),
        (("tiny.yaml", "data=empty.yaml"), "data=empty.yaml: "),
        (
            ("tiny.yaml", "data=data.yaml", "layers=nosuch.py"),
            "nosuch.py is not a Python file (.py), or does not exist",
        ),
        (("tiny.yaml", "data=data.yaml", "folds=99"), "folds=99 must be from 2 to 14"),
        (("tiny.yaml", "data=data.yaml", "epochs=abc"), "'epochs=abc'"),
        (("tiny.yaml", "data=data.yaml", "lr0=2"), "'lr0=2' "),
        (("tiny.yaml", "data=data.yaml", "ray=local", "device=0"), "leave device= out, or say device=cpu"),
        (("plan=nosuch.yaml",), "plan=nosuch.yaml cannot be read"),
        (("tiny.yaml", "plan=plan.yaml"), "plan= states models, data, seeds and recipe: leave them out"),
    ],
)
def test_mistakes_are_said_before_the_first_run(mistake, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(make_project(tmp_path))
    spec = yaml.safe_load(Path("data.yaml").read_text())
    Path("empty.yaml").write_text(yaml.safe_dump({**spec, "train": str(tmp_path / "empty")}))
    Path("empty").mkdir()
    assert message in mistake("compare", *arguments, "out=new")
    assert not Path("new").exists()


@pytest.mark.parametrize("extra", compare.EXTRAS)
def test_an_extra_that_is_missing_is_named_first(mistake, monkeypatch, extra):
    def without(name, importing=errors.importlib.import_module):
        if name == extra:
            raise ModuleNotFoundError(name=extra)
        return importing(name)

    monkeypatch.setattr(errors.importlib, "import_module", without)
    assert "in the clone, pip install '.[compare]'" in mistake("compare", "nosuch.yaml", "data=nosuch.yaml", "out=new")


def test_data_are_read_once_and_a_missing_test_split_only_where_it_is_asked_for(command, tmp_path, monkeypatch):
    monkeypatch.chdir(make_project(tmp_path))
    spec = yaml.safe_load(Path("data.yaml").read_text())
    Path("data.yaml").write_text(yaml.safe_dump({**spec, "test": "shapes/images/nowhere"}))
    read = []
    digest = compare.digest_data
    monkeypatch.setattr(compare, "digest_data", lambda *arguments: read.append(arguments) or digest(*arguments))
    monkeypatch.setattr(runners, "run_in_processes", lambda *_: ["nothing is run here"])
    for folds, expected in (("folds=0", 1), ("folds=2", 3)):  # all of it, and each fold
        assert command("sgdm", "compare", *MODELS, *RECIPE, folds, f"out={folds}")[0] == 1
        assert len(read) == expected
        read.clear()


def test_one_class_is_trained_and_scored_as_one(command, tmp_path, monkeypatch):
    monkeypatch.chdir(make_project(tmp_path))
    new = ("epochs=1", "imgsz=64", "workers=0", "device=cpu", "batch=-1", "seeds=0", "out=res")
    assert command("sgdm", "compare", "tiny.yaml", "data=data.yaml", "single_cls=True", *new)[0] == 0
    assert list(record("tiny-0")["classes"]) == ["item"]


def test_a_run_that_fails_says_why(command, tmp_path, monkeypatch):
    monkeypatch.chdir(make_project(tmp_path))
    status, printed, error = command(*COMMAND[:3], *RECIPE[:-1], "optimizer=SGDD", "seeds=0", "out=new")
    assert status == 1
    assert "tiny-0: failed, see" in printed and ".log: NotImplementedError: Optimizer 'SGDD' not found" in printed
    assert "1 runs failed: tiny-0" in error


def test_folds_and_a_plan_with_its_verdict(yolo, project, mistake):
    plan = {
        "question": "Is SGDM better on shapes?",
        "models": [MODELS[0], {"model": MODELS[1], "recipe": {"lr0": 0.02}}],
        "data": "data.yaml",
        "recipe": {"epochs": 1, "imgsz": 64, "workers": 0, "device": "cpu"},
        "seeds": [0, 1],
        "folds": 2,
        "better": 0.5,
        "equal": 50,
        "stop": "after two seeds",
    }
    Path("plan.yaml").write_text(yaml.safe_dump(plan))
    assert "must be committed" in mistake("compare", "plan=plan.yaml", "out=planned")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init"], ["add", "plan.yaml"], ["commit", "-m", "plan"]):
        subprocess.run([*git, *arguments], check=True, capture_output=True)
    assert "leave them out" in mistake("compare", "plan=plan.yaml", "seeds=5", "out=planned")
    assert "res holds tiny-0, which is not in the plan" in mistake("compare", "plan=plan.yaml", "out=res")
    printed = yolo("sgdm", "compare", "plan=plan.yaml", "out=planned", "jobs=2", cwd=project)
    assert printed.rstrip().endswith("- tiny-sgdm: undecided: a verdict needs 3 seeds")
    assert len(list(Path("planned").glob("tiny-*-fold?.json"))) == 8
    assert json.loads(Path("planned/analysis.json").read_text())["pictures"] == 14
    assert record("tiny-sgdm-0-fold1", "planned")["recipe"]["lr0"] == 0.02

    # a rule that is changed afterwards, though committed, gives no verdict on these runs
    Path("plan.yaml").write_text(yaml.safe_dump({**plan, "better": 0.1}))
    subprocess.run([*git, "commit", "-am", "easier"], check=True, capture_output=True)
    assert "plan.yaml was changed since planned was begun" in mistake("compare", "plan=plan.yaml", "out=planned")

    # without detections at hand the same figures come from what is kept
    text = Path("planned/summary.md").read_text()
    shutil.rmtree("runs")
    module = (sys.executable, "-m", "ultralytics_sgdm.evidence.report")
    subprocess.run([*module, "planned", "planned/plan.yaml"], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert Path("planned/summary.md").read_text() == text
