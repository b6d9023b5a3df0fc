"""A graph of `encoders.onnx_graph` run by ONNX Runtime. The only importer of onnxruntime."""

from collections.abc import Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from guidelens.encoders.onnx_graph import IMAGES
from guidelens.errors import BundleError

_CHUNK = 2
"""Images run through the graph at once; larger chunks fall out of the caches and are slower."""


class OnnxSession:
    """Several threads may call one. `num_threads`: those that share the work of one call."""

    def __init__(self, model: bytes, num_threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's errors have no common type
            raise BundleError(f"an ONNX model must be one that ONNX Runtime {onnxruntime.__version__} loads, got {error}; write it again") from error
        self.outputs: tuple[str, ...] = tuple(output.name for output in self._session.get_outputs())

    def __call__(self, images: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
        """(B, 224, 224, 3) uint8 RGB to one (B, width) array for each of `outputs`."""
        chunks = [self._session.run(None, {IMAGES: np.ascontiguousarray(images[start : start + _CHUNK])}) for start in range(0, max(1, len(images)), _CHUNK)]
        return [np.concatenate(parts) for parts in zip(*chunks, strict=True)]
