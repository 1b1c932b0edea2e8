"""Count the ONNX nodes of each SGDM and RDConv of the shipped detectors, before and after simplification, as CSV."""

from __future__ import annotations

import argparse
import csv
import re
import tempfile
from collections import Counter
from pathlib import Path

import onnx
from torch import nn
from ultralytics import YOLO

from ultralytics_sgdm import SGDM, RDConv
from ultralytics_sgdm.configs import list_shipped, stock_name, with_scale

SHAPE_ARITHMETIC = ("Shape", "Gather", "Range", "ConstantOfShape", "Expand")
COLUMNS = "model,layer,count,nodes_exported,nodes_simplified,nodes_simplified_each,shape_arithmetic,operators_of_one"


def exported_nodes(name: str, folder: Path, dynamic: bool) -> tuple[YOLO, list[list[onnx.NodeProto]]]:
    """Return the model of a YAML, and the nodes of its ONNX graph before and after simplification."""
    model = YOLO(name)
    for p in model.model.parameters():
        nn.init.normal_(p)  # the exporter merges equal tensors, such as the zeros of an untrained model
    file = folder / "model.pt"
    model.save(file)
    graphs = []
    for simplify in (False, True):
        onnx_file = YOLO(file).export(format="onnx", imgsz=64, dynamic=dynamic, simplify=simplify, verbose=False)
        graphs.append(list(onnx.load(onnx_file).graph.node))
    return model, graphs


def inside(nodes: list[onnx.NodeProto], module: str) -> list[onnx.NodeProto]:
    """Return the nodes that the exporter named after a module (`model.4.sgdm`) or its children."""
    prefix = "/" + re.sub(r"\.(?!\d)", "/", module) + "/"
    return [node for node in nodes if node.name.startswith(prefix)]


def rows(name: str, folder: Path, dynamic: bool) -> list[list[object]]:
    """Return the rows of one model: the whole graph, and the layers of ours in it."""
    model, graphs = exported_nodes(name, folder, dynamic)
    label = f"{Path(name).stem} ({'dynamic' if dynamic else 'fixed'})"
    shape = sum(node.op_type in SHAPE_ARITHMETIC for node in graphs[1])
    table: list[list[object]] = [[label, "whole graph", 1, len(graphs[0]), len(graphs[1]), len(graphs[1]), shape, ""]]
    for layer in (SGDM, RDConv):
        scopes = [n for n, m in model.model.named_modules() if isinstance(m, layer)]
        if not scopes:
            continue
        before, after = ([inside(nodes, scope) for scope in scopes] for nodes in graphs)
        kinds = Counter(node.op_type for node in after[0])
        table.append(
            [
                label,
                layer.__name__,
                len(scopes),
                sum(map(len, before)),
                sum(map(len, after)),
                "/".join(map(str, sorted({len(nodes) for nodes in after}))),
                sum(node.op_type in SHAPE_ARITHMETIC for nodes in after for node in nodes),
                " ".join(f"{op}:{n}" for op, n in kinds.most_common()),
            ]
        )
    return table


def main() -> None:
    """Write the table to the file named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path, help="CSV file to write, such as results/export-nodes.csv")
    table = parser.parse_args().table
    names = [with_scale(file.name, "n") for file in list_shipped("models")]
    with tempfile.TemporaryDirectory() as folder, table.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(COLUMNS.split(","))
        for name in dict.fromkeys(n for pair in zip(map(stock_name, names), names, strict=True) for n in pair):
            for dynamic in (False, True):
                writer.writerows(rows(name, Path(folder), dynamic))


if __name__ == "__main__":
    main()
