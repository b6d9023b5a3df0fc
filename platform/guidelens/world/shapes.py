"""Outlines of the product families, as parts on a 100 x 100 canvas. Data and arithmetic only; rendering.py draws them.

A part is (layer, primitive, numbers). Layers: base, accent, dark, light. Primitives: rect (x0, y0, x1, y1), oval (cx, cy, rx, ry),
poly (x, y, x, y, …), line (width, x, y, x, y, …), ring (cx, cy, rx, ry, width). Each outline takes three shape numbers in [0, 1].
"""

from collections.abc import Callable

Part = tuple[str, str, tuple[float, ...]]
Outline = Callable[[float, float, float], list[Part]]


def _chair(a: float, b: float, c: float) -> list[Part]:
    top, wide = 8 + 22 * a, 18 + 12 * b
    back: Part = ("base", "rect", (50 - wide, top, 50 + wide, 48)) if c < 0.5 else ("base", "oval", (50, (top + 50) / 2, wide, (54 - top) / 2))
    legs: list[Part] = [("accent", "line", (4 + 3 * c, x, 58, x + (x - 50) * 0.25 * b, 95)) for x in (50 - wide, 50 - wide / 2, 50 + wide / 2, 50 + wide)]
    return [*legs, back, ("base", "rect", (46 - wide, 50, 54 + wide, 60)), ("dark", "line", (1.5, 46 - wide, 60, 54 + wide, 60))]


def _sunglasses(a: float, b: float, c: float) -> list[Part]:
    rx, ry = 17 + 4 * a, 10 + 9 * b
    shape = "oval" if c < 0.6 else "rect"
    parts: list[Part] = []
    for cx in (28.0, 72.0):
        box = (cx, 50, rx, ry) if shape == "oval" else (cx - rx, 50 - ry, cx + rx, 50 + ry)
        inner = (cx, 50, rx - 4, ry - 4) if shape == "oval" else (cx - rx + 4, 54 - ry, cx + rx - 4, 46 + ry)
        parts += [("base", shape, box), ("accent", shape, inner), ("light", "line", (1.5, cx - rx / 2, 50 - ry / 3, cx - rx / 5, 50 - ry / 2))]
    return [*parts, ("base", "line", (4, 42, 46, 58, 46)), ("base", "line", (4, 10, 46, 3, 40)), ("base", "line", (4, 90, 46, 97, 40))]


def _lipstick(a: float, b: float, c: float) -> list[Part]:
    wide, tip = 10 + 5 * a, 12 + 14 * b
    return [
        ("dark", "rect", (50 - wide - 3, 60 + 6 * c, 50 + wide + 3, 96)),
        ("light", "rect", (50 - wide, 46, 50 + wide, 61 + 6 * c)),
        ("base", "poly", (52 - wide, 47, 52 - wide, tip + 14, 48 + wide, tip, 48 + wide, 47)),
        ("accent", "rect", (50 - wide - 3, 78, 50 + wide + 3, 82 + 5 * c)),
    ]


def _juice(a: float, b: float, c: float) -> list[Part]:
    wide, neck = 14 + 9 * a, 5 + 5 * b
    body: list[Part] = [("base", "poly", (50 - neck, 22, 50 - wide, 36 + 8 * c, 50 - wide, 95, 50 + wide, 95, 50 + wide, 36 + 8 * c, 50 + neck, 22))]
    return [
        *body,
        ("dark", "rect", (50 - neck, 8, 50 + neck, 20)),
        ("light", "rect", (50 - wide, 52, 50 + wide, 80)),
        ("accent", "oval", (50, 66, wide * 0.7, 10 + 3 * c)),
    ]


def _headphones(a: float, b: float, c: float) -> list[Part]:
    rx, cup = 28 + 8 * a, 9 + 7 * b
    return [
        ("dark", "ring", (50, 52, rx, 38, 5 + 4 * c)),
        ("light", "rect", (0, 60, 0, 60)),
        ("base", "oval", (50 - rx, 62, cup, 18 + 4 * c)),
        ("base", "oval", (50 + rx, 62, cup, 18 + 4 * c)),
        ("accent", "oval", (50 - rx, 62, cup * 0.5, 9)),
        ("accent", "oval", (50 + rx, 62, cup * 0.5, 9)),
    ]


def _watch(a: float, b: float, c: float) -> list[Part]:
    size, band = 17 + 7 * a, 8 + 5 * b
    face: Part = ("dark", "oval", (50, 50, size, size)) if c < 0.6 else ("dark", "rect", (50 - size, 50 - size, 50 + size, 50 + size))
    inner: Part = ("light", "oval", (50, 50, size - 4, size - 4)) if c < 0.6 else ("light", "rect", (54 - size, 54 - size, 46 + size, 46 + size))
    hands: list[Part] = [("dark", "line", (2, 50, 50, 50, 60 - size)), ("accent", "line", (2.5, 50, 50, 44 + size * 0.8, 50 + 6 * b))]
    return [("base", "rect", (50 - band, 2, 50 + band, 98)), ("accent", "line", (1.5, 50 - band, 84, 50 + band, 84)), face, inner, *hands]


def _lamp(a: float, b: float, c: float) -> list[Part]:
    top, low = 8 + 16 * a, 22 + 14 * b
    stand: list[Part] = [("accent", "line", (3 + 4 * c, 50, 45, 50, 92)), ("accent", "oval", (50, 93, 14 + 8 * c, 4))]
    return [*stand, ("base", "poly", (50 - top, 8, 50 + top, 8, 50 + low, 48, 50 - low, 48)), ("light", "line", (2, 50 - low, 48, 50 + low, 48))]


def _tea(a: float, b: float, c: float) -> list[Part]:
    wide, top = 20 + 10 * a, 22 + 14 * b
    return [
        ("base", "rect", (50 - wide, top, 50 + wide, 94)),
        ("dark", "rect", (48 - wide, top - 10, 52 + wide, top + 2)),
        ("light", "oval", (50, (top + 96) / 2, wide * 0.7, 16)),
        ("accent", "poly", (50, (top + 70) / 2, 60 + 4 * c, (top + 98) / 2, 50, (top + 120) / 2, 40 - 4 * c, (top + 98) / 2)),
    ]


def _sofa(a: float, b: float, c: float) -> list[Part]:
    top, arm = 28 + 12 * a, 8 + 6 * b
    cushions = 2 if c < 0.5 else 3
    width = (90 - 2 * arm) / cushions
    seats: list[Part] = [("accent", "rect", (5 + arm + k * width + 1, 52, 5 + arm + (k + 1) * width - 1, 64)) for k in range(cushions)]
    feet: list[Part] = [("dark", "rect", (x, 80, x + 4, 88)) for x in (10.0, 86.0)]
    return [
        ("base", "rect", (5 + arm, top, 95 - arm, 56)),
        *seats,
        ("base", "rect", (5, 63, 95, 81)),
        ("base", "rect", (3, 44, 3 + arm, 81)),
        ("base", "rect", (97 - arm, 44, 97, 81)),
        *feet,
    ]


def _shoe(a: float, b: float, c: float) -> list[Part]:
    ankle, toe = 24 + 14 * a, 58 + 8 * b
    laces: list[Part] = [("light", "line", (2, 42 + 7 * k, 50 - 4 * c + 4 * k, 50 + 7 * k, 46 + 4 * k)) for k in range(4)]
    upper: Part = ("base", "poly", (8, 76, 8, ankle, 34, ankle, 46, 48, 72, toe, 94, 66, 96, 76))
    return [upper, ("accent", "poly", (8, 60, 8, ankle, 20, ankle, 22, 76, 8, 76)), *laces, ("light", "rect", (6, 75, 97, 82 + 5 * c))]


def _eyeshadow(a: float, b: float, c: float) -> list[Part]:
    columns, rows = 2 + int(3 * a), 1 + int(2.99 * b)
    pans: list[Part] = []
    for row in range(rows):
        for column in range(columns):
            layer = ("base", "accent", "light")[(row + column + int(3 * c)) % 3]
            x, y = 12 + column * 76 / columns, 30 + row * 44 / rows
            pans.append((layer, "rect", (x + 1.5, y + 1.5, x + 76 / columns - 1.5, y + 44 / rows - 1.5)))
    return [("dark", "rect", (8, 26, 92, 78)), *pans]


def _speaker(a: float, b: float, c: float) -> list[Part]:
    wide, top = 20 + 12 * a, 8 + 24 * b
    body: Part = ("base", "rect", (50 - wide, top, 50 + wide, 94)) if c < 0.55 else ("base", "oval", (50, (top + 94) / 2, wide, (94 - top) / 2))
    return [body, ("dark", "oval", (50, 68, wide * 0.65, 16)), ("accent", "oval", (50, 68, wide * 0.35, 8)), ("dark", "oval", (50, top + 16, wide * 0.3, 6))]


def _jacket(a: float, b: float, c: float) -> list[Part]:
    low, wide = 78 + 16 * a, 24 + 6 * b
    sleeves: list[Part] = [
        ("base", "poly", (50 + s * 16, 14, 50 + s * (wide + 2), 20, 50 + s * 46, 66 + 8 * c, 50 + s * 36, 70 + 8 * c, 50 + s * (wide - 2), 40)) for s in (-1, 1)
    ]
    return [
        *sleeves,
        ("base", "poly", (36, 12, 64, 12, 50 + wide, 24, 50 + wide, low, 50 - wide, low, 50 - wide, 24)),
        ("dark", "line", (2, 50, 22, 50, low)),
        ("accent", "poly", (38, 10, 62, 10, 50, 30)),
        ("accent", "rect", (50 - wide, low - 5 - 4 * c, 50 + wide, low)),
    ]


def _shelf(a: float, b: float, c: float) -> list[Part]:
    wide, boards = 20 + 14 * a, 3 + int(3 * b)
    levels: list[Part] = [("base", "rect", (50 - wide, 6 + k * 86 / boards, 50 + wide, 11 + k * 86 / boards)) for k in range(boards + 1)]
    books: list[Part] = [("accent", "rect", (52 - wide + 9 * k, 16, 58 - wide + 9 * k, 5 + 86 / boards)) for k in range(1 + int(2.9 * c))]
    return [
        ("dark", "rect", (53 - wide, 9, 47 + wide, 94)),
        *levels,
        *books,
        ("base", "rect", (50 - wide, 6, 54 - wide, 97)),
        ("base", "rect", (46 + wide, 6, 50 + wide, 97)),
    ]


def _cereal(a: float, b: float, c: float) -> list[Part]:
    wide, top = 24 + 10 * a, 6 + 14 * b
    return [
        ("base", "rect", (50 - wide, top, 50 + wide, 95)),
        ("light", "rect", (50 - wide, top + 8, 50 + wide, top + 26)),
        ("accent", "oval", (50, 72, wide * 0.75, 15)),
        ("light", "oval", (50, 69, wide * 0.6, 9 * (0.5 + c / 2))),
        ("dark", "line", (3, 56 - wide, top + 17, 40 + wide * c, top + 17)),
    ]


def _ring(a: float, b: float, c: float) -> list[Part]:
    size, stone = 24 + 7 * a, 7 + 9 * b
    gem: Part = ("accent", "poly", (50, 30 - stone, 50 + stone, 30, 50, 30 + stone, 50 - stone, 30)) if c < 0.5 else ("accent", "oval", (50, 28, stone, stone))
    return [("base", "ring", (50, 62, size, size, 6 + 6 * c)), gem, ("light", "line", (1.5, 46, 26, 50, 22))]


OUTLINES: dict[str, Outline] = {
    "chair": _chair, "sunglasses": _sunglasses, "lipstick": _lipstick, "juice": _juice, "headphones": _headphones, "watch": _watch, "lamp": _lamp, "tea": _tea,
    "sofa": _sofa, "shoe": _shoe, "eyeshadow": _eyeshadow, "speaker": _speaker, "jacket": _jacket, "shelf": _shelf, "cereal": _cereal, "ring": _ring,
}  # fmt: skip
