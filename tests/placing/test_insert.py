"""SGDM in models that Ultralytics does not know: torchvision's and timm's."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torchvision import models
from ultralytics import YOLO

from ultralytics_sgdm import insert
from ultralytics_sgdm.errors import ConfigError
from ultralytics_sgdm.nn import SGDM
from ultralytics_sgdm.placing.insert import run_inserted

pytestmark = pytest.mark.slow

NOTHING = {"weights": None, "weights_backbone": None}


def timm_model(name):
    return pytest.importorskip("timm").create_model(name, pretrained=False, num_classes=10)


MODELS = {
    "resnet18": (lambda: models.resnet18(), ["layer3", "layer4.1.bn2"]),
    "convnext_tiny": (lambda: models.convnext_tiny(), ["features.3.1", "features.5"]),
    "fasterrcnn": (
        lambda: models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(**NOTHING),
        ["backbone.body.6", "backbone.body.13"],
    ),
    "deeplabv3": (lambda: models.segmentation.deeplabv3_mobilenet_v3_large(**NOTHING), ["backbone.6", "classifier.0"]),
    "timm resnet": (lambda: timm_model("resnet10t"), ["layer2", "layer4"]),
}


def call(name, model, x, place):
    """Return what a module of a model gives for an image, and what the model gives."""
    seen = []
    handle = model.get_submodule(place).register_forward_hook(lambda _, __, y: seen.append(y))
    with torch.no_grad():
        y = model([x[0]]) if name == "fasterrcnn" else model(x)
    handle.remove()
    while isinstance(y, (list, dict)):
        y = y[0] if isinstance(y, list) else next(iter(y.values()))
    return seen[0], y


def wake(model):
    """Give every inserted SGDM an effect; return the number of their parameters."""
    inserted = [m for m in model.modules() if isinstance(m, SGDM)]
    for m in inserted:
        nn.init.normal_(m.expand.weight)
    return sum(p.numel() for m in inserted for p in m.parameters())


def example(name):
    return ([torch.zeros(3, 96, 96)],) if name == "fasterrcnn" else torch.zeros(1, 3, 96, 96)


@pytest.fixture(params=MODELS)
def bare(request):
    torch.manual_seed(0)
    make, places = MODELS[request.param]
    return request.param, make().eval(), places


def test_output_and_keys_are_what_they_were_and_weights_load_before_and_after(bare):
    name, model, places = bare
    x, state = torch.rand(1, 3, 96, 96), copy.deepcopy(model.state_dict())
    wanted = call(name, model, x, places[1])
    assert insert(model, {places[0]: {}, places[1]: {"ratio": 2}}, example=example(name)) is model
    assert all(map(torch.equal, call(name, model, x, places[1]), wanted))
    assert not any(m.training for m in model.modules())
    new = model.state_dict()
    assert all(torch.equal(new[k], v) for k, v in state.items())
    assert {k.partition(".sgdm.")[0] for k in new.keys() - state.keys()} == set(places)
    assert list(model.sgdm_places) == places
    assert not model.load_state_dict(state, strict=False).unexpected_keys

    assert sum(place["parameters"] for place in model.sgdm_places.values()) == wake(model)
    changed = call(name, model, x, places[1])
    assert not torch.equal(changed[0], wanted[0])
    again = insert(MODELS[name][0]().eval(), {places[0]: {}, places[1]: {"ratio": 2}}, example=example(name))
    again.load_state_dict(model.state_dict())
    assert all(map(torch.equal, call(name, again, x, places[1]), changed))


def test_copies_pickles_and_gradients_hold_the_layer():
    model = insert(models.resnet18(), ["layer4"])
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.layer4.sgdm is not model.layer4.sgdm
        wake(twin)
        twin.train()(torch.rand(2, 3, 64, 64)).sum().backward()
        assert all(p.grad is not None for p in twin.layer4.sgdm.parameters())


@pytest.mark.parametrize("kind", ["resnet18", "timm resnet"])
def test_onnx_and_torch_compile_see_the_layer(kind, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = insert(MODELS[kind][0]().eval(), MODELS[kind][1][:1])
    wake(model)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        wanted = model(x)
        torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(x), wanted)
    torch.onnx.export(model, (x,), tmp_path / "model.onnx", dynamo=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), wanted, rtol=1e-3, atol=1e-4)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.idle = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.same = self.conv
        self.again = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.again(self.again(self.conv(x)))


class Children(nn.Sequential):
    def forward(self, x):
        for child in self.children():
            x = child(x)
        return x


class Discarding(nn.Conv2d):
    """Runs what is in it and throws the output away."""

    def __init__(self):
        super().__init__(3, 32, 3, 2)
        self.body = nn.Conv2d(3, 32, 3, 2)

    def forward(self, x):
        self.body(x)
        return super().forward(x)


class ChannelsLast(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 96, 8, 8), nn.Identity()

    def forward(self, x):
        return self.last(self.stem(x).permute(0, 2, 3, 1))


@pytest.mark.parametrize(
    ("make", "places", "message"),
    [
        (models.resnet18, ["layer5"], "has no module 'layer5'; did you mean 'layer"),
        (models.resnet18, [], "insert takes names of modules such as"),
        (models.resnet18, 3, "insert takes names of modules .*, got 3"),
        (models.resnet18, {"layer1": 2}, "insert takes names of modules .*, got {'layer1': 2}"),
        (models.resnet18, ["fc"], r"'fc' gives \(1, 1000\), a layer needs a feature map"),
        (models.resnet18, {"layer1": {"ration": 2}}, "'layer1': SGDM has no option 'ration', its options are ratio"),
        (models.resnet18, {"layer1": {"ratio": 1000}}, "'layer1', 64 channels: ratio must be a number from 1 to 64"),
        (Twice, ["again"], "'again' is used 2 times in a forward pass"),
        (Twice, ["idle"], "'idle' is not used in a forward pass"),
        (Twice, ["conv"], "'conv' is 'same' too"),
        (Discarding, ["body"], "'body' cannot hold a layer: no gradient from the model's output reaches it"),
        (lambda: nn.Sequential(Children(nn.Conv2d(3, 32, 1))), ["0"], "'0' cannot hold a layer: no gradient from"),
        (ChannelsLast, ["last"], r"'last' gives \(B, H, W, C\), a layer needs \(B, C, H, W\)"),
        (lambda: nn.Sequential(nn.Linear(3, 4)), ["0"], "Sequential failed in a forward pass: .* give example="),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_the_model_alone(make, places, message):
    model = make()
    before = list(model.state_dict())
    with pytest.raises(ConfigError, match=message):
        insert(model, places)
    assert list(model.state_dict()) == before
    assert not hasattr(model, "sgdm_places")
    assert all(m.training and not m._forward_hooks for m in model.modules())


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
def test_what_is_no_module_or_is_compiled_to_torchscript_is_refused():
    traced = torch.jit.trace(nn.Sequential(nn.Conv2d(3, 8, 1)), torch.rand(1, 3, 8, 8))
    for model in ("resnet18", traced):
        with pytest.raises(ConfigError, match=r"insert takes a torch\.nn\.Module that is not scripted or traced, got "):
            insert(model, ["0"])


def test_what_sgdm_is_compared_with_registers_itself():
    pytest.importorskip("timm")
    model = insert(models.resnet18(), ["layer4"], module="TimmCBAM")
    assert type(model.layer4.sgdm).__name__ == "TimmCBAM"


def test_a_layer_is_inserted_once():
    model = insert(models.resnet18(), ["layer4"])
    with pytest.raises(ConfigError, match="'layer4' has a layer inserted already"):
        insert(model, ["layer4"])
    with pytest.raises(ConfigError, match="module='SGMD' is not a registered layer"):
        insert(model, ["layer3"], module="SGMD")
    assert list(insert(model, ["layer3"]).sgdm_places) == ["layer4", "layer3"]


def test_a_model_of_ultralytics_is_warned_of(caplog):
    model = insert(YOLO("yolov8n.yaml").model, "model.4")
    assert list(model.sgdm_places) == ["model.4"]
    assert "trains a model rebuilt from its YAML, without the layers; use equip there" in caplog.text


class Features(nn.Module):
    """Maps that hooks take from inside a network, as timm's `feature_cls="hook"` does."""

    def __init__(self):
        super().__init__()
        self.stem, self.body, self.out = nn.Conv2d(3, 32, 3, 4), nn.Conv2d(32, 32, 3, 2), {}
        for name in ("stem", "body"):
            getattr(self, name).register_forward_hook(lambda _, __, y, name=name: self.out.update({name: y}))

    def forward(self, x):
        self.body(self.stem(x))
        return [*self.out.values()]


def test_hooks_that_were_there_before_see_the_layer():
    model = insert(Features(), ["stem", "body"])
    wake(model)
    before = model.body.sgdm.register_forward_pre_hook(lambda _, x: setattr(model, "bare", x[0]))
    features = model(torch.rand(1, 3, 64, 64))
    before.remove()
    assert not torch.equal(features[1], model.bare)
    features[1].sum().backward()
    assert model.body.sgdm.expand.weight.grad.abs().max() > 0


def test_symbolic_tracing_and_feature_extraction_take_the_layer():
    from torch import fx
    from torchvision.models.feature_extraction import create_feature_extractor

    model = insert(models.resnet18().eval(), ["layer3", "layer4"])
    wake(model)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(fx.symbolic_trace(model)(x), model(x))
        features = create_feature_extractor(model, ["layer4"])(x)["layer4"]
        assert features.shape == (1, 512, 2, 2) and torch.equal(
            features.mean((2, 3)), model.avgpool(features).flatten(1)
        )


def test_a_pickle_of_the_version_before_finds_its_hook():
    """Models that 0.2.0 pickled name `ultralytics_sgdm.insertion._through`."""
    assert pickle.loads(b"cultralytics_sgdm.insertion\n_through\n.") is run_inserted


def test_an_owner_that_runs_all_of_its_children_is_refused_in_one_line():
    with pytest.raises(ConfigError, match=r"'features.denseblock3' cannot hold a layer: .* in a way of its own"):
        insert(models.densenet121(), ["features.denseblock3"], example=torch.rand(1, 3, 64, 64))


class Labels(nn.Sequential):
    def forward(self, x):
        return super().forward(x).argmax(1)


def test_a_model_that_gives_whole_numbers_is_judged_by_the_inputs_of_its_parts():
    model = Labels(nn.Conv2d(3, 32, 1), nn.Conv2d(32, 32, 1))
    assert [*insert(model, ["0"]).sgdm_places] == ["0"]
    with pytest.raises(ConfigError, match="'1' cannot hold a layer: no gradient from the model's output reaches it"):
        insert(model, ["1"])
