"""Drawn images that show no product: walls, gradients, noise, textures, dark and overexposed frames.

The recognizer learns from them what "nothing there" looks like to the encoder. Knows nothing of products.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator, Philox
from numpy.typing import NDArray

from guidelens.data.images.decoding import INPUT_SIZE_PX
from guidelens.encoders.backbones import ImageBackbone
from guidelens.schemas.ids import sub_seed

Plane = NDArray[np.float64]
Pixels = NDArray[np.uint8]

PER_KIND = 14


def background_images(seed: int, per_kind: int = PER_KIND) -> tuple[Pixels, NDArray[np.int64]]:
    """(kinds * per_kind, 224, 224, 3) uint8 RGB, and the kind of each as an index."""
    random = Generator(Philox(sub_seed(seed, "backgrounds")))
    images = [_coloured(draw(random), random) for draw in KINDS for _ in range(per_kind)]
    return np.stack(images), np.repeat(np.arange(len(KINDS)), per_kind)


def background_embeddings(encoder: ImageBackbone, seed: int, per_kind: int = PER_KIND) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """`background_images`, embedded: (B, 1280) and the kinds (B,)."""
    images, kinds = background_images(seed, per_kind)
    return encoder.embed(images), kinds


def _grid() -> tuple[Plane, Plane]:
    axis = np.linspace(-1, 1, INPUT_SIZE_PX)
    return axis[None, :].repeat(INPUT_SIZE_PX, 0), axis[:, None].repeat(INPUT_SIZE_PX, 1)


def _across(random: Generator) -> Plane:
    """Distance along a random direction."""
    x, y = _grid()
    angle = random.uniform(0, 2 * np.pi)
    return np.asarray(x * np.cos(angle) + y * np.sin(angle))


def _grain(random: Generator, sigma: float) -> Plane:
    """Noise blurred to a grain of `sigma` pixels, of unit variance."""
    noise = random.normal(size=(INPUT_SIZE_PX, INPUT_SIZE_PX))
    smooth = cv2.GaussianBlur(noise, (0, 0), sigma) if sigma > 0 else noise
    return np.asarray(smooth / smooth.std())


def _flat(random: Generator) -> Plane:
    return _grain(random, 0) * (random.uniform(0, 3) * 0.02)


def _gradient(random: Generator) -> Plane:
    return _across(random) * random.uniform(0.1, 0.6) + 0.02 * random.uniform(0, 3) * _grain(random, 0)


def _vignette(random: Generator) -> Plane:
    x, y = _grid()
    centre = random.uniform(-0.6, 0.6, 2)
    slope = float(random.choice([-1, 1])) * random.uniform(0.2, 0.7)
    return np.asarray(np.hypot(x - centre[0], y - centre[1]) * slope + 0.03 * _grain(random, 0))


def _static(random: Generator) -> Plane:
    return _grain(random, float(random.choice([0.0, 0.5, 0.8]))) * random.uniform(0.1, 1.0)


def _plaster(random: Generator) -> Plane:
    return random.uniform(0.03, 0.3) * _grain(random, random.uniform(1, 4)) + 0.2 * _across(random)


def _blur(random: Generator) -> Plane:
    return random.uniform(0.1, 0.5) * _grain(random, random.uniform(12, 45))


def _clouds(random: Generator) -> Plane:
    octaves = [_grain(random, 2.0**level) * 2.0**level for level in range(6)]
    total = np.sum(octaves, axis=0)
    return np.asarray(random.uniform(0.1, 0.5) * total / total.std())


def _wood(random: Generator) -> Plane:
    streaks = cv2.GaussianBlur(random.normal(size=(INPUT_SIZE_PX, INPUT_SIZE_PX)), (0, 0), sigmaX=40, sigmaY=random.uniform(0.8, 3))
    streaks = streaks.T if random.random() < 0.5 else streaks
    return np.asarray(random.uniform(0.05, 0.3) * streaks / streaks.std())


def _tiles(random: Generator) -> Plane:
    period, joint = int(random.integers(20, 90)), int(random.integers(1, 5))
    lines = np.zeros((INPUT_SIZE_PX, INPUT_SIZE_PX))
    offset = int(random.integers(period))
    lines[(np.arange(INPUT_SIZE_PX) + offset) % period < joint] = 1
    lines[:, (np.arange(INPUT_SIZE_PX) + offset) % (period * int(random.integers(1, 3))) < joint] = 1
    return random.uniform(-0.5, 0.5) * lines + 0.15 * _across(random) + 0.03 * _grain(random, 0)


def _stripes(random: Generator) -> Plane:
    return random.uniform(0.1, 0.5) * np.sign(np.sin(_across(random) * random.uniform(5, 60))) + 0.03 * _grain(random, 0)


def _corner(random: Generator) -> Plane:
    """Two or three flat surfaces that meet: a wall and a floor, a shelf's edge."""
    edges = (_across(random) > random.uniform(-0.5, 0.5)) * random.uniform(-0.5, 0.5) + (_across(random) > random.uniform(-0.5, 0.5)) * random.uniform(
        -0.5, 0.5
    )
    return np.asarray(edges + 0.2 * _across(random) + 0.02 * _grain(random, 0))


def _coloured(plane: Plane, random: Generator) -> Pixels:
    """The plane as brightness around a random colour; now and then each channel gets noise of its own."""
    base = random.uniform(0.05, 0.95, 3)
    if random.random() < 0.5:
        base = np.clip(base.mean() + random.uniform(-0.12, 0.12, 3), 0, 1)
    image = base + plane[..., None] * random.uniform(0.5, 1.0, 3)
    if random.random() < 0.3:
        image = image + random.uniform(0.02, 0.5) * random.normal(size=image.shape)
    return np.asarray((image * 255).clip(0, 255), dtype=np.uint8)


KINDS: tuple[Callable[[Generator], Plane], ...] = (_flat, _gradient, _vignette, _static, _plaster, _blur, _clouds, _wood, _tiles, _stripes, _corner)
