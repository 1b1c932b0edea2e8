"""The table of models, and docs/models.md, which holds it."""

from pathlib import Path

import pytest
from ultralytics.nn import tasks
from ultralytics.utils.torch_utils import get_num_params

from ultralytics_sgdm.configs import stock_name
from ultralytics_sgdm.placing import zoo
from ultralytics_sgdm.placing.outline import build_outline

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/models.md").read_text(encoding="utf-8")
TABLE = DOCUMENT[DOCUMENT.index("| family |") :].splitlines()
CELLS = {line.split(" | ")[2]: line.split(" | ") for line in TABLE[2:]}
FAMILIES = zoo.list_families()


def documented(name):
    """Parameters of the stock model, of the equipped one, and the difference."""
    return [int(cell.replace(",", "")) for cell in CELLS[name][3:6]]


def test_the_document_lists_every_family_task_and_scale():
    assert list(CELLS) == [name for names in FAMILIES.values() for name in names]


@pytest.mark.long
def test_the_document_says_what_the_command_prints(capsys):
    zoo.models()
    printed = capsys.readouterr().out
    assert set(printed.splitlines()) <= set(TABLE)


@pytest.mark.parametrize("name", [names[-1] for names in FAMILIES.values() if len(names) > 1])
def test_the_largest_build_and_count(name):
    stock, ours = (get_num_params(build_outline(tasks.yaml_model_load(n))) for n in (stock_name(name), name))
    assert documented(name) == [stock, ours, ours - stock]
