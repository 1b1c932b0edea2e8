import subprocess
from pathlib import Path

import pytest
import yaml

from ultralytics_sgdm.configs import ConfigError
from ultralytics_sgdm.evidence import plans
from ultralytics_sgdm.evidence.statistics import Estimate

PLAN = {
    "question": "Which is better?",
    "arms": ["a.yaml", {"name": "b", "model": "a.yaml", "recipe": {"lr0": 0.1}, "seeds": [0, 2]}],
    "data": "data.yaml",
    "recipe": {"epochs": 3},
    "seeds": [[0, 1], [2]],
    "better": 0.7,
    "equal": 0.5,
    "stop": "after three seeds",
}
ROOT = Path(__file__).parents[2]


def write(folder, **changes):
    file = folder / "plan.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in {**PLAN, **changes}.items() if v is not None}))
    return file


def test_a_plan_states_arms_and_the_seeds_of_each_look(tmp_path):
    plan = plans.read(write(tmp_path))
    a, b = plan.arms
    assert (a.name, b.name, b.recipe) == ("a", "b", {"lr0": 0.1})
    assert [plan.seeds(arm, look) for look in (0, 1) for arm in (a, b)] == [(0, 1), (0,), (0, 1, 2), (0, 2)]
    assert [plan.confidence(look) for look in (0, 1)] == [1 - 0.0052, 1 - 0.048]
    assert plans.read(write(tmp_path, seeds=[0, 1, 2])).confidence(0) == 0.95


@pytest.mark.parametrize(
    ("mean", "half", "verdict"),
    [
        (1.0, 0.9, "better"),
        (0.6, 0.5, "above zero, by less than was asked"),
        (0.1, 0.3, "equal"),
        (-1.0, 0.5, "worse"),
        (1.0, 1.1, "undecided"),
        (1.0, None, "undecided: no interval"),
    ],
)
def test_the_verdict_is_by_the_rule(tmp_path, mean, half, verdict):
    assert plans.read(write(tmp_path)).verdict(Estimate(mean, half, None, None)) == verdict


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stop": None}, "stop is missing"),
        ({"arm": []}, "unknown key 'arm'; did you mean 'arms'"),
        ({"seeds": "0"}, "seeds: '0' is no list"),
        ({"seeds": [[0], [1], [2]]}, "two lists of them, one for each look"),
        ({"seeds": [0, 0]}, "must be different whole numbers"),
        ({"seeds": [-1, 0]}, "must be different whole numbers of 0 or more"),
        *(
            ({"seeds": seeds}, "or two lists of them")
            for seeds in ([[0, 1], 2], [[0, {}]], [[], [1]], [[0], []], [True])
        ),
        *(
            (
                {"arms": ["a.yaml", {"model": "b.yaml", "seeds": seeds}]},
                "seeds of b must be different ones of the plan's",
            )
            for seeds in ([], ["a"], [[0]], [7], [0, 0])
        ),
        ({"arms": ["a.yaml", {"model": "b.yaml", "seeds": [2]}]}, "b has no seed of the first look"),
        ({"arms": [{"model": "a.yaml", "seeds": [0]}, "b.yaml"]}, r"b has seeds \[1, 2\] that a lacks"),
        *(
            ({"arms": ["a.yaml", {"model": "b.yaml", "name": name}]}, "cannot be the name of an arm")
            for name in ("b#1", "x#y", "x/b", "a|b")
        ),
        ({"arms": ["a.yaml", ""]}, "'' cannot be the name of an arm"),
        ({"arms": ["a.yaml", {"model": "b.yaml", "recipe": {1: 2}}]}, "recipe: 1 of an arm is no str"),
        ({"recipe": {1: 2}}, "recipe: 1 is no str"),
        ({"layers": [3]}, "layers: 3 is no str"),
        ({"question": " "}, "question is empty"),
        ({"better": True}, "better: True is no number"),
        ({"better": float("nan")}, "better: nan must be 0 or more"),
        ({"equal": -0.5}, "equal: -0.5 must be 0 or more"),
        ({"folds": True}, "folds: True is no int"),
        ({"folds": -2}, "folds: -2 must be 0 or more"),
        ({"folds": 0, "groups": "(.)"}, "groups says what stays together in folds: state folds too"),
        ({"arms": ["a.yaml"]}, "arms must be two or more"),
        ({"arms": ["a.yaml", "x/a.yaml"]}, "each of a name of its own"),
        ({"arms": ["a.yaml", {"models": "b.yaml"}]}, "must be a model, or have the keys"),
        ({"arms": ["a.yaml", {"model": "b.yaml", "first": 3}]}, "first: 3 of an arm is no dict"),
        ({"metric": "mAP"}, "metric: 'mAP' must be one of mAP50-95, mAP50"),
        ({"better": "much"}, "better: 'much' is no number"),
    ],
)
def test_a_mistake_in_a_plan_is_named(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        plans.read(write(tmp_path, **changes))


@pytest.mark.parametrize("text", ["- a", "a: [", "", "\tb"])
def test_a_file_that_is_no_plan_is_named(tmp_path, text):
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"plan.yaml"):
        plans.read(tmp_path / "plan.yaml")


def test_a_plan_is_committed_as_it_is(tmp_path):
    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    file = write(tmp_path)
    with pytest.raises(ConfigError, match="must be committed before its runs: git add"):
        plans.committed(file)
    git("init")
    git("add", "plan.yaml")
    with pytest.raises(ConfigError, match="must be committed"):
        plans.committed(file)
    git("commit", "-m", "plan")
    assert len(plans.committed(file)) == 40
    write(tmp_path, better=0.1)
    with pytest.raises(ConfigError, match="must be committed"):
        plans.committed(file)


@pytest.mark.parametrize("file", sorted((ROOT / "docs/plans").glob("*.yaml")), ids=lambda f: f.stem)
def test_every_plan_of_the_project_can_be_read(file):
    assert plans.read(file).question
