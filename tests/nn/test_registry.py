import pytest
from torch import nn
from ultralytics.nn.modules import C2f, Conv

from ultralytics_sgdm import register_layer
from ultralytics_sgdm.nn import registry


def make(name, module="mine"):
    return type(name, (nn.Module,), {"__module__": module, "__qualname__": name})


def test_as_a_call_and_as_a_decorator():
    @register_layer(like="C2f")
    class Wide(nn.Module):
        pass

    @register_layer
    class Plain(nn.Module):
        pass

    assert registry._layers["Wide"] == (Wide, C2f)
    assert registry._layers["Plain"] == (Plain, Conv)
    assert register_layer(make("Called"), like=Wide).__name__ == "Called"
    assert registry._layers["Called"].like is C2f


def test_the_same_definition_again_replaces():
    first, second = make("Cell"), make("Cell")
    register_layer(first)
    assert register_layer(second) is second
    assert registry._layers["Cell"].cls is second


def test_refuses_to_override():
    register_layer(make("Cell"))
    with pytest.raises(ValueError, match=r"'Cell' is taken by mine\.Cell; give your class another name"):
        register_layer(make("Cell", "theirs"))
    with pytest.raises(ValueError, match="'C2f' is a stock Ultralytics layer"):
        register_layer(make("C2f"))


def test_refuses_what_is_no_layer():
    with pytest.raises(TypeError, match=r"derived from torch\.nn\.Module"):
        register_layer(print)
    for like in ("C2g", make("Stranger"), int):
        with pytest.raises(ValueError, match="neither a stock Ultralytics layer nor a registered one"):
            register_layer(make("Cell"), like=like)
