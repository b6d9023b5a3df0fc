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
    turned = COLOURS[(int(products.colour[row]) + 2 + int(7 * products.shape[row, 1])) % len(COLOURS)][2]
    layers = {
        "base": _texture(base, np.array(turned, float), int(products.pattern[row]), products.shape[row], rng),
        "accent": _flat(np.clip(np.array(turned, float) + rng.normal(0, 18, 3), 10, 250)),
        "dark": _flat(base * 0.35 + 10),
        "light": _flat(0.25 * base + 180),
    }
    material = family.materials[products.material[row]]
    image: NDArray[np.float32] = np.full((_CANVAS, _CANVAS, 3), 255.0, np.float32)
    cover = np.zeros((_CANVAS, _CANVAS), np.uint8)
    scale = (0.86, 0.93, 1.0)[products.size[row]]
    for part in OUTLINES[family.name](*(float(value) for value in products.shape[row])):
        mask = _mask(part, scale)
        weight = (mask.astype(np.float32) / 255)[..., None]
        image = (image * (1 - weight) + layers[part[0]] * weight).astype(np.float32)
        cover = np.maximum(cover, mask)
    image = _finish(image, material, rng)
    _brand(image, cover, rng)
    return image.clip(0, 255).astype(np.uint8), cover


def _colour(products: ProductLatents, row: int) -> NDArray[np.float64]:
    """The named colour, moved a little by the product's own style, so that two red chairs are not the same red."""
    named = np.array(COLOURS[products.colour[row]][2], float)
    shift = 16 * products.style[row, 4:7]
    return np.clip(named + shift, 12, 245)


def _flat(colour: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.broadcast_to(colour.astype(np.float32), (_CANVAS, _CANVAS, 3))


def _texture(base: NDArray[np.float64], accent: NDArray[np.float64], pattern: int, shape: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float32]:
    y, x = np.mgrid[0:_CANVAS, 0:_CANVAS].astype(np.float32)
    period = 14 + 22 * float(rng.random())
    angle = float(rng.random()) * np.pi
    u = (x * np.cos(angle) + y * np.sin(angle)) / period
    v = (y * np.cos(angle) - x * np.sin(angle)) / period
    width = 0.25 + 0.3 * float(shape[0])
    on = {
        0: np.zeros_like(u, dtype=bool),
        1: (u % 1) < width,
        2: ((u % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2) < (0.5 * width + 0.1) ** 2,
        3: ((u % 1) < 0.5) ^ ((v % 1) < 0.5),
        4: ((u + 0.5 * np.abs(v % 1 - 0.5)) % 1) < width,
    }[pattern]
    mixed = np.where(on[..., None], 0.3 * base + 0.7 * accent, base)
    return mixed.astype(np.float32)


def _mask(part: Part, scale: float) -> Image:
    _, primitive, numbers = part
    mask = np.zeros((_CANVAS, _CANVAS), np.uint8)

    def at(x: float, y: float) -> tuple[int, int]:
        return round((50 + (x - 50) * scale) * 2.56 * 16), round((50 + (y - 50) * scale) * 2.56 * 16)

    if primitive == "rect":
        x0, y0, x1, y1 = numbers
        corners = np.array([at(x0, y0), at(x1, y0), at(x1, y1), at(x0, y1)], np.int32)
        cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, 4)
    elif primitive == "poly":
        corners = np.array([at(numbers[k], numbers[k + 1]) for k in range(0, len(numbers), 2)], np.int32)
        cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, 4)
    elif primitive == "line":
        points = np.array([at(numbers[k], numbers[k + 1]) for k in range(1, len(numbers), 2)], np.int32)
        cv2.polylines(mask, [points], False, 255, max(1, round(numbers[0] * 2.56 * scale)), cv2.LINE_AA, 4)
    else:
        cx, cy, rx, ry = numbers[:4]
        size = (max(1, round(rx * 2.56 * scale * 16)), max(1, round(ry * 2.56 * scale * 16)))
        width = max(1, round(numbers[4] * 2.56 * scale)) if primitive == "ring" else -1
        cv2.ellipse(mask, at(cx, cy), size, 0, 0, 360, 255, width, cv2.LINE_AA, 4)
    return mask


def _finish(image: NDArray[np.float32], material: str, rng: np.random.Generator) -> NDArray[np.float32]:
    grain = rng.normal(0, _ROUGHNESS.get(material, 2), (_CANVAS // 2, _CANVAS // (8 if material in ("oak", "bamboo") else 2))).astype(np.float32)
    image = image + cv2.resize(grain, (_CANVAS, _CANVAS), interpolation=cv2.INTER_LINEAR)[..., None]
    y, x = np.mgrid[0:_CANVAS, 0:_CANVAS].astype(np.float32) / _CANVAS
    image = image * (1.06 - 0.22 * y[..., None])
    shine = _SHINE.get(material, 0.06)
    glow = np.exp(-(((x - 0.35 - 0.25 * y) / 0.07) ** 2))[..., None]
    finished: NDArray[np.float32] = image * (1 - shine * glow) + 255 * shine * glow
    return finished


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
    image = _place(
        picture, _clutter(size_px, rng), size_px, rng, yaw=rng.uniform(-38, 38), roll=rng.normal(0, 11), scale=rng.uniform(0.55, 0.95), shift=0.10
    ).astype(np.float32)
    if rng.random() < 0.3:
        _hand(image, size_px, rng)
    gain = rng.uniform(0.6, 1.2) * (1 + rng.normal(0, 0.06, 3))
    lit = 255 * np.clip(image * gain / 255, 0, 1) ** rng.uniform(0.8, 1.25)
    if rng.random() < 0.5:
        lit = cv2.GaussianBlur(lit, (0, 0), rng.uniform(0.5, 1.9))
    lit = lit + rng.normal(0, rng.uniform(1, 8), lit.shape)
    return lit.clip(0, 255).astype(np.uint8)


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
    cover = cv2.warpPerspective(picture[1], matrix, (size_px, size_px), flags=cv2.INTER_LINEAR).astype(np.float32) / 255
    shadow = cv2.GaussianBlur(np.roll(cover, (size_px // 40, size_px // 60), (0, 1)), (0, 0), size_px / 45)
    ground = ground * (1 - 0.35 * shadow[..., None])
    placed = ground * (1 - cover[..., None]) + warped * cover[..., None]
    pixels: Image = placed.clip(0, 255).astype(np.uint8)
    return pixels


def _clutter(size_px: int, rng: np.random.Generator) -> NDArray[np.float32]:
    low = rng.uniform(60, 230, (4, 4, 3)).astype(np.float32) * 0.35 + rng.uniform(60, 220, 3).astype(np.float32) * 0.65
    ground = np.ascontiguousarray(cv2.resize(low, (size_px, size_px), interpolation=cv2.INTER_CUBIC))
    for _ in range(int(rng.integers(1, 6))):
        x, y, w, h = (int(value) for value in rng.uniform(0, size_px, 4) * (1, 1, 0.5, 0.5))
        cv2.rectangle(ground, (x, y), (x + w, y + h), tuple(float(value) for value in rng.uniform(30, 235, 3)), -1)
    blurred: NDArray[np.float32] = cv2.GaussianBlur(ground, (0, 0), rng.uniform(1.5, 5)).astype(np.float32)
    return blurred


def _hand(image: NDArray[np.float32], size_px: int, rng: np.random.Generator) -> None:
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
