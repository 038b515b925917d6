"""A network in YuNet's form, made by hand, that takes a red square for a face: OpenCV's own FaceDetectorYN runs it.

Its heads of strides 8 and 16 see nothing; a cell of stride 32 that is red while the cells around it are not is a face of 40 by 53.3 detector
pixels about the middle of the cell.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

CELL, WIDTH, HEIGHT = 32, 40.0, 160 / 3


def _head(kind: str, channels: int, stride: int) -> tuple[list[NodeProto], dict[str, np.ndarray]]:
    """One output [1, cells, channels] and its constants."""
    name = f"{kind}_{stride}"
    weights, bias = np.zeros((channels, 3, 3 * stride, 3 * stride), np.float32), np.zeros(channels, np.float32)
    if channels == 1 and stride == CELL:
        # B, G, R of 0 to 255: red less the others, in the cell less in the ring around it
        ring = np.full((3 * stride, 3 * stride), -1 / (8 * stride**2))
        ring[stride:-stride, stride:-stride] = 1 / stride**2
        weights[0] = np.array([-0.5, -0.5, 1.0])[:, None, None] * ring / 255
    if kind == "bbox":
        bias[:] = 0.5, 0.5, np.log(WIDTH / stride), np.log(HEIGHT / stride)
    constants = {f"{name}_w": weights, f"{name}_b": bias, f"{name}_r": np.array([1, -1, channels], np.int64)}
    shape = {"kernel_shape": [3 * stride] * 2, "strides": [stride] * 2, "pads": [stride] * 4}
    nodes = [
        helper.make_node("Conv", ["input", f"{name}_w", f"{name}_b"], [f"{name}_c"], **shape),
        helper.make_node("Clip", [f"{name}_c"], [f"{name}_s"], min=0.0, max=1.0)
        if channels == 1
        else helper.make_node("Identity", [f"{name}_c"], [f"{name}_s"]),
        helper.make_node("Transpose", [f"{name}_s"], [f"{name}_t"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", [f"{name}_t", f"{name}_r"], [name]),
    ]
    return nodes, constants


def make_yunet(path: Path) -> Path:
    """Write the network; returns `path`."""
    nodes: list[NodeProto] = []
    constants: dict[str, np.ndarray] = {}
    outputs = []
    for kind, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        for stride in (8, 16, CELL):
            more, values = _head(kind, channels, stride)
            nodes, constants = nodes + more, constants | values
            outputs.append(helper.make_tensor_value_info(f"{kind}_{stride}", TensorProto.FLOAT, [1, None, channels]))
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 640, 640])]
    model = helper.make_model(
        helper.make_graph(nodes, "red", inputs, outputs, initializers), opset_imports=[helper.make_opsetid("", 10)], ir_version=7
    )
    onnx.save(model, path)
    return path
