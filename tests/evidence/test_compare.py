"""`yolo sgdm compare` from end to end, on trainings of seconds."""

import json
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import psutil
import pytest
import torch
import yaml

from ultralytics_sgdm.errors import ConfigError
from ultralytics_sgdm.evidence import compare, report, train
from ultralytics_sgdm.files import sha256

pytestmark = pytest.mark.slow

for module in compare.EXTRAS:
    pytest.importorskip(module)
RUNS = ("tiny-0", "tiny-1", "tiny-sgdm-0", "tiny-sgdm-1")
MODELS = ("tiny.yaml", "tiny-sgdm.yaml")
SETTINGS = {"data": "data.yaml", "epochs": 2, "imgsz": 64, "workers": 0, "device": "cpu", "optimizer": "SGD"}
HUNG = 300  # seconds
SAME = ("mAP50-95", "mAP50", "curve", "classes", "binding")


def arguments(*models, **changes):
    """The arguments of the finished comparison with changes."""
    given = {**SETTINGS, "seeds": "0,1", "bf16": True, "out": "res", **changes}
    return ("compare", *(models or MODELS), *(f"{key}={value}" for key, value in given.items()))


@pytest.fixture(scope="module")
def finished(yolo, make_project, tmp_path_factory):
    """Folder of a finished comparison, and what it printed."""
    folder = make_project(tmp_path_factory.mktemp("compare"))
    return folder, yolo("sgdm", *arguments(jobs=2), cwd=folder)


@pytest.fixture
def again(finished, tmp_path, monkeypatch):
    """A copy of the finished comparison, in which the test runs."""
    shutil.copytree(finished[0], tmp_path / "copy", symlinks=True)
    spec = Path(tmp_path, "copy/data.yaml")
    spec.write_text(spec.read_text().replace(str(finished[0]), str(spec.parent)))
    monkeypatch.chdir(spec.parent)
    return spec.parent


def record(name, out="res"):
    return json.loads(Path(out, f"{name}.json").read_text())


def test_a_comparison_keeps_records_and_says_how_sure_it_is(finished, again):
    printed = finished[1]
    assert all(f"{name}: done" in printed for name in RUNS)
    summary = Path("res/summary.md").read_text(encoding="utf-8")
    assert summary in printed  # with its warnings
    assert "Warning: an interval rests on 2 seeds" in summary and "Warning: only 6 images" in summary
    ours = record("tiny-sgdm-0")
    assert len(ours["curve"]) == ours["recipe"]["epochs"] == 2
    assert ours["versions"]["torch"] == torch.__version__ and ours["machine"]["threads"] == 1
    assert {"commit", "date", "validation_loss", "pictures"} <= ours.keys() and "compare" in ours["command"]
    assert str(finished[0]) not in json.dumps(ours)
    made = {"summary.md", "summary.csv", "analysis.json", "differences.png"}
    assert {p.name for p in Path("res").iterdir()} == made | {f"{name}.json" for name in RUNS}


def test_what_is_done_is_kept_and_what_was_lost_is_made_again(again, command):
    ours, (last,) = record("tiny-sgdm-0"), again.glob("runs/compare/res/tiny-sgdm-0-*/weights/last.pt")
    torch.save({**torch.load(last, weights_only=False), "epoch": 1}, last)  # as if killed before it was stripped
    stamp = last.stat().st_mtime_ns
    for half in (False, True):
        Path("res/tiny-sgdm-0.json").unlink()  # as if killed between training and its last line
        if half:  # trained again, to the same figures
            last.write_bytes(last.read_bytes()[:1000])
        status, printed, _ = command("sgdm", *arguments())
        assert status == 0 and "tiny-sgdm-0: done" in printed and "tiny-0: done" not in printed
        assert (last.stat().st_mtime_ns == stamp) != half and last.stat().st_size > 1000
        assert {k: record("tiny-sgdm-0")[k] for k in SAME} == {k: ours[k] for k in SAME}


def test_no_figure_is_reported_under_another_recipe(again, mistake, command):
    for changes, what in (
        ({"epochs": 3}, "recipe"),
        ({"bf16": False}, "bf16"),
        ({"epochs": 3, "seeds": 2}, "recipe"),  # the records of other runs count too
        ({"folds": 2}, "data"),
    ):
        assert f"tiny-0.json was made with another {what}; choose another out=" in mistake(*arguments(**changes))
    before, tiny = record("tiny-0"), yaml.safe_load(Path("tiny.yaml").read_text())
    tiny["backbone"].append([-1, 1, "Conv", [32, 3, 1]])
    Path("tiny.yaml").write_text(yaml.safe_dump(tiny))
    assert "tiny-0.json was made with another model; choose another out=" in mistake(*arguments())
    next(again.glob("shapes/labels/val/*.txt")).write_text("0 0.5 0.5 0.2 0.2\n")
    assert "was made with another data; choose another out=" in mistake(*arguments("tiny-sgdm.yaml"))
    for file in Path("res").glob("*.json"):  # then it is trained, in a folder of its own: the old weights are not taken
        file.unlink()
    assert command("sgdm", *arguments("tiny.yaml", epochs=1, seeds=0))[0] == 0
    assert len(record("tiny-0")["curve"]) == 1 and record("tiny-0")["parameters"] != before["parameters"]


@pytest.mark.parametrize("by", [pytest.param(signal.SIGKILL, marks=pytest.mark.long), signal.SIGINT])
def test_a_stopped_command_takes_its_runs_along_and_says_how_to_go_on(project, shell, by):
    driver = subprocess.Popen(
        [sys.executable, "-m", "ultralytics_sgdm", "sgdm", *arguments(epochs=300, seeds=7, out="killed")],
        env=shell.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # else ignored where these tests are
    )
    try:
        end = time.monotonic() + HUNG
        while not list(project.glob("runs/compare/killed/tiny-7-*/weights/last.pt")):
            assert driver.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        (child,) = (c for c in psutil.Process(driver.pid).children() if "evidence.train" in " ".join(c.cmdline()))
        driver.send_signal(by)
        printed = driver.communicate(timeout=HUNG / 10)[0]
    finally:
        driver.kill()
        driver.wait()
    psutil.wait_procs([child], timeout=HUNG)
    assert not child.is_running()
    assert not list(Path("killed").glob("*.json"))
    assert "tiny-7: started" in printed and "failed" not in printed
    if by == signal.SIGINT:
        assert "0 of 2 runs are done; the same command goes on from here" in printed


def test_progress_names_run_epoch_and_time_left(tmp_path, capsys):
    def work():
        time.sleep(1)
        (tmp_path / "results.csv").write_text("epoch\n1\n2\n")
        return {}

    task = train.Task("a-0", "a", "a.yaml", 0, None, {"epochs": 4}, False, [], str(tmp_path), {})
    with ThreadPoolExecutor() as pool:
        assert train.collect({pool.submit(work): task}, tmp_path) == [] and (tmp_path / "a-0.json").exists()
    assert capsys.readouterr().out == "a-0: epoch 2 of 4; 1 of 1 runs left, about 0 min\na-0: done\n"


def test_a_file_of_layers_is_what_python_finds_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "json.py").touch()
    with pytest.raises(ConfigError, match=r"json.py: Python finds another module named json; rename the file"):
        train.import_layers([str(tmp_path / "json.py")])
    (tmp_path / "broken.py").write_text("import torch\n\ntorch.foo()\n")
    with pytest.raises(ConfigError, match=r"broken.py, line 3: AttributeError: module 'torch' has no attribute 'foo'"):
        train.import_layers([str(tmp_path / "broken.py")])


def test_weights_are_those_that_a_training_finds(tmp_path, monkeypatch):
    (tmp_path / "yolov8n.pt").write_bytes(b"weights")
    monkeypatch.setattr(train, "attempt_download_asset", lambda name: tmp_path / name)
    assert train.bind("yolov8n.yaml", {"pretrained": "yolov8n.pt"}, False, "")["pretrained"] == sha256(b"weights")
    with pytest.raises(ConfigError, match=r"^pretrained=x.pt: No such file or directory$"):
        train.bind("yolov8n.yaml", {"pretrained": "x.pt"}, False, "")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("tiny.yaml data=nosuch.yaml", "'nosuch.yaml' does not exist"),
        ("tiny.yaml data=tiny.yaml", "data=tiny.yaml: "),
        ("tiny.yaml epoch=2", "'epoch' is not a valid YOLO argument. Similar arguments"),
        ("tiny.yaml tiny.yaml", "models must be different: ['tiny', 'tiny']"),
        ("tiny-sdgm.yaml", "'tiny-sdgm.yaml' does not exist"),
        ("", "dataset with data=: yolo sgdm compare yolov8n.yaml yolov8n-sgdm.yaml data=my.yaml"),
        ("tiny.yaml seed=3", "seed= is not for a recipe"),
        ("tiny.pt", "tiny.pt is not the YAML of a detector; weights are named with pretrained="),
        ("tiny.yaml pretrained=nosuch.pt", "pretrained=nosuch.pt: "),
        ("tiny.yaml folds=99", "folds=99: "),
        ("tiny.yaml jobs=0", "jobs= must be 1 or more"),
        ("tiny.yaml ray=local device=0", "leave device= out, or say device=cpu"),
        ("tiny.yaml plan=plan.yaml", "plan= states models, data, seeds and recipe: leave them out"),
        ("tiny.yaml scratch=tiny.yaml/runs", "scratch=tiny.yaml/runs/new cannot be written"),
    ],
)
def test_mistakes_are_said_before_the_first_run(mistake, project, given, message):
    data = () if "data=" in given else ("data=data.yaml",)
    assert message in mistake("compare", *given.split(), *data, "out=new")
    assert not Path("new").exists()


def test_a_folder_that_is_in_use_is_refused(project, mistake):
    Path("runs/compare/res").mkdir(parents=True)
    with filelock.FileLock("runs/compare/res/.lock"):
        assert "scratch=runs/compare/res cannot be written, or is in use by another" in mistake(*arguments())


def test_data_are_read_once_and_a_missing_test_split_only_where_it_is_asked_for(command, project, monkeypatch):
    spec = yaml.safe_load(Path("data.yaml").read_text())
    Path("data.yaml").write_text(yaml.safe_dump({**spec, "test": "images/nowhere"}))
    read, digest = [], compare.digest_data
    monkeypatch.setattr(compare, "digest_data", lambda *given: read.append(given) or digest(*given))
    monkeypatch.setattr(compare, "run_in_processes", lambda *_: ["nothing is run here"])
    for folds, expected in ((0, 1), (2, 3)):  # all of it, and each fold
        assert command("sgdm", *arguments(folds=folds, out=f"out-{folds}"))[0] == 1
        assert len(read) == expected
        read.clear()


@pytest.mark.long
def test_layers_of_a_file_and_one_class_are_trained_and_a_run_that_fails_says_why(yolo, project, own_layers):
    tiny = yaml.safe_load(Path("tiny.yaml").read_text())
    tiny["backbone"].append([-1, 1, "Mine", [32]])
    Path("mine.yaml").write_text(yaml.safe_dump({**tiny, "head": [[[4], 1, "Detect", ["nc"]]]}))
    changes = {"epochs": 1, "seeds": 0, "layers": own_layers, "single_cls": True, "batch": -1}
    given = ("sgdm", *arguments("mine.yaml", **changes))
    for _ in range(2):  # another process loads its checkpoint again
        assert "mine-0: done" in yolo(*given, cwd=project)
        assert list(record("mine-0")["classes"]) == ["item"]
        Path("res/mine-0.json").unlink()
    printed = yolo("sgdm", *arguments("tiny.yaml", optimizer="SGDD", seeds=0, out="new"), cwd=project, status=1)
    assert "tiny-0: started, see" in printed and "tiny-0: failed: NotImplementedError: Optimizer 'SGDD' not" in printed
    assert "1 run failed: tiny-0" in printed


@pytest.mark.long
def test_folds_and_a_plan_with_its_verdict(yolo, shell, again, mistake, commit):
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
    commit(again / "plan.yaml")
    assert "res holds tiny-0, which is not in the plan" in mistake("compare", "plan=plan.yaml", "out=res")
    printed = yolo("sgdm", "compare", "plan=plan.yaml", "out=planned", "jobs=2", cwd=again)
    assert printed.rstrip().endswith("- tiny-sgdm: undecided: a verdict needs 3 seeds")
    assert len(list(Path("planned").glob("tiny-*-fold?.json"))) == 8
    assert json.loads(Path("planned/analysis.json").read_text())["pictures"] == 14
    assert record("tiny-sgdm-0-fold1", "planned")["recipe"]["lr0"] == 0.02

    # a rule that is changed afterwards, though committed, gives no verdict on these runs
    Path("plan.yaml").write_text(yaml.safe_dump({**plan, "better": 0.1}))
    commit(again / "plan.yaml")
    assert "plan.yaml was changed since planned was begun" in mistake("compare", "plan=plan.yaml", "out=planned")

    # without detections at hand the same figures come from what is kept
    text = Path("planned/summary.md").read_text()
    shutil.rmtree("runs")
    assert text in shell(sys.executable, "-m", report.__name__, "planned", "planned/plan.yaml", cwd=again)
    assert Path("planned/summary.md").read_text() == text
