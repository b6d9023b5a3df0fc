"""Pictures of the simulated products: catalogue views on a plain ground, and session frames with pose, light, blur and occlusion.

Knows product latents that one can see (style, colour, material, pattern, shape) and nothing of shoppers. The same seed gives the same bytes.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from guidelens.schemas.ids import sub_seed
from guidelens.world.families import COLOURS, FAMILIES
from guidelens.world.latents import ProductLatents, philox
from guidelens.world.shapes import OUTLINES, Part

Image = NDArray[np.uint8]
_CANVAS = 256
_LAYERS = {"base": 1, "accent": 2, "dark": 3, "light": 4}
_FIGURE = 5
"""Layer number of the pattern's figure on the base."""
_ROUGHNESS = {"oak": 9, "fabric": 12, "canvas": 11, "wool": 14, "mesh": 13, "bamboo": 9, "leather": 6, "velvet": 8, "cotton": 8, "carton": 4, "paper": 5}
_SHINE = {
    "steel": 0.45,
    "metal": 0.45,
    "titanium": 0.35,
    "gloss": 0.4,
    "glass": 0.4,
    "brass": 0.4,
    "gold": 0.45,
    "silver": 0.5,
    "aluminium": 0.35,
    "tin": 0.3,
    "shimmer": 0.4,
    "acetate": 0.25,
    "satin": 0.2,
    "plastic": 0.2,
}


def sprite(products: ProductLatents, row: int, seed: int) -> tuple[Image, Image]:
    """The product alone: (256, 256, 3) RGB and its (256, 256) coverage."""
    family = FAMILIES[products.family[row]]
    rng = philox(seed, "sprite", row)
    base = _colour(products, row)
    turned = np.array(COLOURS[(int(products.colour[row]) + 2 + int(7 * products.shape[row, 1])) % len(COLOURS)][2], float)
    pattern = _pattern(int(products.pattern[row]), products.shape[row], rng)
    scale = (0.86, 0.93, 1.0)[products.size[row]]
    layers = np.zeros((_CANVAS, _CANVAS), np.uint8)
    for part in OUTLINES[family.name](*(float(value) for value in products.shape[row])):
        _draw_part(layers, part, scale)
    layers[pattern & (layers == _LAYERS["base"])] = _FIGURE
    palette = np.full((6, 3), 255.0)
    palette[_LAYERS["base"]], palette[_FIGURE] = base, 0.3 * base + 0.7 * turned
    palette[_LAYERS["accent"]] = np.clip(turned + rng.normal(0, 18, 3), 10, 250)
    palette[_LAYERS["dark"]], palette[_LAYERS["light"]] = base * 0.35 + 10, 0.25 * base + 180
    image = _finish(palette.astype(np.float32)[layers], family.materials[products.material[row]], rng)
    cover = np.where(layers > 0, 255, 0).astype(np.uint8)
    _brand(image, cover, rng)
    return image.clip(0, 255).astype(np.uint8), cv2.GaussianBlur(cover, (3, 3), 0)


def _colour(products: ProductLatents, row: int) -> NDArray[np.float64]:
    """The named colour, moved a little by the product's own style, so that two red chairs are not the same red."""
    named = np.array(COLOURS[products.colour[row]][2], float)
    shift = 16 * products.style[row, 4:7]
    return np.clip(named + shift, 12, 245)


def _pattern(pattern: int, shape: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """(256, 256) where the figure of the cloth lies."""
    y, x = np.mgrid[0:_CANVAS, 0:_CANVAS].astype(np.float32)
    period = np.float32(14 + 22 * rng.random())
    angle = float(rng.random()) * np.pi
    u = (x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))) / period
    v = (y * np.float32(np.cos(angle)) - x * np.float32(np.sin(angle))) / period
    width = 0.25 + 0.3 * float(shape[0])
    figure: NDArray[np.bool_] = np.zeros((_CANVAS, _CANVAS), np.bool_)
    if pattern == 1:
        figure = _fraction(u) < width
    elif pattern == 2:
        figure = ((_fraction(u) - 0.5) ** 2 + (_fraction(v) - 0.5) ** 2) < (0.5 * width + 0.1) ** 2
    elif pattern == 3:
        figure = (_fraction(u) < 0.5) ^ (_fraction(v) < 0.5)
    elif pattern == 4:
        figure = _fraction(u + 0.5 * np.abs(_fraction(v) - 0.5)) < width
    return figure


def _fraction(values: NDArray[np.float32]) -> NDArray[np.float32]:
    fraction: NDArray[np.float32] = values - np.floor(values)
    return fraction


def _draw_part(layers: Image, part: Part, scale: float) -> None:
    """Writes one part's layer number over what lies below it."""
    layer, primitive, numbers = part
    value = _LAYERS[layer]

    def at(x: float, y: float) -> tuple[int, int]:
        return round((50 + (x - 50) * scale) * 2.56 * 16), round((50 + (y - 50) * scale) * 2.56 * 16)

    if primitive == "rect":
        x0, y0, x1, y1 = numbers
        cv2.fillPoly(layers, [np.array([at(x0, y0), at(x1, y0), at(x1, y1), at(x0, y1)], np.int32)], value, cv2.LINE_8, 4)
    elif primitive == "poly":
        cv2.fillPoly(layers, [np.array([at(numbers[k], numbers[k + 1]) for k in range(0, len(numbers), 2)], np.int32)], value, cv2.LINE_8, 4)
    elif primitive == "line":
        points = np.array([at(numbers[k], numbers[k + 1]) for k in range(1, len(numbers), 2)], np.int32)
        cv2.polylines(layers, [points], False, value, max(1, round(numbers[0] * 2.56 * scale)), cv2.LINE_8, 4)
    else:
        cx, cy, rx, ry = numbers[:4]
        size = (max(1, round(rx * 2.56 * scale * 16)), max(1, round(ry * 2.56 * scale * 16)))
        width = max(1, round(numbers[4] * 2.56 * scale)) if primitive == "ring" else -1
        cv2.ellipse(layers, at(cx, cy), size, 0, 0, 360, value, width, cv2.LINE_8, 4)


def _finish(image: NDArray[np.float32], material: str, rng: np.random.Generator) -> NDArray[np.float32]:
    grain = rng.normal(0, _ROUGHNESS.get(material, 2), (_CANVAS // 2, _CANVAS // (8 if material in ("oak", "bamboo") else 2))).astype(np.float32)
    image = image + cv2.resize(grain, (_CANVAS, _CANVAS), interpolation=cv2.INTER_LINEAR)[..., None]
    y, x = np.mgrid[0:_CANVAS, 0:_CANVAS].astype(np.float32) / np.float32(_CANVAS)
    glow = np.float32(_SHINE.get(material, 0.06)) * np.exp(-(((x - 0.35 - 0.25 * y) / 0.07) ** 2))
    finished: NDArray[np.float32] = image * ((1.06 - 0.22 * y) * (1 - glow))[..., None] + (255 * glow)[..., None]
    return finished.astype(np.float32)


def _brand(image: NDArray[np.float32], cover: Image, rng: np.random.Generator) -> None:
    """A small mark on the product: real goods carry a label, and it helps to tell two of a family apart."""
    points = np.argwhere(cv2.erode(cover, np.ones((25, 25), np.uint8)) > 200)
    if len(points) == 0:
        return
    y, x = (int(value) for value in points[int(rng.random() * len(points))])
    colour = tuple(float(value) for value in (rng.random(3) > 0.5) * 235.0 + 10)
    kind, size = int(rng.random() * 4), 8 + int(rng.random() * 6)
    if kind == 0:
        cv2.circle(image, (x, y), size, colour, -1, cv2.LINE_AA)
    elif kind == 1:
        cv2.rectangle(image, (x - size, y - size // 2), (x + size, y + size // 2), colour, -1)
    elif kind == 2:
        cv2.fillPoly(image, [np.array([(x, y - size), (x + size, y + size), (x - size, y + size)], np.int32)], colour, cv2.LINE_AA)
    else:
        cv2.drawMarker(image, (x, y), colour, cv2.MARKER_STAR, 2 * size, 4, cv2.LINE_AA)


def catalogue_view(picture: tuple[Image, Image], view: int, size_px: int, rng: np.random.Generator) -> Image:
    """A studio picture: view 0 straight on, later ones turned."""
    turn = 0.0 if view == 0 else 1.0
    ground = np.linspace(250, 226 + 10 * rng.random(), size_px, dtype=np.float32)[:, None, None] * np.ones((1, size_px, 3), np.float32)
    return _place(picture, ground, size_px, rng, yaw=turn * rng.uniform(-32, 32), roll=turn * rng.uniform(-8, 8), scale=rng.uniform(0.74, 0.88), shift=0.03)


def session_frame(picture: tuple[Image, Image], size_px: int, rng: np.random.Generator) -> Image:
    """What a phone sees: a cluttered ground, a free pose, coloured light, blur, noise and sometimes a hand in the way."""
    image = _place(picture, _clutter(size_px, rng), size_px, rng, yaw=rng.uniform(-38, 38), roll=rng.normal(0, 9), scale=rng.uniform(0.6, 0.97), shift=0.10)
    if rng.random() < 0.3:
        _hand(image, size_px, rng)
    gain = rng.uniform(0.7, 1.2) * (1 + rng.normal(0, 0.06, 3))
    gamma = rng.uniform(0.8, 1.25)
    curve = 255 * np.clip(np.arange(256)[:, None] * gain / 255, 0, 1) ** gamma
    lit = cv2.LUT(image, curve.round().astype(np.uint8)[None])
    if rng.random() < 0.5:
        lit = cv2.GaussianBlur(lit, (0, 0), rng.uniform(0.5, 1.6))
    grain = rng.normal(0, rng.uniform(1, 6), (size_px, size_px // 2)).astype(np.float32)
    noisy = lit + cv2.resize(grain, (size_px, size_px), interpolation=cv2.INTER_NEAREST)[..., None]
    frame: Image = noisy.clip(0, 255).astype(np.uint8)
    return frame


def _place(
    picture: tuple[Image, Image], ground: NDArray[np.float32], size_px: int, rng: np.random.Generator, *, yaw: float, roll: float, scale: float, shift: float
) -> Image:
    """The sprite over the ground under a perspective pose; angles in degrees, scale and shift in shares of the picture."""
    turned, tilted, rolled = np.radians([yaw, rng.uniform(-12, 12), roll])
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], float) * scale / 2
    about_y = np.array([[np.cos(turned), 0, np.sin(turned)], [0, 1, 0], [-np.sin(turned), 0, np.cos(turned)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(tilted), -np.sin(tilted)], [0, np.sin(tilted), np.cos(tilted)]])
    about_z = np.array([[np.cos(rolled), -np.sin(rolled), 0], [np.sin(rolled), np.cos(rolled), 0], [0, 0, 1]])
    posed = corners @ (about_z @ about_x @ about_y).T
    flat = posed[:, :2] / (1 + 0.6 * posed[:, 2:]) + 0.5 + rng.uniform(-shift, shift, 2)
    source = np.array([[0, 0], [_CANVAS, 0], [_CANVAS, _CANVAS], [0, _CANVAS]], np.float32)
    matrix = cv2.getPerspectiveTransform(source, (flat * size_px).astype(np.float32))
    warped = cv2.warpPerspective(picture[0], matrix, (size_px, size_px), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    cover = cv2.warpPerspective(picture[1], matrix, (size_px, size_px), flags=cv2.INTER_LINEAR)
    below = cv2.blur(np.roll(cover, (size_px // 40, size_px // 60), (0, 1)), (size_px // 16, size_px // 16))
    weight = cover.astype(np.float32) * np.float32(1 / 255)
    shade = (1 - below.astype(np.float32) * np.float32(0.35 / 255)) * (1 - weight)
    placed = cv2.multiply(ground, cv2.merge([shade] * 3)) + cv2.multiply(warped.astype(np.float32), cv2.merge([weight] * 3))
    pixels: Image = cv2.convertScaleAbs(placed)
    return pixels


def _clutter(size_px: int, rng: np.random.Generator) -> NDArray[np.float32]:
    low = rng.uniform(60, 230, (4, 4, 3)).astype(np.float32) * 0.35 + rng.uniform(60, 220, 3).astype(np.float32) * 0.65
    ground = np.ascontiguousarray(cv2.resize(low, (size_px, size_px), interpolation=cv2.INTER_CUBIC))
    for _ in range(int(rng.integers(1, 6))):
        x, y, w, h = (int(value) for value in rng.uniform(0, size_px, 4) * (1, 1, 0.5, 0.5))
        cv2.rectangle(ground, (x, y), (x + w, y + h), tuple(float(value) for value in rng.uniform(30, 235, 3)), -1)
    blurred: NDArray[np.float32] = cv2.GaussianBlur(ground, (0, 0), rng.uniform(1.5, 5)).astype(np.float32)
    return blurred


def _hand(image: Image, size_px: int, rng: np.random.Generator) -> None:
    skin = tuple(float(value) for value in np.array([215, 170, 140]) * rng.uniform(0.45, 1.1))
    side = rng.random() < 0.5
    x = -0.02 * size_px if side else 1.02 * size_px
    y = rng.uniform(0.35, 0.95) * size_px
    for finger in range(3):
        reach = rng.uniform(0.12, 0.27) * size_px
        center = (round(x), round(y + finger * 0.075 * size_px))
        cv2.ellipse(image, center, (round(reach), round(0.04 * size_px)), float(rng.uniform(-12, 12)), 0, 360, skin, -1, cv2.LINE_AA)


def encode(image: Image, quality: int = 85) -> bytes:
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return bytes(data.tobytes())


def picture_rng(seed: int, path: str) -> np.random.Generator:
    """The generator of one picture: of the seed and its path, so that any worker draws the same bytes."""
    return philox(sub_seed(seed, path), "picture")
