import sys

import pytest

from ultralytics_sgdm import __version__, cli, zoo


@pytest.fixture
def command(monkeypatch, capsys):
    """Run the command line in this process; return exit status and what it printed."""

    def run(*argv):
        monkeypatch.setattr(sys, "argv", ["yolo", *argv])
        monkeypatch.setattr(cli.cfg, "ARGV", sys.argv)
        try:
            cli.main()
            status = 0
        except SystemExit as e:
            status = e.code
        return status, capsys.readouterr().out

    return run


def test_models_is_a_table_of_each_family_beside_stock(command, monkeypatch):
    some = {"yolov8-sgdm": ["yolov8n-sgdm.yaml", "yolov8s-sgdm.yaml"], "yolov5-rdconv": ["yolov5n-rdconv.yaml"]}
    monkeypatch.setattr(zoo, "families", lambda: some)
    status, out = command("sgdm", "models")
    assert status == 0
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines()]
    assert rows[0][:4] == ["family", "scale", "model", "stock parameters"]
    expected = ["3,157,200", "3,344,628", "+187,428", "8.86", "9.13", "+0.27"]
    assert rows[2] == ["yolov8", "n", "yolov8n-sgdm.yaml", *expected]
    assert [row[2] for row in rows[2:]] == ["yolov8n-sgdm.yaml", "yolov5n-rdconv.yaml"]
    _, out = command("sgdm", "models", "scale=s")
    assert "yolov8s-sgdm.yaml" in out and "yolov8n-sgdm.yaml" not in out


def test_layers_lists_what_each_parses_like(command):
    _, out = command("sgdm", "layers")
    rows = [line.split() for line in out.splitlines()]
    assert ["RDConv", "Conv", "ultralytics_sgdm.nn.rdconv.RDConv"] in rows
    assert ["C2fSGDM", "C2f", "ultralytics_sgdm.nn.csp.C2fSGDM"] in rows


@pytest.mark.parametrize("argv", [(), ("help",), ("--help",)])
def test_help_lists_the_commands(command, argv):
    status, out = command("sgdm", *argv)
    assert status == 0
    assert all(name in out for name in cli.COMMANDS)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("sgdm", "modls"), "unknown command 'yolo sgdm modls'; did you mean 'models'?"),
        (("sgdm", "models", "scal=n"), "has no argument 'scal=n', its arguments are: scale=; did you mean 'scale'?"),
        (("sgdm", "equip", "ratio=3"), "MODEL missing; usage: yolo sgdm equip MODEL [ratio=]"),
        (("sgdm", "equip", "model=yolov8n.yaml", "at=head"), "at=head: 'head' is none of backbone, neck"),
        (("sgdm", "models", "scale"), "has no argument 'scale', its arguments are: scale="),
        (("sgdm", "layers", "x=1"), "has no argument 'x=1', its arguments are: none"),
        (("sgdm", "models", "scale=z"), "scale='z' must be letters of 'tnsmbclex'"),
        (("train", "model=yolov8n-sgmd.yaml"), "'yolov8n-sgmd.yaml' does not exist; did you mean 'yolov8n-sgdm.yaml'"),
        (
            ("val", "model=yolov8n-sgdm.yaml", "data=shaps.yaml", "device=cpu"),
            "'shaps.yaml' does not exist; did you mean 'shapes.yaml'",
        ),
    ],
)
def test_mistakes_are_one_line(command, argv, message):
    status, _ = command(*argv)
    assert status.startswith("error: ")
    assert message in status


def test_no_traceback_for_a_row_of_a_yaml(yolo, tmp_path):
    (tmp_path / "yolov8-typo.yaml").write_text(
        "nc: 1\nbackbone:\n  - [-1, 1, SGMD, [16]]\nhead:\n  - [-1, 1, Detect, [nc]]\n"
    )
    out = yolo("train", "model=yolov8-typo.yaml", "data=shapes.yaml", cwd=tmp_path, status=1)
    assert "Traceback" not in out
    assert (
        "yolov8-typo.yaml, backbone row 1 (layer 0), [-1, 1, 'SGMD', [16]]: unknown module 'SGMD'; did you mean 'SGDM'"
        in out
    )


def test_a_dataset_mistake_in_training_is_one_line_too(yolo, tmp_path):
    out = yolo("train", "model=yolov8n-sgdm.yaml", "data=shaps.yaml", cwd=tmp_path, status=1)
    assert "Traceback" not in out
    assert "error: data='shaps.yaml' does not exist; did you mean 'shapes.yaml'" in out


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
    status, out = command("checks")
    assert status == 0
    assert f"ultralytics_sgdm {__version__}" in out
    assert says in out.splitlines()[-1]
