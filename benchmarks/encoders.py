"""How fast is the image encoder by each runtime, and does each one answer as PyTorch does?

    python -m benchmarks.encoders --photos DIR [--num 600] [--seed 1000] [--out benchmarks/results]

DIR holds photos in folders by product. One thread; the ways take turns on the same decoded photos. Half of the photos are a gallery embedded by
PyTorch, the other half ask: top-1 is the folder of the nearest gallery photo (cosine of rooted embeddings, as the recognizer compares).
"Same top-1" is the share of photos for which a way names the folder that PyTorch names. Int8 is ONNX Runtime's static quantization, calibrated on photos
of the gallery; OpenVINO takes part where it is installed (pip install openvino). Pruned: the inner channels of every block that carry least on photos of the gallery
are taken out, their mean being kept as a bias; nothing is tuned after it.
"""

import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks._results import keep, machine, today
from guidelens.data.images.decoding import decode_image
from guidelens.encoders.image import ImageEncoder, load_image_encoder, network_input
from guidelens.encoders.layers import Block, SameConv
from guidelens.encoders.onnx_graph import IMAGES, GraphWriter
from guidelens.encoders.onnx_session import OnnxSession
from guidelens.errors import InputError
from guidelens.models.recognizer import rooted
from guidelens.schemas.base import Frozen
from pipelines.entry import progress, run_command

_TURNS = 40
_BATCH = 8
_CALIBRATION = 128
_PRUNED = (0.05, 0.1, 0.25, 0.5)
_LANES = 16
"""Channels are kept in such groups, as processors take them: with other numbers ONNX Runtime was half as fast as without any pruning."""
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}

Floats = NDArray[np.float32]
Images = NDArray[np.uint8]
Embed = Callable[[Images], Floats]


class Way(Frozen):
    """One runtime. single_ms, batch_ms: a photo, alone and in eights, medians. megabytes: of its model file, None where it has none of its own.
    same_top1: with the gallery by PyTorch. right: named the photo's own folder. cosine, least_cosine: with PyTorch's embedding."""

    name: str
    single_ms: float
    batch_ms: float
    times_as_fast: float
    megabytes: float | None
    cosine: float
    least_cosine: float
    same_top1: float
    right: float


class Measured(Frozen):
    machine: str
    date: str
    command: str
    photos: int
    ways: tuple[Way, ...]


def read(folder: Path, num: int, seed: int) -> tuple[Images, NDArray[np.str_]]:
    """`num` photos at random and the folders they lie in."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if len(paths) < num:
        raise InputError(f"--photos must hold {num} photos, got {len(paths)} in {folder.name}; ask for fewer with --num")
    picked = [paths[row] for row in np.random.default_rng(seed).permutation(len(paths))[:num]]
    return np.stack([decode_image(path.read_bytes()) for path in picked]), np.array([str(path.parent.relative_to(folder)) for path in picked])


def quantized(model: bytes, images: Images) -> bytes:
    """The model with weights and activations in int8, by channel, its ranges those of `images`."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # no types
        def __init__(self) -> None:
            self._batches: Iterator[dict[str, Images]] = ({IMAGES: images[row : row + 4]} for row in range(0, len(images), 4))

        def get_next(self) -> dict[str, Images] | None:
            return next(self._batches, None)

    with tempfile.TemporaryDirectory() as folder:
        given, ready, made = (str(Path(folder) / name) for name in ("given.onnx", "ready.onnx", "made.onnx"))
        Path(given).write_bytes(model)
        quant_pre_process(given, ready)
        quantization.quantize_static(
            ready,
            made,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=["Conv", "Add", "Clip"],
        )
        return Path(made).read_bytes()


def pruned(encoder: ImageEncoder, share: float, images: Images) -> bytes:
    """The model without `share` of each block's inner channels: those whose deviations from their mean, as the block projects them, are least."""
    narrow = copy.deepcopy(nn.Sequential(*(layer for part in encoder.split(0) for layer in part)))
    with torch.inference_mode():
        x = network_input(images)
        for layer in narrow:
            if isinstance(layer, Block) and isinstance(layer.expand, SameConv):
                _narrow(layer, share, x)
            x = layer(x)
    graph = GraphWriter()
    return graph.model({"embedding": (graph.pooled(graph.through(narrow, graph.pixels())), encoder.dim)})


def _narrow(block: Block, share: float, x: torch.Tensor) -> None:
    inner = block.depthwise(block.expand(x))
    carried = inner.std((0, 2, 3)) * block.project.conv.weight.square().sum((0, 2, 3)).sqrt()
    num_kept = max(_LANES, round((1 - share) * len(carried) / _LANES) * _LANES)
    kept = carried.argsort(descending=True)[:num_kept].sort().values
    gone = torch.ones(len(carried), dtype=torch.bool).index_fill(0, kept, False)
    project = block.project.conv
    project.bias.data += project.weight[:, gone, 0, 0] @ inner.mean((0, 2, 3))[gone]
    for layer in (block.expand, block.depthwise):
        layer.conv.weight.data, layer.conv.bias.data, layer.conv.out_channels = layer.conv.weight[kept], layer.conv.bias[kept], len(kept)
    block.depthwise.conv.in_channels = block.depthwise.conv.groups = project.in_channels = len(kept)
    project.weight.data = project.weight[:, kept]


def by_openvino(model: bytes, precision: str) -> Embed:
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model), "CPU", {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    )

    def embed(images: Images) -> Floats:
        return np.array(compiled(images)[0])

    return embed


def by_onnx(model: bytes) -> Embed:
    session = OnnxSession(model)
    return lambda images: session(images)[0]


def ways_of(encoder: ImageEncoder, calibration: Images) -> dict[str, tuple[Embed, int | None]]:
    """What embeds, and the bytes of its model, by the way's name."""
    single, half = encoder.graph(), encoder.graph(half=True)
    progress(f"encoders: calibrating int8 on {len(calibration)} photos")
    int8 = quantized(single, calibration)
    found: dict[str, tuple[Embed, int | None]] = {
        "PyTorch": (encoder.embed, None),
        "ONNX Runtime": (by_onnx(single), len(single)),
        "ONNX Runtime, half-precision weights": (by_onnx(half), len(half)),
        "ONNX Runtime, int8": (by_onnx(int8), len(int8)),
    }
    for share in _PRUNED:
        narrow = pruned(encoder, share, calibration)
        found[f"ONNX Runtime, {share:.0%} pruned"] = by_onnx(narrow), len(narrow)
    if find_spec("openvino") is not None:
        found["OpenVINO"] = by_openvino(single, "f32"), len(single)
        found["OpenVINO, bf16"] = by_openvino(single, "bf16"), len(single)
    return found


def times(ways: dict[str, tuple[Embed, int | None]], images: Images, batch: int) -> dict[str, float]:
    """Median milliseconds a photo of each way; the ways take turns."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(_TURNS + 4):
        start = turn * batch % (len(images) - batch + 1)
        for name, (embed, _) in ways.items():
            begun = time.perf_counter()
            embed(images[start : start + batch])
            taken[name].append(1000 * (time.perf_counter() - begun) / batch)
    return {name: statistics.median(each[4:]) for name, each in taken.items()}


def measure(images: Images, folders: NDArray[np.str_]) -> tuple[Way, ...]:
    encoder = load_image_encoder(runtime="torch")
    half = len(images) // 2
    gallery, asked, of_gallery, of_asked = images[:half], images[half:], folders[:half], folders[half:]
    ways = ways_of(encoder, gallery[:_CALIBRATION])
    single, batch = times(ways, asked, 1), times(ways, asked, _BATCH)
    plain, known = encoder.embed(asked), rooted(encoder.embed(gallery))

    def named(embeddings: Floats) -> NDArray[np.str_]:
        return of_gallery[(rooted(embeddings) @ known.T).argmax(1)]

    found = []
    for name, (embed, size) in ways.items():
        progress(f"encoders: {name}")
        embeddings = np.concatenate([embed(asked[row : row + _BATCH]) for row in range(0, len(asked), _BATCH)])
        cosines = (embeddings * plain).sum(1) / np.linalg.norm(embeddings, axis=1) / np.linalg.norm(plain, axis=1)
        answers = named(embeddings)
        measured: dict[str, Any] = {
            "single_ms": single[name],
            "batch_ms": batch[name],
            "times_as_fast": single["PyTorch"] / single[name],
            "megabytes": None if size is None else size / 1e6,
            "cosine": float(cosines.mean()),
            "least_cosine": float(cosines.min()),
            "same_top1": float((answers == named(plain)).mean()),
            "right": float((answers == of_asked).mean()),
        }
        found.append(Way(name=name, **measured))
    return tuple(found)


def as_markdown(found: Measured) -> str:
    lines = [
        "# Image encoder by runtime",
        "",
        f"`{found.command}`, {found.machine}, {found.date}. {found.photos:,} photos, half of them a gallery by PyTorch; one thread.",
        "",
        "| way | ms a photo, alone | in eights | times as fast | model, MB | cosine (least) | same top-1 | right |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for way in found.ways:
        size = "" if way.megabytes is None else f"{way.megabytes:.1f}"
        cosine = f"{way.cosine:.5f} ({way.least_cosine:.5f})"
        cells = [way.name, f"{way.single_ms:.1f}", f"{way.batch_ms:.1f}", f"{way.times_as_fast:.2f}", size, cosine, f"{way.same_top1:.1%}", f"{way.right:.1%}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "Same top-1 asks for 99.5 % of a way that may stand in for PyTorch.", ""])


@click.command()
@click.option("--photos", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="Photos in folders by product.")
@click.option("--num", default=600, show_default=True, type=click.IntRange(min=40), help="Photos taken at random.")
@click.option("--seed", default=1000, show_default=True, type=click.IntRange(min=0))
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(photos: Path, num: int, seed: int, out: Path) -> None:
    """Time the image encoder by runtime, compare the answers, and write benchmarks/results/encoders.{json,md}."""
    images, folders = read(photos, num, seed)
    ways = measure(images, folders)
    asked = f"python -m benchmarks.encoders --photos DIR --num {num} --seed {seed}"
    found = Measured(machine=machine(), date=today(), command=asked, photos=num, ways=ways)
    keep(found, as_markdown(found), out, "encoders")


if __name__ == "__main__":
    run_command(command)
