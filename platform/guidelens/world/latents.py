"""Products and shoppers as they really are: the latent truth behind catalogue, texts, images and events.

Nothing of this is written to a file of the shop; the world redraws it from the seed. All randomness is counter-based:
products by (seed, "products"), a shopper by (seed, "shoppers", shopper).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guidelens.schemas.catalog import Product
from guidelens.schemas.ids import sub_seed
from guidelens.schemas.steps import DeviceCapabilities, PlanContext, base_mask
from guidelens.world.families import COLOURS, COMPLEMENTS, FAMILIES, PATTERNS
from guidelens.world.parameters import STYLE_DIM, WorldParameters

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

KINDS = ("room", "front", "worn", "solid", "plain")
"""What the AR decision process knows of a product: how it can be tried."""
GOOD_QUALITY = -0.5
"""Hidden quality above which reviews help and few purchases come back."""
DEVICES: tuple[tuple[str, DeviceCapabilities], ...] = (
    ("ar+front", DeviceCapabilities(ar=True, front_camera=True)),
    ("ar", DeviceCapabilities(ar=True, front_camera=False)),
    ("none", DeviceCapabilities(ar=False, front_camera=False)),
)
_KIND_OF_TRY_ON = {"room": 0, "face": 1, "eyes": 1, "hand": 2, "wrist": 2, "foot": 2, "body": 2}


def philox(seed: int, name: str, counter: int = 0) -> np.random.Generator:
    """A generator of its own for (seed, name, counter): the same whoever asks, and in whatever order."""
    return np.random.Generator(np.random.Philox(key=sub_seed(seed, name), counter=[0, 0, 0, counter]))


@dataclass(frozen=True)
class ProductLatents:
    """Arrays over N products. style (N, 8); family, kind, colour, material, pattern, size (N,) int; the rest (N,) float64.

    margin is in minor units; quality, popularity are standard normal; price_level is the log price against the family's median.
    masks (3, N, NUM_STEPS) bool: the steps product and device allow.
    """

    style: Floats
    family: Ints
    kind: Ints
    colour: Ints
    material: Ints
    pattern: Ints
    size: Ints
    shape: Floats
    quality: Floats
    popularity: Floats
    popularity_phase: Floats
    age_days: Floats
    price_minor: Ints
    price_level: Floats
    margin: Floats
    masks: NDArray[np.bool_]
    complements: Floats

    @property
    def num(self) -> int:
        return len(self.family)


def draw_products(num_products: int, seed: int) -> ProductLatents:
    """The rendered shop's products: style draws everything one can see; quality and popularity are drawn apart."""
    rng = philox(seed, "products")
    num_families = min(len(FAMILIES), max(8, num_products // 6))
    family = np.arange(num_products) % num_families
    centres = rng.normal(size=(num_families, STYLE_DIM))
    style = 0.45 * centres[family] + np.sqrt(1 - 0.45**2) * rng.normal(size=(num_products, STYLE_DIM))
    hue = np.arctan2(style[:, 0], style[:, 1]) / (2 * np.pi) + 0.5
    neutral = np.hypot(style[:, 0], style[:, 1]) < 0.75
    colour = np.where(neutral, len(COLOURS) - 4 + np.minimum((hue * 4).astype(np.int64), 3), np.minimum((hue * 8).astype(np.int64), 7))
    num_materials = np.array([len(item.materials) for item in FAMILIES])[family]
    ranks = _normal_cdf(style[:, 2:])
    median = np.array([item.median_price_minor for item in FAMILIES], dtype=np.float64)[family]
    price_level = 0.3 * style[:, 7] + 0.2 * rng.normal(size=num_products)
    price_minor = (np.round(median * np.exp(price_level) / 100) * 100 - 1).astype(np.int64)
    quality = rng.normal(size=num_products)
    kind = np.array([_kind(item.try_on, item.vertical != "food") for item in FAMILIES])[family]
    contexts = [PlanContext(try_on=FAMILIES[f].try_on, has_3d=True) for f in family]
    return ProductLatents(
        style=style,
        family=family,
        kind=kind,
        colour=colour,
        material=np.minimum((ranks[:, 0] * num_materials).astype(np.int64), num_materials - 1),
        pattern=np.minimum((ranks[:, 1] * len(PATTERNS)).astype(np.int64), len(PATTERNS) - 1),
        size=np.minimum((ranks[:, 2] * 3).astype(np.int64), 2),
        shape=ranks[:, 3:],
        quality=quality,
        popularity=0.35 * quality + np.sqrt(1 - 0.35**2) * rng.normal(size=num_products),
        popularity_phase=rng.random(num_products),
        age_days=rng.exponential(30.0, size=num_products),
        price_minor=price_minor,
        price_level=price_level,
        margin=np.round(price_minor * (0.25 + 0.2 * rng.random(num_products))),
        masks=_masks(contexts),
        complements=_complements(num_families),
    )


def real_products(products: Sequence[Product], styles: Floats, seed: int) -> ProductLatents:
    """Latents of a real catalogue: style is given (made of real embeddings), the family is its category's first two levels."""
    rng = philox(seed, "products")
    num_products = len(products)
    names = ["/".join(product.category.split("/")[:2]) for product in products]
    order = {name: row for row, name in enumerate(sorted(set(names)))}
    family = np.array([order[name] for name in names])
    style = (styles - styles.mean(axis=0)) / np.maximum(styles.std(axis=0), 1e-9)
    drawn = np.round(300 * np.exp(0.5 * rng.normal(size=num_products))).astype(np.int64)
    price_minor = np.array([drawn[row] if product.price_minor is None else product.price_minor for row, product in enumerate(products)], dtype=np.int64)
    log_price = np.log(np.maximum(price_minor, 1))
    has_3d = [product.model_3d is not None or None not in (product.width_m, product.height_m, product.depth_m) for product in products]
    quality = rng.normal(size=num_products)
    none = np.zeros(num_products, dtype=np.int64)
    colours = sorted({str(product.attributes.get("colour", "")) for product in products})
    return ProductLatents(
        style=style,
        family=family,
        kind=np.array([_kind(product.try_on, solid) for product, solid in zip(products, has_3d, strict=True)]),
        colour=np.array([colours.index(str(product.attributes.get("colour", ""))) for product in products]),
        material=none,
        pattern=none,
        size=none,
        shape=np.zeros((num_products, 3)),
        quality=quality,
        popularity=0.35 * quality + np.sqrt(1 - 0.35**2) * rng.normal(size=num_products),
        popularity_phase=rng.random(num_products),
        age_days=rng.exponential(30.0, size=num_products),
        price_minor=price_minor,
        price_level=np.clip(log_price - log_price.mean(), -1.5, 1.5),
        margin=np.maximum(1.0, np.round(price_minor * (0.25 + 0.2 * rng.random(num_products)))),
        masks=_masks([PlanContext(try_on=product.try_on, has_3d=solid) for product, solid in zip(products, has_3d, strict=True)]),
        complements=np.where(rng.random((len(order), len(order))) < 0.15, 1.0, 0.0),
    )


def _kind(try_on: str, solid: bool) -> int:
    return _KIND_OF_TRY_ON.get(try_on, 3 if solid else 4)


def _masks(contexts: Sequence[PlanContext]) -> NDArray[np.bool_]:
    return np.stack([np.stack([base_mask(context.model_copy(update={"device": device})) for context in contexts]) for _, device in DEVICES])


def _complements(num_families: int) -> Floats:
    rows = {item.name: row for row, item in enumerate(FAMILIES[:num_families])}
    matrix = np.zeros((num_families, num_families))
    for one, other in COMPLEMENTS:
        if one in rows and other in rows:
            matrix[rows[one], rows[other]] = matrix[rows[other], rows[one]] = 1.0
    return matrix


def _normal_cdf(values: Floats) -> Floats:
    """Logistic approximation of the normal distribution function: smooth, monotone and the same on every machine."""
    squashed: Floats = 1 / (1 + np.exp(-1.702 * values))
    return squashed


@dataclass(frozen=True)
class ShopperLatents:
    """Arrays over M shoppers. taste, taste_to (M, 8); families (M, F); the rest (M,).

    A household's account has a second member: taste2 is used in about half of its sessions. device indexes DEVICES.
    first_day: day of the log on which the account may act first.
    """

    taste: Floats
    taste_to: Floats
    taste2: Floats
    families: Floats
    price_sensitivity: Floats
    ar_affinity: Floats
    patience: Floats
    expertise: Floats
    care: Floats
    activity: Floats
    is_household: NDArray[np.bool_]
    first_day: Floats
    device: Ints
    visible: Floats

    @property
    def num(self) -> int:
        return len(self.device)

    @property
    def guide_type(self) -> Ints:
        """(M,) in 0..7: expert + 2 price-sensitive + 4 careful."""
        rows: Ints = ((self.expertise > 0.3) + 2 * (self.price_sensitivity > 0.2) + 4 * (self.care > 0.2)).astype(np.int64)
        return rows


NUM_VISIBLE = 6
_NUM_DRAWS = 3 * STYLE_DIM + 5 + NUM_VISIBLE


def draw_shoppers(num_shoppers: int, num_days: int, seed: int, products: ProductLatents, parameters: WorldParameters) -> ShopperLatents:
    """All shoppers; each one's numbers depend on (seed, shopper) only."""
    settings = parameters.shoppers
    num_families = int(products.family.max()) + 1
    normals = np.empty((num_shoppers, _NUM_DRAWS + num_families))
    uniforms = np.empty((num_shoppers, 5))
    for shopper in range(num_shoppers):
        rng = philox(seed, "shoppers", shopper)
        normals[shopper] = rng.normal(size=normals.shape[1])
        uniforms[shopper] = rng.random(5)
    shared = philox(seed, "shared taste").normal(size=STYLE_DIM)
    tastes, rest = normals[:, : 3 * STYLE_DIM].reshape(num_shoppers, 3, STYLE_DIM), normals[:, 3 * STYLE_DIM :]
    traits, noise, families = rest[:, :5], rest[:, 5 : 5 + NUM_VISIBLE], rest[:, 5 + NUM_VISIBLE :]
    keep = np.sqrt(1 - settings.shared_taste**2)
    tastes = settings.shared_taste * shared + keep * tastes
    is_new = uniforms[:, 0] < settings.new_in_last_week_share
    correlation = settings.profile_correlation
    latent = np.column_stack([traits[:, 4], tastes[:, 0, 0], traits[:, 0], tastes[:, 0, 1], traits[:, 3], traits[:, 2]])
    no_ar = settings.no_ar_share
    return ShopperLatents(
        taste=tastes[:, 0],
        taste_to=tastes[:, 1],
        taste2=tastes[:, 2],
        families=families,
        price_sensitivity=traits[:, 0],
        ar_affinity=traits[:, 1],
        patience=traits[:, 2],
        expertise=traits[:, 3],
        care=traits[:, 4],
        activity=(1 - uniforms[:, 1]) ** (-1 / settings.activity_tail),
        is_household=uniforms[:, 2] < settings.household_share,
        first_day=np.where(is_new, num_days - 7.0 + 6.0 * uniforms[:, 3], 0.0),
        device=np.where(uniforms[:, 4] < no_ar, 2, np.where(uniforms[:, 4] < no_ar + settings.ar_only_share, 1, 0)),
        visible=correlation * latent + np.sqrt(1 - correlation**2) * noise,
    )
