"""How much a shopper likes a product in a context, and what follows from it: chances of a click and a purchase, and interest.

Letters: B = sessions, N = products. One place for these formulae: the log is drawn from them and the truth is told by them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guidelens.world.latents import Floats, Ints, ProductLatents, ShopperLatents
from guidelens.world.parameters import STYLE_DIM, AppealParameters, Trouble, WorldParameters

FEED, SCAN, TEXT = range(3)
DRIFT_RADIANS = 1.2


@dataclass(frozen=True)
class Moments:
    """Where B sessions stand: shopper row, day since the start of the log (float), second member of a household acting."""

    shopper: Ints
    day: Floats
    is_second: NDArray[np.bool_]


@dataclass(frozen=True)
class Contexts:
    """What B sessions ask: kind FEED, SCAN or TEXT; target (B,) product row scanned or meant, -1 for the feed; which words a text named."""

    kind: Ints
    target: Ints
    with_colour: NDArray[np.bool_]
    with_material: NDArray[np.bool_]


def tastes(shoppers: ShopperLatents, moments: Moments, num_days: int, parameters: WorldParameters) -> Floats:
    """(B, 8): the taste of the moment, turning slowly over the log and, where the trouble says so, at once on a day."""
    angle = (parameters.shoppers.taste_drift * moments.day / num_days)[:, None]
    if parameters.trouble.drift_day is not None:
        angle = angle + DRIFT_RADIANS * (moments.day >= parameters.trouble.drift_day)[:, None]
    rows = moments.shopper
    own = np.cos(angle) * shoppers.taste[rows] + np.sin(angle) * shoppers.taste_to[rows]
    second = (moments.is_second & shoppers.is_household[rows])[:, None]
    return np.where(second, shoppers.taste2[rows], own)


def popularity(products: ProductLatents, day: Floats, trouble: Trouble) -> Floats:
    """(B, N): given daily curves, so that shoppers stay independent of each other; after a drift day, those of other products."""
    wave = np.sin(2 * np.pi * (day[:, None] / 14.0 + products.popularity_phase[None]))
    level = products.popularity[None]
    if trouble.drift_day is not None:
        level = np.where((day >= trouble.drift_day)[:, None], np.roll(products.popularity, products.num // 2)[None], level)
    curve: Floats = level + 0.4 * wave
    return curve


def appeal(products: ProductLatents, shoppers: ShopperLatents, moments: Moments, num_days: int, parameters: WorldParameters) -> Floats:
    """(B, N) log-odds-like appeal without context and noise, before the bias."""
    weights = parameters.appeal
    liked = tastes(shoppers, moments, num_days, parameters) @ products.style.T / np.sqrt(STYLE_DIM)
    families = shoppers.families[moments.shopper][:, products.family]
    price = -(0.6 + shoppers.price_sensitivity[moments.shopper])[:, None] * 2.0 * products.price_level[None]
    total: Floats = weights.taste * liked + weights.family * families + weights.quality * products.quality[None] + weights.price * price
    return total + weights.popularity * popularity(products, moments.day, parameters.trouble)


def relation(products: ProductLatents, contexts: Contexts) -> Floats:
    """(B, N): what each product truly is to the thing scanned or asked for; 0 for the feed.

    A scan likes its own family in a near style, and complements that match in style; a text likes what fits its words.
    """
    target = np.maximum(contexts.target, 0)
    family = products.family
    same = family[target][:, None] == family[None]
    near = products.style[target] @ products.style.T / STYLE_DIM
    scan = 1.3 * same + 0.9 * near * np.where(same, 1.0, 0.5) + outfit(products, target) - 0.6
    return _where_kind(contexts.kind, scan, _words(products, contexts, 1.7, 0.8, 0.5) - 0.6)


def outfit(products: ProductLatents, target: Ints) -> Floats:
    """(B, N): how well each product goes with a target by outfit alone: families that complement each other, better in a near style; 0 for others."""
    near = products.style[target] @ products.style.T / STYLE_DIM
    fits: Floats = products.complements[products.family[target]][:, products.family] * (0.7 + 0.6 * near)
    return fits


def visible_relation(products: ProductLatents, contexts: Contexts) -> Floats:
    """(B, N): what the logging policy can see of it: family, colour and material."""
    target = np.maximum(contexts.target, 0)
    same_family = products.family[target][:, None] == products.family[None]
    same_colour = products.colour[target][:, None] == products.colour[None]
    same_material = products.material[target][:, None] == products.material[None]
    goes_with = products.complements[products.family[target]][:, products.family]
    scan = 1.1 * same_family + 0.5 * goes_with + 0.4 * same_colour + 0.3 * same_family * same_material
    return _where_kind(contexts.kind, scan, _words(products, contexts, 1.4, 0.5, 0.3))


def _words(products: ProductLatents, contexts: Contexts, family: float, colour: float, material: float) -> Floats:
    target = np.maximum(contexts.target, 0)
    same = (products.family[target][:, None] == products.family[None]).astype(np.float64)
    of_colour = contexts.with_colour[:, None] & (products.colour[target][:, None] == products.colour[None])
    of_material = contexts.with_material[:, None] & (products.material[target][:, None] == products.material[None])
    fit: Floats = family * same + colour * of_colour + material * of_material * same
    return fit


def _where_kind(kind: Ints, scan: Floats, text: Floats) -> Floats:
    return np.where((kind == SCAN)[:, None], scan, np.where((kind == TEXT)[:, None], text, 0.0))


def click_chance(total_appeal: Floats, weights: AppealParameters) -> Floats:
    """Chance of a click once examined."""
    chance: Floats = 1 / (1 + np.exp(-(weights.bias + total_appeal)))
    return chance


def cart_chance(total_appeal: Floats, weights: AppealParameters) -> Floats:
    """Chance that a clicked product goes into the cart without AR."""
    chance: Floats = 1 / (1 + np.exp(-(weights.cart_bias + 0.5 * total_appeal)))
    return chance


def interest_of(total_appeal: Floats) -> Floats:
    """Latent interest in [0, 1]."""
    interest: Floats = 1 / (1 + np.exp(-(total_appeal - 1.0) / 1.5))
    return interest
