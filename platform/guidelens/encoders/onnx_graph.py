"""Networks of `encoders.image` as ONNX graphs, for runtimes faster than PyTorch on a CPU and for the browser.

The graph takes (n, 224, 224, 3) uint8 RGB, as `data.images` yields it, scales pixels itself and computes what the network computes. It is written
node by node: the layers are of two kinds, and PyTorch's exporter takes seconds and two more packages for them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from guidelens.data.images.decoding import INPUT_SIZE_PX
from guidelens.encoders.layers import PIXEL_MEAN, PIXEL_SCALE, Block, SameConv
from guidelens.errors import ShapeError

IMAGES = "images"
_OPSET, _IR_VERSION = 17, 8
_MOST = 6.0


class GraphWriter:
    """Nodes one after another; each method returns the name of the value that it adds.

    half: weights are kept in half precision and widened when the graph is loaded; what is computed stays in single precision.
    """

    def __init__(self, half: bool = False) -> None:
        self._half = half
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def pixels(self) -> str:
        """What the network takes, of what the graph is given."""
        scaled = self.op("Sub", self.op("Cast", IMAGES, to=TensorProto.FLOAT), self.constant(np.float32(PIXEL_MEAN)))
        return self.op("Transpose", self.op("Div", scaled, self.constant(np.float32(PIXEL_SCALE))), perm=[0, 3, 1, 2])

    def through(self, layers: nn.Module, value: str) -> str:
        """(n, C, H, W) through convolutions, blocks and sequences of them.

        Raises:
            ShapeError: a layer of another kind.
        """
        if isinstance(layers, SameConv):
            return self._convolved(layers, value)
        if isinstance(layers, Block):
            projected = self.through(layers.project, self.through(layers.depthwise, self.through(layers.expand, value)))
            return self.op("Add", projected, value) if layers.skips else projected
        if isinstance(layers, nn.Sequential):
            for layer in layers:
                value = self.through(layer, value)
            return value
        if isinstance(layers, nn.Identity):
            return value
        raise ShapeError(f"a graph is made of convolutions and blocks, got {type(layers).__name__}; write its nodes in encoders/onnx_graph.py")

    def pooled(self, value: str) -> str:
        """(n, C, H, W) to (n, C), the mean over places."""
        return self.op("ReduceMean", value, axes=[2, 3], keepdims=0)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def weight(self, tensor: Tensor) -> str:
        array = tensor.numpy(force=True)
        return self.op("Cast", self.constant(array.astype(np.float16)), to=TensorProto.FLOAT) if self._half else self.constant(array)

    def constant(self, array: NDArray[Any] | np.generic) -> str:
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(array) if np.ndim(array) else np.asarray(array), name))
        return name

    def model(self, outputs: Mapping[str, tuple[str, int]]) -> bytes:
        """The graph's bytes. outputs: the value and the width behind each name; all are (n, width) float32."""
        for name, (value, _) in outputs.items():
            self._nodes.append(helper.make_node("Identity", [value], [name]))
        size = INPUT_SIZE_PX
        graph = helper.make_graph(
            self._nodes,
            "guidelens",
            [helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, ["n", size, size, 3])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]) for name, (_, width) in outputs.items()],
            self._weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION, producer_name="guidelens")
        onnx.checker.check_model(model)
        written: bytes = model.SerializeToString(deterministic=True)
        return written

    def _convolved(self, layer: SameConv, value: str) -> str:
        conv = layer.conv
        weights = [self.weight(conv.weight)] + ([] if conv.bias is None else [self.weight(conv.bias)])
        convolved = self.op("Conv", value, *weights, kernel_shape=conv.kernel_size, strides=conv.stride, group=conv.groups, pads=_pads(layer))
        return self.op("Clip", convolved, self.constant(np.float32(0)), self.constant(np.float32(_MOST))) if layer.clips else convolved


def _pads(layer: SameConv) -> Sequence[int]:
    """Top, left, bottom, right."""
    if not layer.overlap:
        padding = layer.conv.padding
        assert not isinstance(padding, str)
        return (*padding, *padding)
    before = layer.overlap // 2
    after = layer.overlap - before
    return (before, before, after, after)
