from pathlib import Path

import pytest
import yaml

from ultralytics_sgdm.errors import ConfigError
from ultralytics_sgdm.evidence import plan as plans

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


def write(folder, **changes):
    file = folder / "plan.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in {**PLAN, **changes}.items() if v is not None}))
    return file


def test_a_plan_states_models_and_seeds_also_as_0_2_0_wrote_it(tmp_path):
    plan = plans.read(write(tmp_path))
    assert [(m.name, m.model, m.recipe) for m in plan.models] == [("a", "a.yaml", {}), ("b", "a.yaml", {"lr0": 0.1})]
    assert plan.seeds == [0, 1, 2]
    assert plans.read(write(tmp_path, models=None, arms=PLAN["models"])) == plan

    models = ["a.yaml", {"model": "b.yaml", "first": {"epochs": 2}}, {"model": "c.yaml", "seeds": [0, 1]}]
    file = write(tmp_path, models=None, arms=models, seeds=[[0, 1], [2]], metric="mAP50-95")
    old = plans.read(file, old=True)
    assert ([variant.name for variant in old.models], old.seeds) == (["a", "b", "c"], [0, 1, 2])
    with pytest.raises(ConfigError):
        plans.read(file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stop": None}, "plan.yaml: stop: Field required"),
        ({"model": []}, "plan.yaml: model: Extra inputs are not permitted"),
        ({"seeds": [0, 0]}, r"plan.yaml: seeds must be different: \[0, 0\]"),
        ({"models": ["a.yaml", {"model": "b.yaml", "name": "x/b"}]}, "models.1.name: String should match pattern"),
        ({"models": ["a.yaml", "x/a.yaml"]}, r"models must be different: \['a', 'a'\]"),
        ({"models": ["a.yaml"]}, "it needs a question, and two models or more"),
        ({"better": float("nan")}, "better: Input should be a finite number"),
        ({"groups": "(.)"}, "says what stays together in folds: state folds too"),
    ],
)
def test_a_mistake_in_a_plan_is_named_in_one_line(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        plans.read(write(tmp_path, **changes))


def test_a_plan_is_committed_as_it_is(tmp_path, commit):
    file = write(tmp_path)
    with pytest.raises(ConfigError, match="must be committed before its runs: git add"):
        plans.find_commit(file)
    commit(file)
    assert len(plans.find_commit(file)) == 40
    write(tmp_path, better=0.1)
    with pytest.raises(ConfigError, match="must be committed"):
        plans.find_commit(file)


@pytest.mark.parametrize("file", sorted(Path(__file__).parents[2].glob("docs/plans/*.yaml")), ids=lambda f: f.stem)
def test_every_plan_of_the_project_can_be_read(file):
    assert plans.read(file, old=True).question
