"""Tables of models: every family, task and scale of Ultralytics' detectors equipped, and the baselines of one model."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from ultralytics.nn import tasks
from ultralytics.utils import ROOT
from ultralytics.utils.torch_utils import get_num_params

from ..configs import BASELINES, SCALED, list_shipped, scale_of, stock_name, with_scale
from ..errors import ConfigError
from ..files import write_atomic
from ..nn.registry import require_layer
from .equip import equip, equip_by_name
from .outline import build_outline, count_gflops
from .ratios import join_ratios

SCALES = "tnsmbclex"  # by size
_STOCK = re.compile(r"(yolov?\d+|rtdetr)-?[a-z]?(-(seg|pose|obb|cls))?(-p[26])?")


def family_of(name: str) -> str:
    """Return the name of a model's family: `yolov9t-seg-sgdm.yaml` gives `yolov9-seg-sgdm`."""
    return Path(SCALED.sub(r"\1", name, count=1)).stem


def list_families() -> dict[str, list[str]]:
    """Return the models of each family by size: every stock detector with SGDM in every task, then other shipped."""
    stock = [f.stem for f in (ROOT / "cfg/models").rglob("*.yaml") if _STOCK.fullmatch(f.stem)]
    stock.sort(key=lambda stem: (int(number[0]) if (number := re.search(r"\d+", stem)) else 99, stem))
    models: dict[str, dict[str, None]] = {}
    for file in dict.fromkeys([*(f"{stem}-sgdm.yaml" for stem in stock), *(f.name for f in list_shipped("models"))]):
        scales = tasks.yaml_model_load(stock_name(file)).get("scales")
        models.setdefault(family_of(file), {}).update(dict.fromkeys(with_scale(file, s) for s in scales or [""]))
    return {family: sorted(names, key=lambda n: SCALES.index(scale_of(n))) for family, names in models.items()}


@functools.cache
def _measure(name: str) -> tuple[int, float]:
    model = build_outline(tasks.yaml_model_load(name))
    return get_num_params(model), count_gflops(model)


def models(scale: str = "") -> None:
    """Print a Markdown table of models beside stock, GFLOPs at 640 x 640 pixels.

    Args:
        scale: Scale letters such as `nsm`, or `all` (default: the smallest model of each family).

    Raises:
        ConfigError: If a scale is unknown.
    """
    if scale != "all" and not set(scale) <= set(SCALES):
        raise ConfigError(f"scale={scale!r} must be letters of {SCALES!r}, such as scale=n or scale=nsm, or all")
    print("| family | scale | model | stock parameters | parameters | added | stock GFLOPs | GFLOPs | added |")
    print("|---|---|---|---:|---:|---:|---:|---:|---:|")
    for family in list_families().values():
        for name in family if scale else family[:1]:
            if scale in ("", "all") or scale_of(name) in tuple(scale):
                stock = stock_name(name)
                (was, cost_was), (now, cost) = _measure(stock), _measure(name)
                names = f"| {family_of(stock)} | {scale_of(stock)} | {name} "
                parameters = f"| {was:,} | {now:,} | {now - was:+,} "
                print(f"{names}{parameters}| {cost_was:.2f} | {cost:.2f} | {cost - cost_was:+.2f} |", flush=True)


def baselines(model: str, out: Path | None = None) -> None:
    """List SGDM and its baselines for a model, parameters and GFLOPs beside stock; write the baselines as YAMLs.

    It needs the extra `compare`. GFLOPs are at 640 x 640 pixels, as Ultralytics counts them.

    Args:
        model: Model YAML, such as yolov8n.yaml.
        out: Folder to write yolov8n-cbam.yaml and the like to, for editing; by their names they train without a file.

    Raises:
        ConfigError: If the model cannot be equipped, or a file exists already.
    """
    found = {"sgdm": equip(model)} | {name: equip_by_name(Path(model), layer) for name, layer in BASELINES.items()}
    files = {} if out is None else {name: out / f"{Path(model).stem}-{name}.yaml" for name in BASELINES}
    if there := [str(file) for file in files.values() if file.exists()]:
        raise ConfigError(f"{', '.join(there)} exist and are left as they are; choose another out=, or remove them")
    if out:
        out.mkdir(parents=True, exist_ok=True)
    stock = build_outline(tasks.yaml_model_load(model))
    parameters, gflops = get_num_params(stock), count_gflops(stock)
    print(f"{'name':<9}{'ratio':>7}{'parameters':>12}{'added':>10}{'GFLOPs':>8}{'added':>7}  layer")
    print(f"{'stock':<16}{parameters:>12,}{gflops:>18.2f}{'':>9}{model}")
    for name, equipped in found.items():
        if name in files:
            write_atomic(files[name], equipped.text(files[name].name))
        title = (require_layer(equipped.module).cls.__doc__ or "").partition("\n")[0]
        ratio, operations = join_ratios(equipped.ratios), count_gflops(build_outline(equipped.spec))
        cells = f"{name:<9}{ratio:>7}{parameters + equipped.added:>12,}{equipped.added:>+10,}"
        print(f"{cells}{operations:>8.2f}{operations - gflops:>+7.2f}  {title}", flush=True)
