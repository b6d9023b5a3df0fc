"""The layers of EfficientNet-Lite0 (arXiv:1905.11946, without squeeze-and-excitation), batch norms folded in. Knows nothing of weights."""

from torch import Tensor, nn
from torch.nn import functional

# Letters: B = images.

EMBEDDING_DIM = 1280
PIXEL_MEAN, PIXEL_SCALE = 127.0, 128.0
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))
"""Repeats, kernel, stride, expansion, channels out of each stage's blocks."""
_STEM = 32


class SameConv(nn.Module):
    """A convolution with its batch norm folded in, and TensorFlow's asymmetric "same" padding, which the weights were trained with."""

    def __init__(self, width_in: int, width_out: int, kernel: int = 1, stride: int = 1, groups: int = 1, clips: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, width_out, kernel, stride, padding=kernel // 2 if stride == 1 else 0, groups=groups)
        self.overlap = kernel - stride if stride > 1 else 0
        self.clips = clips

    def forward(self, x: Tensor) -> Tensor:
        if self.overlap:
            before = self.overlap // 2
            after = self.overlap - before
            x = functional.pad(x, (before, after, before, after))
        x = self.conv(x)
        return functional.relu6(x, inplace=True) if self.clips else x


class Block(nn.Module):
    """Expand, filter each channel, project; with a skip where shapes allow it."""

    def __init__(self, width_in: int, width_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = width_in * expansion
        self.expand = SameConv(width_in, inner) if expansion > 1 else nn.Identity()
        self.depthwise = SameConv(inner, inner, kernel, stride, groups=inner)
        self.project = SameConv(inner, width_out, clips=False)
        self.skips = stride == 1 and width_in == width_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return y.add_(x) if self.skips else y


class EfficientNetLite0(nn.Module):
    """(B, 3, 224, 224) float32 pixels in about [-1, 1] to (B, 1280) pooled features, before the ImageNet classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, _STEM, 3, 2)
        blocks, width = [], _STEM
        for repeats, kernel, stride, expansion, width_out in STAGES:
            for repeat in range(repeats):
                blocks.append(Block(width, width_out, kernel, stride if repeat == 0 else 1, expansion))
                width = width_out
        self.blocks = nn.Sequential(*blocks)
        self.head = SameConv(width, EMBEDDING_DIM)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.head(self.blocks(self.stem(x))).mean((2, 3))
        return pooled
