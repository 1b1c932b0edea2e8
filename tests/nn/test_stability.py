"""What users have saved: checkpoint keys and YAML arguments of every public layer, and checkpoints of old.

A change of a snapshot is a change for users: note it in CHANGELOG.md, and let an old checkpoint load or say what to do.
"""

import copy
import inspect
import json
import pickle
from pathlib import Path

import pytest
from torch import nn
from ultralytics.nn.modules import Conv

from ultralytics_sgdm import SGDM
from ultralytics_sgdm.errors import ConfigError
from ultralytics_sgdm.nn.registry import registered_layers

SNAPSHOT = Path(__file__).with_name("layers.json")
OURS = {name: entry for name, entry in registered_layers() if entry.cls.__module__.startswith("ultralytics_sgdm.nn")}


def small(cls):
    """Return a layer of 64 channels with arguments that its class cannot do without."""
    names = [p.name for p in inspect.signature(cls).parameters.values() if p.default is p.empty]
    sizes = dict.fromkeys(("c1", "c2", "cm", "c3", "c4"), 64)
    return cls(*(sizes[name] for name in names if name in sizes))


def form_of(name):
    """Return what a user writes for a layer and what a checkpoint holds of it, without what is the stock block's."""
    cls, like = OURS[name]
    own = pickle.loads(pickle.dumps(small(cls)))  # as a checkpoint
    stock = set(small(like).state_dict()) if issubclass(cls, like) else set()
    arguments = [str(p.replace(annotation=p.empty)) for p in inspect.signature(cls).parameters.values()]
    keys = {k: list(v.shape) for k, v in own.state_dict().items() if k not in stock}
    return {"like": like.__name__, "arguments": [] if stock else arguments, "keys": keys}


def test_every_public_layer_is_in_the_snapshot():
    assert sorted(json.loads(SNAPSHOT.read_text())) == sorted(OURS)


@pytest.mark.parametrize("name", OURS)
def test_keys_and_arguments_are_those_that_users_have_saved(name):
    assert form_of(name) == json.loads(SNAPSHOT.read_text())[name]


def test_a_checkpoint_of_the_first_form_says_what_to_do():
    old = copy.deepcopy(SGDM(32, 32))
    old.static = nn.ModuleList(Conv(16, 16, k, g=16, act=False) for k in (3, 5))
    old.expand = Conv(16, 32, 1, act=False)
    with pytest.raises(ConfigError, match=r"SGDM from before 0\.1\.0, .*; this version cannot run it, train again"):
        pickle.loads(pickle.dumps(old))
