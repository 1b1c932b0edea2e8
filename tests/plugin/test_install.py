"""Beside other plugins, and with an Ultralytics that is not known: stock models stay usable."""

import sys
import textwrap

import pytest

pytestmark = pytest.mark.slow

TAIL = """
import logging
from ultralytics import YOLO
from ultralytics.utils import LOGGER
said = []
LOGGER.warning = lambda text, *a: said.append(str(text))
import ultralytics_sgdm
ours = [text for text in said if "ultralytics_sgdm" in text]
print("WARNINGS", len(ours), *ours)
print("STOCK", len(YOLO("yolov8n.yaml").model.model))
try:
    print("OURS", type(YOLO("yolov8n-sgdm.yaml").model.model[8]).__name__)
except Exception as e:
    print("OURS", type(e).__name__, e)
"""


@pytest.fixture
def python(shell, tmp_path):
    """Run a script, then a build of a stock and of our model; return what was said, each by its first word."""

    def run(script, tail=TAIL):
        (tmp_path / "script.py").write_text(textwrap.dedent(script) + tail)
        lines = shell(sys.executable, "script.py", cwd=tmp_path).splitlines()
        return {line.split()[0]: line.partition(" ")[2] for line in lines if line.split()[:1] and line[0].isupper()}

    return run


OTHER = """
import functools
from ultralytics.nn import tasks
stock = tasks.parse_model
{}
def parse_model(*args, **kwargs):
    print("OTHER was", "called")
    return stock(*args, **kwargs)
tasks.parse_model = parse_model
"""
NEWER = """
import inspect, linecache
import ultralytics.nn
from ultralytics.nn import tasks
source = inspect.getsource(tasks.parse_model).replace("verbose=True)", "verbose=True, more=None)", 1)
open("newer.py", "w").write(source)
exec(compile(source, "newer.py", "exec"), vars(tasks))
ultralytics.nn.parse_model = tasks.parse_model
"""


@pytest.mark.parametrize(
    "script",
    [
        OTHER.format("@functools.wraps(stock)"),
        OTHER.format(""),
        NEWER,
        "import sys; sys.modules['ultralytics.solutions'] = None",
    ],
    ids=["wrapped parser", "replaced parser", "a keyword more in the parser", "a module that may not be imported"],
)
def test_what_needs_no_word_gets_none(python, script):
    said = python(script)
    assert (said["WARNINGS"], said["STOCK"], said["OURS"]) == ("0", "23", "C2fSGDM")
    assert said.get("OTHER") == ("was called" if "OTHER" in script else None)


def test_with_a_parser_that_is_not_known_stock_models_go_on_with_one_warning(python):
    said = python("""
        import ultralytics.nn
        from ultralytics.nn import tasks
        class Parser:
            __module__, __qualname__ = "rival", "Parser"
            def __init__(self, parser):
                self.parser = parser
            def __call__(self, *args, **kwargs):
                return self.parser(*args, **kwargs)
        ultralytics.nn.parse_model = tasks.parse_model = Parser(tasks.parse_model)
        ultralytics.__version__ = "8.9.0"
    """)
    assert said["STOCK"] == "23" and said["OURS"].startswith("KeyError")
    assert said["WARNINGS"].startswith("1 ultralytics_sgdm was tested with Ultralytics 8.4.")
    assert "this is 8.9.0: models with registered layers (RDConv, SGDM, ...) cannot be built (" in said["WARNINGS"]
    assert "parse_model was replaced by rival.Parser; import ultralytics_sgdm before it" in said["WARNINGS"]


GONE = {
    "from ultralytics.nn import tasks; del tasks.BaseModel.load": "pretrained weights do not follow",
    "from ultralytics.utils import dist; del dist.torch_save": "multi-GPU training and tuning",
    "from ultralytics.engine.trainer import BaseTrainer as B; del B.setup_model": "freeze=stock freezes nothing",
    "import sys; sys.modules['ultralytics.engine.exporter'] = None": "half-precision ONNX",
}


def test_a_patch_that_does_not_fit_takes_its_feature_alone(python):
    said = python("\n".join(GONE))
    assert said["WARNINGS"].startswith("1 ") and said["WARNINGS"].count("Error: ") == len(GONE)
    assert all(missing in said["WARNINGS"] for missing in GONE.values())
    assert said["STOCK"] == "23" and said["OURS"] == "C2fSGDM"


def test_an_ultralytics_without_a_layer_that_ours_is_made_of_is_named(shell, tmp_path):
    script = "import ultralytics.nn.modules as m; del m.A2C2f; import ultralytics_sgdm"
    out = shell(sys.executable, "-c", script, cwd=tmp_path, status=1).splitlines()[-1]
    assert "A2C2f" in out and "; ultralytics_sgdm was tested with Ultralytics 8.4." in out


def test_a_version_outside_the_range_is_warned_of_once(python):
    again = 'ultralytics_sgdm.plugin.install()\nprint("AGAIN", len(said))\n'
    said = python('import ultralytics\nultralytics.__version__ = "8.5.1"', TAIL + again)
    assert said["WARNINGS"].startswith("1 ultralytics_sgdm was tested with Ultralytics 8.4.")
    assert said["WARNINGS"].endswith("this is 8.5.1") and said["OURS"] == "C2fSGDM" and said["AGAIN"] == "1"
