"""`yolo sgdm compare` from end to end, on trainings of seconds."""

import csv
import errno
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from ultralytics import YOLO

from ultralytics_sgdm.configs import ConfigError
from ultralytics_sgdm.data import make_shapes
from ultralytics_sgdm.evidence import compare, plans, records, report, runners
from ultralytics_sgdm.evidence.compare import widest_depthwise
from ultralytics_sgdm.evidence.report import Report
from ultralytics_sgdm.evidence.training import bind

pytestmark = pytest.mark.slow

pytest.importorskip("scipy")
MODELS = ("tiny.yaml", "tiny-sgdm.yaml")
RECIPE = ("data=data.yaml", "epochs=2", "imgsz=64", "workers=0", "device=cpu", "optimizer=SGD")
COMMAND = ("sgdm", "compare", *MODELS, *RECIPE, "seeds=0,1", "bf16=True")
HUNG = 300  # seconds
LAST = "weights/last.pt"
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
    assert "Warning: an interval rests on 2 seeds" in printed and "Warning: only 6 pictures" in printed
    varied = any(record(f"{arm}-0")["mAP50-95"] != record(f"{arm}-1")["mAP50-95"] for arm in ("tiny", "tiny-sgdm"))
    assert ("seeds an arm needs at 80 % power" if varied else "No two seeds of an arm differ") in printed
    ours = record("tiny-sgdm-0")
    assert len(ours["curve"]) == ours["recipe"]["epochs"] == 2
    assert ours["versions"]["torch"] == torch.__version__
    assert ours["machine"]["threads"] == 1
    assert {"commit", "date", "command", "best", "validation_loss", "pictures"} <= ours.keys()
    assert "compare" in ours["command"]
    assert str(project) not in json.dumps(ours)
    with open("res/summary.csv", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    assert [row["arm"] for row in rows] == ["tiny", "tiny-sgdm"]
    assert rows[1]["mAP50-95 +- both"] and rows[1]["mAP50-95 +- seeds"]
    assert {p.name for p in Path("res").glob("*.png")} == {"differences.png", "curves.png"}
    table = Path("res/summary.md").read_text(encoding="utf-8").splitlines()
    assert table[3].startswith(f"| tiny-sgdm | {int(rows[1]['parameters']):,} | 0 1 |")


def test_what_is_done_is_kept_and_what_was_lost_is_made_again(project, command):
    ours, folder = record("tiny-sgdm-0"), scratch("tiny-sgdm-0")
    best, last = (folder / f"weights/{name}.pt" for name in ("best", "last"))
    Path("res/tiny-sgdm-0.json").unlink()  # as if killed between training and its last line
    stamp = best.stat().st_mtime_ns
    torch.save({**torch.load(last, weights_only=False), "epoch": 1}, last)  # as if killed before it was stripped
    status, printed, _ = command(*COMMAND, "out=res")
    assert status == 0 and "tiny-sgdm-0: done" in printed and "tiny-0: done" not in printed
    assert best.stat().st_mtime_ns == stamp
    same = ("mAP50-95", "mAP50", "best", "curve", "classes", "binding")
    assert {k: record("tiny-sgdm-0")[k] for k in same} == {k: ours[k] for k in same}

    Path("res/tiny-sgdm-0.json").unlink()
    best.write_bytes(best.read_bytes()[:1000])  # cut: trained again, to the same figures
    assert command(*COMMAND, "out=res")[0] == 0
    assert best.stat().st_size > 1000
    assert {k: record("tiny-sgdm-0")[k] for k in same} == {k: ours[k] for k in same}


def test_no_figure_is_reported_under_another_recipe(project, mistake, command):
    for change, what in (("epochs=3", "recipe"), ("imgsz=32", "recipe"), ("bf16=False", "bf16")):
        arguments = [a for a in COMMAND[1:] if a.partition("=")[0] != change.partition("=")[0]]
        assert f"was made with another {what}" in mistake(*arguments, change, "out=res")
    others = [a for a in COMMAND[1:] if not a.startswith(("epochs", "seeds"))]  # the records of other runs count too
    assert "tiny-0.json was made with another recipe" in mistake(*others, "epochs=3", "seeds=2", "out=res")
    assert "tiny-0.json was made with another folds=" in mistake(*COMMAND[1:], "folds=2", "out=res")
    assert "tiny has seeds [0, 1] that other lacks" in mistake(*_with_a_model("other.yaml"), "seeds=2", "out=res")
    assert len(list(Path("res").glob("tiny*.json"))) == 4
    before = record("tiny-0")
    label = next(Path("shapes/labels/val").glob("*.txt"))
    label.write_text("0 0.5 0.5 0.2 0.2\n")
    assert "was made with another data; choose another out=" in mistake(*COMMAND[1:], "out=res")
    Path("res/tiny-0.json").unlink()  # then it is trained, in a folder of its own: the old weights are not taken
    Path("tiny.yaml").write_text(yaml.safe_dump({**TINY, "backbone": [*TINY["backbone"], [-1, 1, "Conv", [32, 3, 1]]]}))
    for file in Path("res").glob("*.json"):
        file.unlink()
    arguments = [a for a in COMMAND if not a.startswith(("epochs", "seeds"))]
    assert command(*arguments, "epochs=1", "seeds=0", "out=res")[0] == 0
    assert len(record("tiny-0")["curve"]) == 1
    assert not Path("res/curves.png").exists()
    assert record("tiny-0")["parameters"] != before["parameters"]


def _with_a_model(name):
    """Arguments that compare a model which no record is of."""
    shutil.copy("tiny.yaml", name)
    return ["compare", name, *(a for a in COMMAND if "=" in a and not a.startswith("seeds"))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as a record"),
        ("[1]", "is no record of a comparison"),
        ('{"mine": 1}', "is no record of a comparison"),
        (None, "was changed after it was written"),
    ],
)
def test_a_record_that_is_broken_foreign_or_edited_is_named(project, mistake, content, message):
    file = Path("res/tiny-1.json")
    file.write_text(content or file.read_text().replace('"mAP50": 0.', '"mAP50": 0.9'))
    assert message in mistake(*COMMAND[1:], "out=res")


def test_a_record_without_its_checksum_or_of_another_run_is_named_before_the_first_run(project, mistake):
    file = Path("res/tiny-1.json")
    content = file.read_text()
    file.write_text(json.dumps({k: v for k, v in json.loads(content).items() if k != "sha256"}))
    assert "was changed after it was written" in mistake(*COMMAND[1:], "out=res")
    shutil.copy("res/tiny-0.json", file)
    assert "tiny-1.json is the record of tiny-0; delete it to run tiny-1" in mistake(*COMMAND[1:], "out=res")
    file.write_text(content)
    Path("res/my-notes.json").write_text("{}")
    new = [a for a in COMMAND[1:] if not a.startswith("seeds")]
    assert "my-notes.json is no record" in mistake(*new, "seeds=0,1,2", "out=res")
    assert not Path("res/tiny-2.json").exists()


def test_a_folder_that_is_in_use_is_refused(project, mistake):
    with records.claimed(Path("res"), "out="):
        assert "out=res is in use by another process" in mistake(*COMMAND[1:], "out=res")


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_children_end_with_their_parent_and_the_next_command_goes_on(project, shell, command, by):
    arguments = [a for a in COMMAND if not a.startswith(("epochs", "seeds"))]
    arguments += ["epochs=300", "seeds=7", "out=killed"]
    driver = subprocess.Popen(
        [sys.executable, "-m", "ultralytics_sgdm", *arguments],
        env=shell.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # else ignored where these tests are
    )
    try:
        end = time.monotonic() + HUNG
        while not list(Path("runs/compare/killed").glob("tiny-7-*/weights/last.pt")):
            assert driver.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        (child,) = (c for c in psutil.Process(driver.pid).children() if "evidence.runners" in " ".join(c.cmdline()))
        driver.send_signal(by)
        driver.wait(HUNG / 10)
    finally:
        driver.kill()
        driver.wait()
    psutil.wait_procs([child], timeout=HUNG)
    assert not child.is_running()
    assert not list(Path("killed").glob("*.json"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tiny.yaml", "data=nosuch.yaml"), "'nosuch.yaml' does not exist"),
        (("tiny.yaml", "data=yolov8.yaml"), "data=yolov8.yaml is a model"),
        (("tiny.yaml", "data=data.yaml", "freeze=Stock"), "freeze='Stock' must be 'stock', a number of layers"),
        (("tiny.yaml", "data=data.yaml", "epoch=2"), "epoch= is no argument of Ultralytics; did you mean 'epochs'?"),
        (("tiny.yaml", "tiny.yaml", "data=data.yaml"), "tiny is named twice"),
        (("tiny-sdgm.yaml", "data=data.yaml"), "'tiny-sdgm.yaml' does not exist"),
        (("tiny.yaml",), "name the models, and the data set with data="),
        (("data=data.yaml",), "data set with data=: yolo sgdm compare yolov8n.yaml yolov8n-sgdm.yaml data=my.yaml"),
        (("tiny.yaml", "data=data.yaml", "seeds=0,0"), "seeds=0,0 must be different whole numbers"),
        (("tiny.yaml", "data=data.yaml", "seeds=0,1000", "repeat=1"), "repeat=1 takes seeds 1000 further on"),
        (("tiny#1.yaml", "data=data.yaml"), "'tiny#1' cannot be the name of an arm"),
        (("tiny.yaml", "data=data.yaml", "seeds=a"), "seeds=a must be a whole number"),
        (("tiny.yaml", "data=data.yaml", "seed=3"), "seed= is set by each run"),
        (
            ("tiny.yaml", "data=data.yaml", "cfg=my.yaml"),
            "cfg= would take the recipe from a file that may change unseen",
        ),
        (("tiny.yaml", "data=data.yaml", "split=test"), "split= has no effect on what is scored"),
        (("tiny.pt", "data=data.yaml"), "tiny.pt is no model YAML (.yaml)"),
        (("tiny.yaml", "data=data.yaml", "jobs=0"), "jobs= must be 1 or more"),
        (("tiny.yaml", "data=data.yaml", "pretrained=nosuch.pt"), "nosuch.pt"),
        (("tiny.yaml", "data=notest.yaml"), "loading data from"),
        (("tiny.yaml", "data=data.yaml", "layers=nosuch.py"), "layers=nosuch.py does not exist"),
        (("tiny.yaml", "data=data.yaml", "folds=99"), "folds=99 must be from 2 to 14"),
        (("tiny.yaml", "data=data.yaml", "epochs=abc"), "'epochs=abc'"),
        (("tiny.yaml", "data=data.yaml", "lr0=2"), "'lr0=2' "),
        (("yolov8n-seg.yaml", "data=data.yaml"), "yolov8n-seg.yaml is a model of the task segment, this takes detect"),
        pytest.param(
            ("tiny.yaml", "data=data.yaml", "device=7"),
            "device=7 is not to be had: PyTorch finds no CUDA GPU here",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU"),
        ),
        (("plan=nosuch.yaml",), "plan=nosuch.yaml cannot be read"),
        (("tiny.yaml", "plan=plan.yaml"), "plan= states models, data, seeds and recipe: leave them out"),
    ],
)
def test_mistakes_are_said_before_the_first_run(mistake, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(make_project(tmp_path))
    spec = yaml.safe_load(Path("data.yaml").read_text())
    Path("notest.yaml").write_text(yaml.safe_dump({**spec, "test": str(tmp_path / "empty")}))
    Path("empty").mkdir()
    assert message in mistake("compare", *arguments, "out=new")
    assert not Path("new").exists()


def test_kernels_that_bf16_never_ends_with_are_refused(mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(make_project(tmp_path))
    for kernel in ([1, 15], [15, 1], [1, 13]):
        rows = [*TINY["backbone"][:-1], [-1, 1, "C2fSGDM", [32, True, {"ratio": 1, "kernels": [kernel]}]]]
        Path("own.yaml").write_text(yaml.safe_dump({**TINY, "backbone": rows}))
        assert widest_depthwise(YOLO("own.yaml").model) == kernel[1]
        if kernel[1] > 13:
            said = mistake("compare", "tiny.yaml", "own.yaml", "data=data.yaml", "bf16=True", "out=new")
            assert "own.yaml: PyTorch does not return from a depthwise convolution 15 wide in bf16 on a CPU" in said
    assert not Path("new").exists()


def test_the_device_and_the_files_of_an_arm_count_as_those_of_all(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def plan(arm, **recipe):
        return plans.Plan("", (plans.Arm("a", "tiny.yaml"), arm), "data.yaml", recipe, ((0,),), 0, 0, "", bf16=True)

    for arm in ({"recipe": {"device": "cpu"}}, {"first": {"device": "CPU"}}):
        given = plan(plans.Arm("b", "tiny.yaml", **arm), device=0)
        assert [compare._bf16_on_cpu(given, a) for a in given.arms] == [False, True]
        with pytest.raises(ConfigError, match="leave device= out"):
            runners.check_ray("local", [given.recipe, *({**a.recipe, **a.first} for a in given.arms)])
        for key in ("data", "cfg"):
            with pytest.raises(ConfigError, match=f"{key}= "):
                compare.check_recipe(plan(plans.Arm("b", "tiny.yaml", **{next(iter(arm)): {key: "x.yaml"}})))
    given = plan(plans.Arm("b", "tiny.yaml", {"device": 0}), device="cpu")
    assert [compare._bf16_on_cpu(given, a) for a in given.arms] == [True, False]
    assert not compare._bf16_on_cpu(plan(given.arms[0]), given.arms[0])  # without a word the GPU is taken

    monkeypatch.chdir(make_project(tmp_path))
    digests = []
    for content in ("one", "two"):
        Path("start.pt").write_text(content)
        digests.append(bind("tiny.yaml", {"data": "data.yaml"}, False, {"pretrained": "start.pt"})["recipe"])
    assert digests[0] != digests[1]


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


def test_a_set_that_changed_has_new_folds(command, mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(make_project(tmp_path))
    arguments = ("compare", "tiny.yaml", *RECIPE, "epochs=1", "seeds=0", "folds=2", "out=res")
    arguments = [a for a in arguments if a != "epochs=2"]
    assert command("sgdm", *arguments)[0] == 0
    next(Path("shapes/labels/val").glob("*.txt")).write_text("0 0.5 0.5 0.2 0.2\n")
    assert "was made with another data" in mistake(*arguments)
    next(Path("shapes/images/val").glob("*.jpg")).unlink()  # what the old folds link to
    assert "was made with another data" in mistake(*arguments)


def test_a_disk_that_is_full_leaves_what_was_there(project, command, monkeypatch):
    before = {file: file.read_bytes() for file in Path("res").iterdir()}

    def full(file, content):
        with file.open("wb") as f:
            f.write(content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    status, _, error = command(*COMMAND, "out=res", "resamples=200")
    assert (status, error) == (2, "error: res/analysis.json cannot be written: No space left on device\n")
    assert {file: file.read_bytes() for file in Path("res").iterdir()} == before


def test_an_analysis_that_is_broken_or_edited_is_named(project, mistake):
    file = Path("res/analysis.json")
    content = file.read_text()
    next(Path("runs/compare/res").glob("tiny-0-*/detections.npz")).write_bytes(b"PK")  # so what is kept is read
    for text in ("{", "[]", "{}", content.replace('"mean": ', '"mean": 1')):
        file.write_text(text)
        assert "analysis.json is not as this command wrote it; move it away" in mistake(*COMMAND[1:], "out=res")


def test_an_output_that_cannot_be_written_is_one_line(mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(make_project(tmp_path))
    Path("file").touch()
    given = ("compare", "tiny.yaml", "data=data.yaml", "out=res")
    assert "scratch=file/runs/res cannot be written" in mistake(*given, "scratch=file/runs")
    with records.claimed(Path("runs/compare/res"), ""):
        assert "scratch=runs/compare/res is in use by another process" in mistake(*given[:-1], "out=other/res")
    for out in ("file/res", "/proc/nowhere"):
        assert f"out={out} cannot be written" in mistake("compare", "tiny.yaml", "data=data.yaml", f"out={out}")


def test_folds_and_repetitions_and_a_plan_with_its_verdict(yolo, project, mistake):
    plan = {
        "question": "Is SGDM better on shapes?",
        "arms": [MODELS[0], {"model": MODELS[1], "first": {"freeze": "stock", "epochs": 2}}],
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
    printed = yolo("sgdm", "compare", "plan=plan.yaml", "out=planned", "jobs=2", "resamples=100", cwd=project)
    assert printed.rstrip().endswith("- tiny-sgdm: equal")
    assert "Is SGDM better" in Path("planned/verdict.md").read_text()
    assert len(list(Path("planned").glob("tiny-*-fold?.json"))) == 8
    analysis = json.loads(Path("planned/analysis.json").read_text())
    assert analysis["pictures"] == 14
    folder = scratch("tiny-sgdm-0-fold0", "planned")
    first, last = (torch.load(folder / f, weights_only=False)["train_args"] for f in ("first/weights/last.pt", LAST))
    assert (first["freeze"], first["epochs"], last["freeze"], last["epochs"]) == ("stock", 2, None, 1)
    assert Path(last["pretrained"]) == folder.resolve() / "first/weights/last.pt"

    # a rule that is changed afterwards, though committed, gives no verdict on these runs
    Path("plan.yaml").write_text(yaml.safe_dump({**plan, "better": 0.1}))
    subprocess.run([*git, "commit", "-am", "easier"], check=True, capture_output=True)
    assert "plan.yaml was changed since planned was begun" in mistake("compare", "plan=plan.yaml", "out=planned")
    Path("plan.yaml").write_text(yaml.safe_dump(plan))

    # without detections at hand the same figures come from what is kept, and none where a record is missing
    text = Path("planned/summary.md").read_text()
    shutil.rmtree("runs")
    read = plans.read(Path("plan.yaml"))
    Report(Path("planned"), read, 0, Path("runs")).write()
    assert Path("planned/summary.md").read_text() == text
    two = Report(Path("planned"), replace(read, looks=((0,), (1,))), 0, Path("runs"))
    assert [list(seeds) for seeds in two.runs.values()] == [
        [0],
        [0],
    ]  # the first look again, without the second's seeds
    Path("planned/tiny-sgdm-1-fold1.json").unlink()
    with pytest.raises(ConfigError, match="planned lacks tiny-sgdm-1-fold1: no difference is reported"):
        Report(Path("planned"), read, 0, Path("runs"))


def test_a_repetition_of_the_reference_is_the_noise_floor(project, command):
    arguments = [a for a in COMMAND if not a.startswith(("epochs", "seeds")) and a != "tiny-sgdm.yaml"]
    status, printed, _ = command(*arguments, "epochs=1", "seeds=0", "repeat=1", "out=repeated")
    assert status == 0
    assert "Noise floor: 1 pairs of identical arms differ by" in printed
    assert record("tiny#1-1000", "repeated")["seed"] == 1000


def test_the_figures_of_a_summary_follow_from_the_records():
    """Two arms of known scores: mean, difference, and both intervals over seeds by hand."""

    def run(arm, seed, value):
        keys = {"parameters": 1, "gflops": 1.0, "minutes": 1.0, "classes": {}, "curve": [value]}
        return {"arm": arm, "model": f"{arm}.yaml", "seed": seed, "mAP50-95": value, "mAP50": value, **keys}

    found = {f"{a}-{s}": run(a, s, v / 100) for a, s, v in (("a", 0, 10), ("a", 1, 12), ("b", 0, 13), ("b", 1, 14))}
    runs = report.by_arm(found, "a")
    row = report.summary(runs, None)[1]
    assert (row["mAP50-95"], row["mAP50-95 difference"], row["mAP50-95 std"]) == (13.5, 2.5, 0.71)
    assert row["mAP50-95 +- seeds"] == pytest.approx(12.7062 * 0.7071 / 2**0.5, abs=0.01)
    assert row["mAP50-95 +- pooled"] == pytest.approx(4.3027 * (2.5 / 2) ** 0.5, abs=0.01)
    assert row["mAP50-95 +- both"] == ""
    found |= {"a-2024": run("a", 2024, 0.10), "a#1-3024": run("a#1", 3024, 0.12), "b-2024": run("b", 2024, 0.13)}
    more = report.by_arm(found, "a")
    assert report.differences(more, None, "b", "mAP50-95")[2024] == pytest.approx(3)
    assert report.differences(more, None, "a#1", "mAP50-95") == {3024: pytest.approx(2)}
    found["b-2"] = run("b", 2, 0.5)
    with pytest.raises(ConfigError, match=r"b has seeds \[2\] that a lacks"):
        report.by_arm(found, "a")
