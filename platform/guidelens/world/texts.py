"""What the shop says of its products, and what its shoppers type: English and Chinese, with synonyms, omissions and a few wrong attributes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guidelens.config import WorldSize
from guidelens.schemas.catalog import Product
from guidelens.world.families import BRANDS, COLOURS, FAMILIES, MATERIALS_ZH, PATTERNS, SIZES, Family
from guidelens.world.latents import ProductLatents, philox
from guidelens.world.parameters import WorldParameters

_FACTS: dict[str, Sequence[Any]] = {
    "max_load_kg": (80, 110, 120, 150), "uv_class": ("UV400",), "vegan": (True, False), "sugar_g_per_100ml": (4.2, 8.9, 10.4), "battery_h": (12, 24, 30, 40),
    "water_resistance_m": (30, 50, 100), "max_watt": (25, 40, 60), "caffeine": ("none", "low", "medium"), "seats": (2, 3), "sole": ("rubber", "foam"),
    "num_shades": (4, 6, 9, 12), "care": ("hand wash", "30 °C", "dry clean"), "fibre_g_per_100g": (6.1, 8.4, 10.2), "carat": (0.0, 0.1, 0.25),
}  # fmt: skip


def product_id(row: int) -> str:
    return f"p-{row:04d}"


def catalogue(products: ProductLatents, size: WorldSize, seed: int, parameters: WorldParameters) -> list[Product]:
    """The catalogue as the shop brings it."""
    return [_product(products, row, size, philox(seed, "texts", row), parameters) for row in range(products.num)]


def _product(products: ProductLatents, row: int, size: WorldSize, rng: np.random.Generator, parameters: WorldParameters) -> Product:
    family = FAMILIES[products.family[row]]
    draws = rng.random(12)
    wrong, omit = draws[:3] < parameters.wrong_attribute_share, draws[3:7] < parameters.omitted_text_share
    colour = int((products.colour[row] + 1 + 5 * wrong[0]) % len(COLOURS)) if wrong[0] else int(products.colour[row])
    material = family.materials[(products.material[row] + int(wrong[1])) % len(family.materials)]
    pattern = PATTERNS[(products.pattern[row] + int(wrong[2])) % len(PATTERNS)]
    label = SIZES[products.size[row]]
    brand = BRANDS[int(draws[7] * len(BRANDS))]
    noun, noun_zh = family.nouns[int(draws[8] < 0.3)], family.nouns_zh[int(draws[8] < 0.3)]
    series = f"{chr(65 + int(draws[9] * 26))}{row + 10}"
    stretch = (0.85, 1.0, 1.15)[products.size[row]] * (0.95 + 0.1 * draws[10])
    width, height, depth = (round(value * stretch, 3) for value in family.dims_m)
    attributes = {"colour": COLOURS[colour][0], "material": material, "size": label[0], "pattern": pattern[0]}
    if omit[0]:
        del attributes["material"]
    if omit[1]:
        del attributes["pattern"]
    title = " ".join(word for word in (brand, series, "" if omit[2] else COLOURS[colour][0], material, noun) if word)
    title_zh = f"{brand} {series} {'' if omit[2] else COLOURS[colour][1]}{MATERIALS_ZH[material]}{noun_zh}"
    facts = {family.fact: _FACTS[family.fact][int(draws[11] * len(_FACTS[family.fact]))], "warranty_years": 1 + int(products.quality[row] + draws[10] > 0.5)}
    return Product(
        product_id=product_id(row),
        title=title,
        title_zh=title_zh,
        description="" if omit[3] else _description(family, COLOURS[colour][0], material, pattern[0], label[0], (width, height, depth)),
        description_zh=None
        if omit[3]
        else f"{pattern[1]}{COLOURS[colour][1]}{noun_zh}，{MATERIALS_ZH[material]}材质，{label[1]}，高 {height:g} 米，宽 {width:g} 米。",
        category=family.category,
        brand=brand,
        price_minor=int(products.price_minor[row]),
        currency="EUR",
        attributes=attributes,
        facts=facts,
        images=tuple(f"catalogue/{row:04d}-{view}.jpg" for view in range(size.views_per_product)),
        stock=int(rng.integers(0, 3) if rng.random() < 0.05 else rng.integers(5, 200)),
        try_on=family.try_on,
        width_m=width,
        height_m=height,
        depth_m=depth,
    )


def _description(family: Family, colour: str, material: str, pattern: str, size: str, dims: tuple[float, float, float]) -> str:
    width, height, depth = dims
    return f"A {pattern} {colour} {family.nouns[-1]} in {material}, size {size}. {width:g} m wide, {height:g} m high, {depth:g} m deep."


def write_catalogue(products: Sequence[Product], path: Path) -> None:
    with path.open("w", encoding="utf-8") as sink:
        for product in products:
            sink.write(json.dumps(product.model_dump(mode="json", exclude_none=True), ensure_ascii=False) + "\n")


def query_parts(products: Sequence[Product]) -> list[tuple[str, str, str, str]]:
    """For each product what a shopper may type of it: (noun, noun_zh, colour, material); of a real catalogue its titles."""
    nouns = {family.category: family for family in FAMILIES}
    parts = []
    for product in products:
        family = nouns.get(product.category)
        noun = family.nouns[0] if family else product.category.split("/")[-1].replace("-", " ").replace("_", " ").lower()
        noun_zh = family.nouns_zh[0] if family else (product.title_zh or product.title)
        parts.append((noun, noun_zh, str(product.attributes.get("colour", "")), str(product.attributes.get("material", ""))))
    return parts


def query_text(parts: tuple[str, str, str, str], with_colour: bool, with_material: bool, in_chinese: bool) -> str:
    """The words of one search."""
    noun, noun_zh, colour, material = parts
    if in_chinese:
        colours = {name: name_zh for name, name_zh, _ in COLOURS}
        return f"{colours.get(colour, '') if with_colour else ''}{MATERIALS_ZH.get(material, '') if with_material else ''}{noun_zh}"
    return " ".join(word for word in (colour if with_colour else "", material if with_material else "", noun) if word)
