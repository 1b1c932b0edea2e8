import inspect
import re
import sys
from pathlib import Path

import pytest

from ultralytics_sgdm import __version__, cli, commands
from ultralytics_sgdm.errors import ConfigError, wrap_errors
from ultralytics_sgdm.nn import registry
from ultralytics_sgdm.placing import zoo


def test_models_is_a_table_of_each_family_beside_stock(command, monkeypatch):
    some = {"yolov8-sgdm": ["yolov8n-sgdm.yaml", "yolov8s-sgdm.yaml"], "yolov5-rdconv": ["yolov5n-rdconv.yaml"]}
    monkeypatch.setattr(zoo, "list_families", lambda: some)
    status, out, _ = command("sgdm", "models")
    assert status == 0
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines()]
    assert rows[0][:4] == ["family", "scale", "model", "stock parameters"]
    expected = ["3,157,200", "3,343,752", "+186,552", "8.86", "8.95", "+0.10"]
    assert rows[2] == ["yolov8", "n", "yolov8n-sgdm.yaml", *expected]
    assert [row[2] for row in rows[2:]] == ["yolov8n-sgdm.yaml", "yolov5n-rdconv.yaml"]
    _, out, _ = command("sgdm", "models", "scale=s")
    assert "yolov8s-sgdm.yaml" in out and "yolov8n-sgdm.yaml" not in out


def test_layers_lists_what_each_parses_like(command):
    _, out, _ = command("sgdm", "layers")
    rows = [line.split() for line in out.splitlines()]
    assert ["RDConv", "Conv", "ultralytics_sgdm.nn.rdconv.RDConv"] in rows
    assert ["C2fSGDM", "C2f", "ultralytics_sgdm.nn.csp.C2fSGDM"] in rows


@pytest.mark.parametrize("argv", [(), ("help",), ("--help",)])
def test_help_lists_the_commands(command, argv):
    status, out, _ = command("sgdm", *argv)
    assert status == 0
    assert all(f"\n  {name} " in out for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_a_command_says_what_each_argument_means(command, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function = cli.command(name)
    for argv in ((name, "--help"), ("help", name), (name, "some=thing", "-h")):
        status, out, _ = command("sgdm", *argv)
        assert status == 0
        assert out.startswith(f"usage: yolo sgdm {name}")
        for key in inspect.signature(function).parameters:
            assert re.search(rf"^    {key}: \S", out, re.M), key
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_commands_are_there_without_the_extras(shell):
    hidden = ("scipy", "statsmodels", "pandas", "sklearn", "timm", "ray", "onnx", "onnxruntime", "imagehash")
    code = f"import sys; sys.modules.update(dict.fromkeys({hidden})); from ultralytics_sgdm import cli\n"
    code += "for name in cli.COMMANDS: cli.run_command([name, '--help'])"
    out = shell(sys.executable, "-c", code)
    assert all(f"usage: yolo sgdm {name}" in out for name in cli.COMMANDS)


@pytest.mark.parametrize(
    ("argv", "module", "extra"),
    [
        (("baselines", "yolov8n.yaml"), "timm", "compare"),
        (("benchmark", "yolov8n.yaml", "imgsz=64", "rounds=1"), "onnxruntime", "export"),
        (("compare", "yolov8n.yaml", "yolov8n-sgdm.yaml", "data=a.yaml", "out=b"), "scipy", "compare"),
        (("compare", "yolov8n.yaml", "yolov8n-sgdm.yaml", "data=a.yaml", "out=b", "ray=local"), "ray", "ray"),
    ],
)
def test_a_missing_extra_is_one_line_with_the_command_that_installs_it(
    mistake, monkeypatch, tmp_path, argv, module, extra
):
    monkeypatch.chdir(tmp_path)
    for name in [
        m for m in sys.modules if m == "ultralytics_sgdm.evidence.baselines" or f"{m}.".startswith(f"{module}.")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(registry, "_layers", {k: v for k, v in registry._layers.items() if k != "TimmCBAM"})
    monkeypatch.setitem(sys.modules, module, None)
    assert mistake(*argv) == f"this needs {module}: in the clone, pip install '.[{extra}]'"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("sgdm", "modls"), "unknown command 'yolo sgdm modls'; did you mean 'models'?"),
        (("sgdm", "equip", "nosuch.yaml"), "'nosuch.yaml' does not exist"),
        (("sgdm", "noise", "a.pt", "data=a", "out=a", "imgsz=64", "jpeg=500"), "jpeg= must be qualities from 1 to 100"),
        (("sgdm", "nosuch"), "unknown command 'yolo sgdm nosuch'; yolo sgdm help lists the commands"),
        (("equip", "yolov8n.yaml"), "'yolo equip' is not a command; did you mean 'yolo sgdm equip'?"),
        (("sgdm", "visualize", "yolov8n-sgdm.yaml", "a.jpg", "out="), "out= needs a value"),
        *(
            (("sgdm", "compare", "yolov8n.yaml", "yolov8n-sgdm.yaml", "data=a.yaml", "out=a", wrong), message)
            for wrong, message in (
                ("epochs=abc", "'epochs=abc' is of invalid type str"),
                ("seeds=-1", "seeds"),
                ("groups=x", "folds"),
                (f"layers={Path(__file__).parents[1] / 'Makefile'}", "Makefile"),
            )
        ),
        (("sgdm", "noise", "a.pt", "data=a.yaml", "out=a", "imgsz=64", "blur=nan"), "strengths must be above 0"),
        (("sgdm", "noise", "a.pt", "data=a.yaml", "out=a", "imgsz=64", "conf=2"), "'conf=2' "),
        (("sgdm", "predict", "a.onnx", "b=*.jpg"), "'yolo sgdm predict' has no argument b=, its arguments are: model="),
        (("sgdm", "models", "scal=n"), "has no argument scal=, its arguments are: scale=; did you mean 'scale'?"),
        (("sgdm", "equip", "ratio=3"), "missing a required argument: 'model'; usage: yolo sgdm equip MODEL [ratio=]"),
        (("sgdm", "equip", "model=yolov8n.yaml", "at=head"), "at=head: 'head' is not one of backbone, neck"),
        (("sgdm", "equip", "yolov8n.yaml", "ratio=big"), "ratio=big: input should be a valid number"),
        (("sgdm", "equip", "yolov8n.yaml", "ratio=2", "ratio=3"), "ratio= is given twice"),
        (("sgdm", "layers", "x=1"), "has no argument x=, its arguments are: none"),
        (("sgdm", "models", "scale=z"), "scale='z' must be letters of 'tnsmbclex'"),
        (("train", "model=yolov8n-sgmd.yaml"), "'yolov8n-sgmd.yaml' does not exist; did you mean 'yolov8n-sgdm.yaml'"),
        (
            ("train", "model=yolov8n-sgdm.pt", "data=shapes.yaml"),
            "there are no published weights of this model; train it",
        ),
        (
            ("train", "model=yolov8n-sgdm.yaml", "pretrained=yolov8n-sgdm.pt", "data=shapes.yaml", "device=cpu"),
            "model=yolov8n-sgdm.yaml pretrained=yolov8n.pt",
        ),
        (
            ("val", "model=yolov8n-sgdm.yaml", "data=shaps.yaml", "device=cpu"),
            "'shaps.yaml' does not exist; did you mean 'shapes.yaml'",
        ),
    ],
)
def test_mistakes_are_one_line_and_status_2(command, argv, message):
    status, _, error = command(*argv)
    (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
    assert status == 2
    assert message in line
    assert "Traceback" not in error


def test_values_have_the_types_of_the_signature_and_text_stays_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("z=1").mkdir()
    Path("z=1/2.jpg").touch()

    def function(
        src: str, *more: str, classes: str | None = None, n: int = 3, wide: bool = False, ks: list[int] | None = None
    ):
        """Do nothing."""

    def read(*argv):
        return commands.parse("it", function, argv)

    for text in ("true", "1e3", "[a", "a=b", "class," * 60):  # longer than the name of a file may be
        assert read("x", f"classes={text}") == (("x",), {"classes": text})
    assert read("x", "y", "z=1/2.jpg", "n=4") == (("x", "y", "z=1/2.jpg"), {"n": 4})
    assert read("more=y,z", "src=x", "--wide=True") == (("x", "y", "z"), {"wide": True})
    assert read("x", "ks=[1, 2]", "wide=no", "classes=none") == (("x",), {"ks": [1, 2], "wide": False, "classes": None})
    with pytest.raises(ConfigError, match="n=much: input should be a valid integer"):
        read("x", "n=much")


def test_a_foreign_error_is_a_line_with_a_reason_but_what_is_no_mistake_passes():
    for error, line in (
        (AssertionError(), "x: AssertionError"),
        (KeyError("y"), "x: no key 'y'"),
        (OSError("z"), "x: z"),
    ):
        with pytest.raises(ConfigError, match=f"^{line}; fix$"), wrap_errors("x", "; fix"):
            raise error
    with pytest.raises(MemoryError), wrap_errors("x"):
        raise MemoryError


@pytest.mark.parametrize("argv", [("sgdm", "layers"), ("version",)])
def test_ctrl_c_is_one_line_and_130(command, monkeypatch, argv):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "layers", interrupted)
    monkeypatch.setattr(cli.cfg, "entrypoint", interrupted)
    assert command(*argv) == (130, "", "stopped\n")


@pytest.mark.slow
def test_a_reader_that_goes_is_no_error(shell, yolo, tmp_path):
    yolo("version")  # has made its settings, of which it tells on standard output
    line = f"{sys.executable} -m ultralytics_sgdm sgdm layers | true"
    assert shell("bash", "-c", f"set -o pipefail; {line}", cwd=tmp_path, status=141, PYTHONUNBUFFERED="") == ""


@pytest.mark.parametrize("argv", [("help",), ("-h",), ("version",)])
def test_help_and_version_of_ultralytics_mention_the_package(command, monkeypatch, argv):
    monkeypatch.setattr(cli.cfg, "entrypoint", lambda: None)
    assert f"ultralytics_sgdm {__version__}: yolo sgdm help" in command(*argv)[1]


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (None, "none on PATH"),
        ("from ultralytics_sgdm.cli import main", "of ultralytics_sgdm"),
        ("import other", "yolo-sgdm"),
    ],
)
def test_checks_says_whose_yolo_is_on_path(command, monkeypatch, tmp_path, script, says):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(cli.cfg, "entrypoint", lambda: None)
    if script:
        (tmp_path / "yolo").write_text(f"#!/usr/bin/env python\n{script}\n")
        (tmp_path / "yolo").chmod(0o755)
    status, out, _ = command("checks")
    assert status == 0
    assert f"ultralytics_sgdm {__version__}" in out
    assert says in out.splitlines()[-1]
