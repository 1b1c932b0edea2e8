import subprocess
from pathlib import Path

import pytest
import yaml

from ultralytics_sgdm.errors import ConfigError
from ultralytics_sgdm.evidence import plan as plans

pytest.importorskip("pydantic")
PLAN = {
    "question": "Which is better?",
    "models": ["a.yaml", {"name": "b", "model": "a.yaml", "recipe": {"lr0": 0.1}}],
    "data": "data.yaml",
    "recipe": {"epochs": 3},
    "seeds": [0, 1, 2],
    "better": 0.7,
    "equal": 0.5,
    "stop": "after three seeds",
}
ROOT = Path(__file__).parents[2]


def write(folder, **changes):
    file = folder / "plan.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in {**PLAN, **changes}.items() if v is not None}))
    return file


def test_a_plan_states_models_and_seeds(tmp_path):
    plan = plans.read(write(tmp_path))
    a, b = plan.models
    assert (a.name, b.name, b.recipe, plan.seeds) == ("a", "b", {"lr0": 0.1}, [0, 1, 2])
    assert plans.read(write(tmp_path, models=None, arms=PLAN["models"])) == plan


def test_a_plan_of_an_older_release_is_read_for_its_report_alone(tmp_path):
    models = ["a.yaml", {"model": "b.yaml", "first": {"epochs": 2}}, {"model": "c.yaml", "seeds": [0, 1]}]
    file = write(tmp_path, models=None, arms=models, seeds=[[0, 1], [2]], metric="mAP50-95")
    plan = plans.read(file, old=True)
    assert [variant.name for variant in plan.models] == ["a", "b", "c"]
    assert plan.seeds == [0, 1, 2]
    with pytest.raises(ConfigError):
        plans.read(file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stop": None}, "plan.yaml: stop: "),
        ({"model": []}, "plan.yaml: model: .*; did you mean 'models'"),
        ({"seeds": "0"}, "seeds: Input should be a valid"),
        ({"seeds": [[0, 1], [2]]}, "seeds.0: Input should be a valid integer"),
        ({"seeds": [0, 0]}, "must be different whole numbers"),
        ({"seeds": [-1, 0]}, "must be different whole numbers of 0 or more"),
        ({"seeds": [True]}, "seeds.0: Input should be a valid integer"),
        ({"models": ["a.yaml", {"model": "b.yaml", "seeds": [0]}]}, "models.1.seeds: "),
        ({"models": ["a.yaml", {"model": "b.yaml", "first": {}}]}, "models.1.first: "),
        ({"models": ["a.yaml", {"model": "b.yaml", "name": "x/b"}]}, "each model needs a name of its own"),
        ({"models": ["a.yaml", ""]}, "each model needs a name of its own"),
        ({"models": ["a.yaml", "x/a.yaml"]}, "each model needs a name of its own"),
        ({"models": ["a.yaml"]}, "two models or more"),
        ({"question": " "}, "it needs a question"),
        ({"better": True}, "better: Input should be a valid number"),
        ({"better": float("nan")}, "must be 0 or more"),
        ({"equal": -0.5}, "must be 0 or more"),
        ({"folds": True}, "folds: Input should be a valid integer"),
        ({"groups": "(.)"}, "says what stays together in folds: state folds too"),
    ],
)
def test_a_mistake_in_a_plan_is_named_in_one_line(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        plans.read(write(tmp_path, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["- a", "a: [", "", "\tb"])
def test_a_file_that_is_not_a_plan_is_named(tmp_path, text):
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"plan.yaml"):
        plans.read(tmp_path / "plan.yaml")


def test_a_plan_is_committed_as_it_is(tmp_path):
    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    file = write(tmp_path)
    git("init")
    with pytest.raises(ConfigError, match="must be committed before its runs: git add"):
        plans.find_commit(file)
    git("add", "plan.yaml")
    git("commit", "-m", "plan")
    assert len(plans.find_commit(file)) == 40
    write(tmp_path, better=0.1)
    with pytest.raises(ConfigError, match="must be committed"):
        plans.find_commit(file)


@pytest.mark.parametrize("file", sorted((ROOT / "docs/plans").glob("*.yaml")), ids=lambda f: f.stem)
def test_every_plan_of_the_project_can_be_read(file):
    assert plans.read(file, old=True).question
