"""The sessions of a chunk of shoppers: arrivals, contexts, slates with exact propensities, clicks, browsing, purchases and AR sessions.

Everything random comes from one block of uniforms a session, drawn from (seed, shopper): how shoppers are spread over workers
changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guidelens.schemas.steps import MAX_STEPS
from guidelens.world import appeal as model
from guidelens.world.appeal import FEED, SCAN, TEXT, Contexts, Moments
from guidelens.world.guide_process import NUM_UNIFORMS, initial_state
from guidelens.world.guide_tables import combo_of
from guidelens.world.latents import GOOD_QUALITY, KINDS, Floats, Ints, ProductLatents, ShopperLatents, philox
from guidelens.world.parameters import WorldParameters
from guidelens.world.policy import LoggingPolicy, PlanPolicy, script_plans
from guidelens.world.rollout import GuideSessions, Rollout, run

_HOURS = np.array([1, 0.6, 0.4, 0.3, 0.3, 0.5, 1, 2, 3, 3.5, 4, 4.5, 5, 4.5, 4, 4, 4.2, 4.8, 5.5, 6.5, 7, 6.5, 4.5, 2.5])
_WEEK = np.array([1.0, 0.95, 0.95, 1.0, 1.15, 1.5, 1.45])
_CAMPAIGN_DAYS = (9, 10, 11)
CHANNELS = ("app", "web", "mini_program", "store")

NUM_FIXED = 14
NUM_PER_ITEM = 9
NUM_TAIL = 12


@dataclass(frozen=True)
class Shop:
    """Everything a worker needs; redrawn from the seed in each. frames: (paths, product rows) of session frames."""

    products: ProductLatents
    shoppers: ShopperLatents
    frame_products: Ints
    num_days: int
    seed: int
    parameters: WorldParameters


@dataclass(frozen=True)
class Slates:
    """(B, K) each. product rows, propensity, examined, clicked, cart, purchase, total appeal (with context and noise)."""

    product: Ints
    propensity: Floats
    examined: NDArray[np.bool_]
    clicked: NDArray[np.bool_]
    cart: NDArray[np.bool_]
    bought: NDArray[np.bool_]
    appeal: Floats
    browse_ms: Floats
    stay_ms: Floats
    depth: Ints


@dataclass(frozen=True)
class ArSessions:
    """The AR sessions among B: their rows, focus products, whether the focus was scanned, and what happened in them."""

    session: Ints
    product: Ints
    is_scan: NDArray[np.bool_]
    hidden: GuideSessions
    log: Rollout


@dataclass(frozen=True)
class Chunk:
    """B sessions of some shoppers, by shopper and time. number: a shopper's how-manieth session. frame: index into the frames, -1 for none."""

    moments: Moments
    number: Ints
    contexts: Contexts
    frame: Ints
    in_chinese: NDArray[np.bool_]
    is_anonymous: NDArray[np.bool_]
    channel: Ints
    slates: Slates
    ar: ArSessions
    tail: Floats


def session_counts(shoppers: ShopperLatents, num_sessions: int, seed: int) -> Ints:
    """(M,) sessions of each shopper: a long tail, at least one each where there are enough."""
    weight = np.minimum(shoppers.activity, 25.0) * np.where(shoppers.first_day > 0, 0.35, 1.0)
    floor = 1 if num_sessions >= shoppers.num else 0
    drawn = philox(seed, "session counts").multinomial(num_sessions - floor * shoppers.num, weight / weight.sum())
    return drawn.astype(np.int64) + floor


def simulate(shop: Shop, rows: Sequence[int], counts: Ints) -> Chunk:
    """All sessions of the shoppers `rows` (counts: of all shoppers)."""
    num_products, slate_size = shop.products.num, min(shop.parameters.slates.slate_size, shop.products.num)
    width = num_products + NUM_FIXED + slate_size * NUM_PER_ITEM + NUM_TAIL + MAX_STEPS * (NUM_UNIFORMS + 2)
    draws = np.concatenate([philox(shop.seed, "sessions", row).random((int(counts[row]), width)) for row in rows])
    shopper = np.repeat(np.asarray(rows, dtype=np.int64), counts[np.asarray(rows)])
    number = np.concatenate([np.arange(counts[row]) for row in rows]).astype(np.int64)
    gumbel, rest = -np.log(-np.log(draws[:, :num_products].clip(1e-12, 1 - 1e-12))), draws[:, num_products:]
    fixed, rest = rest[:, :NUM_FIXED], rest[:, NUM_FIXED:]
    items, rest = rest[:, : slate_size * NUM_PER_ITEM].reshape(-1, slate_size, NUM_PER_ITEM), rest[:, slate_size * NUM_PER_ITEM :]
    tail, guide = rest[:, :NUM_TAIL], rest[:, NUM_TAIL:].reshape(-1, MAX_STEPS, NUM_UNIFORMS + 2)

    moments = Moments(shopper, arrival_days(shop, shopper, fixed[:, 0]), fixed[:, 2] < 0.5)
    liked = model.appeal(shop.products, shop.shoppers, moments, shop.num_days, shop.parameters)
    contexts, frame = _contexts(shop, moments, liked, fixed)
    total = liked + shop.parameters.appeal.context * model.relation(shop.products, contexts)
    slates = _slates(shop, moments, contexts, total, gumbel, items)
    return Chunk(
        moments=moments,
        number=number,
        contexts=contexts,
        frame=frame,
        in_chinese=fixed[:, 8] < 0.5,
        is_anonymous=fixed[:, 11] < shop.parameters.shoppers.anonymous_share,
        channel=_channels(shop, shopper, fixed[:, 12]),
        slates=slates,
        ar=_ar_sessions(shop, moments, contexts, slates, liked, fixed, tail, guide),
        tail=tail,
    )


def arrival_days(shop: Shop, shopper: Ints, draws: Floats) -> Floats:
    """(B,) days since the start: a daily and weekly rhythm with a campaign, from each shopper's first day on."""
    hours = np.tile(_HOURS, shop.num_days) * np.repeat(_WEEK[np.arange(shop.num_days) % 7], 24)
    hours *= np.repeat(np.where(np.isin(np.arange(shop.num_days), _CAMPAIGN_DAYS), 1.4, 1.0), 24)
    mass = np.concatenate([[0.0], np.cumsum(hours)])
    edges = np.arange(len(mass)) / 24.0
    first = np.interp(shop.shoppers.first_day[shopper], edges, mass)
    days: Floats = np.interp(first + draws * (mass[-1] - first) * (1 - 1e-9), mass, edges)
    return days


def _contexts(shop: Shop, moments: Moments, liked: Floats, fixed: Floats) -> tuple[Contexts, Ints]:
    slates = shop.parameters.slates
    affinity = shop.shoppers.ar_affinity[moments.shopper]
    has_ar = shop.shoppers.device[moments.shopper] < 2
    scan_share = np.clip(slates.scan_share + 0.1 * affinity - 0.15 * ~has_ar, 0.05, 0.9)
    kind = np.where(fixed[:, 1] < scan_share, SCAN, np.where(fixed[:, 1] < scan_share + slates.text_share, TEXT, FEED)).astype(np.int64)
    pictured = np.zeros(shop.products.num, dtype=np.bool_)
    pictured[shop.frame_products] = True
    wanted = np.exp(1.1 * liked - 1.1 * liked.max(axis=1, keepdims=True))
    wanted = np.where((kind == SCAN)[:, None] & ~pictured, 0.0, wanted)
    mass = np.cumsum(wanted, axis=1)
    target = (mass > (fixed[:, 4] * mass[:, -1])[:, None]).argmax(axis=1)
    frame = _frame_of(shop.frame_products, target, fixed[:, 5])
    contexts = Contexts(kind, np.where(kind == FEED, -1, target), fixed[:, 6] < 0.7, fixed[:, 7] < 0.35)
    return contexts, np.where(kind == SCAN, frame, -1)


def _frame_of(frame_products: Ints, target: Ints, draws: Floats) -> Ints:
    """(B,) a frame that shows each target; any number for a target without frames."""
    order = np.argsort(frame_products, kind="stable")
    first = np.searchsorted(frame_products[order], target, side="left")
    after = np.searchsorted(frame_products[order], target, side="right")
    pick = np.minimum(first + (draws * (after - first)).astype(np.int64), len(order) - 1)
    return order[pick]


def _slates(shop: Shop, moments: Moments, contexts: Contexts, total: Floats, gumbel: Floats, items: Floats) -> Slates:
    parameters, products = shop.parameters, shop.products
    logits = logging_logits(products, moments.day, contexts, parameters)
    size = items.shape[1]
    chosen = np.argsort(-(logits + gumbel), axis=1, kind="stable")[:, :size]
    propensity = slate_propensity(logits, chosen)
    rows = np.arange(len(chosen))[:, None]
    normal = _normals(items[:, :, 2:6])
    mine = total[rows, chosen] + parameters.appeal.noise * normal[:, :, 0]
    examined = items[:, :, 0] < examination(size, parameters)
    clicked = examined & (items[:, :, 1] < model.click_chance(mine, parameters.appeal))
    cart = clicked & (items[:, :, 6] < model.cart_chance(mine, parameters.appeal))
    bought = cart & (items[:, :, 7] < parameters.appeal.purchase_given_cart)
    times = parameters.interest
    level = (mine - 1.0) / 1.5
    browse = times.browse_ms * np.exp(times.slope * level + times.spread * normal[:, :, 1])
    stay = times.stay_ms * np.exp(times.slope * level + times.spread * normal[:, :, 2])
    is_censored = items[:, :, 8] < times.censored_share
    stay = stay * np.where(is_censored, items[:, :, 8] / max(times.censored_share, 1e-12), 1.0)
    depth = 1 + np.floor(np.exp(0.5 * level + 0.5 * normal[:, :, 3]))
    return Slates(
        chosen,
        propensity,
        examined,
        clicked,
        cart,
        bought,
        mine,
        np.round(browse.clip(80, 600_000)),
        np.round(stay.clip(500, 3_600_000)),
        depth.clip(1, 30).astype(np.int64),
    )


def examination(size: int, parameters: WorldParameters) -> Floats:
    """(K,) chance that a position is looked at."""
    chance: Floats = np.exp(-parameters.slates.examination_decay * np.arange(size))
    return chance


def logging_logits(products: ProductLatents, day: Floats, contexts: Contexts, parameters: WorldParameters) -> Floats:
    """(B, N): the shop's own ranker before its softmax: popularity, recency (and campaigns) and visible content."""
    slates = parameters.slates
    recency = np.exp(-products.age_days / 20.0)[None]
    campaign = np.isin(day.astype(np.int64), _CAMPAIGN_DAYS)[:, None] & (products.family % 5 == 0)[None]
    logits: Floats = (
        slates.popularity_weight * model.popularity(products, day, parameters.trouble)
        + slates.recency_weight * recency
        + slates.content_weight * model.visible_relation(products, contexts)
        + slates.campaign_boost * campaign
    )
    scanned = np.flatnonzero(contexts.kind == SCAN)
    logits[scanned, contexts.target[scanned]] = -1e9  # nobody recommends what the shopper already holds
    return logits


def slate_propensity(logits: Floats, chosen: Ints) -> Floats:
    """(B, K): chance of each item at its place, given the items above it (sampling without replacement from the softmax)."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    mine = np.take_along_axis(weights, chosen, axis=1)
    # Summed from the back, so that what remains never suffers from cancellation.
    order_rest = weights.sum(axis=1) - mine.sum(axis=1)
    remaining = np.cumsum(mine[:, ::-1], axis=1)[:, ::-1] + np.maximum(order_rest, 0.0)[:, None]
    share: Floats = np.clip(mine / remaining, 1e-12, 1.0)
    return share


def _normals(uniforms: Floats) -> Floats:
    clipped = uniforms.clip(1e-9, 1 - 1e-9)
    drawn: Floats = np.log(clipped / (1 - clipped)) / 1.702
    return drawn


def _channels(shop: Shop, shopper: Ints, draws: Floats) -> Ints:
    usual = np.digitize(shop.shoppers.visible[shopper, 4], (-0.4, 0.5, 1.3))
    return np.where(draws < 0.8, usual, np.minimum((draws - 0.8) / 0.2 * 4, 3)).astype(np.int64)


def _ar_sessions(shop: Shop, moments: Moments, contexts: Contexts, slates: Slates, liked: Floats, fixed: Floats, tail: Floats, guide: Floats) -> ArSessions:
    parameters, products, shoppers = shop.parameters.guide, shop.products, shop.shoppers
    lift = 0.12 * shoppers.ar_affinity[moments.shopper]
    is_scan = (contexts.kind == SCAN) & (fixed[:, 9] < parameters.ar_scan + lift)
    best = np.where(slates.clicked, slates.appeal, -np.inf).argmax(axis=1)
    rows = np.arange(len(best))
    opens = ~is_scan & slates.clicked.any(axis=1) & (fixed[:, 10] < parameters.ar_click + lift)
    session = np.flatnonzero(is_scan | opens)
    focus = np.where(is_scan, contexts.target, slates.product[rows, best])[session]
    shopper = moments.shopper[session]
    kind, guide_type = products.kind[focus], shoppers.guide_type[shopper]
    good = products.quality[focus] > GOOD_QUALITY
    level = (liked[session, focus] - 0.7) / 1.1
    start = initial_state(kind, guide_type, good, level, shoppers.patience[shopper], products.price_level[focus], tail[session, :6])
    device = shoppers.device[shopper]
    hidden = GuideSessions(
        row=np.arange(len(session)),
        kind=kind,
        combo=combo_of(kind, good, guide_type),
        sees_ar=device < 2,
        start=start,
        base=products.masks[device, focus],
        margin=products.margin[focus],
    )
    script = PlanPolicy(script_plans(KINDS), kind)
    logger = LoggingPolicy(script, parameters.script_share, guide[session][:, :, NUM_UNIFORMS:])
    log = run(hidden, logger, guide[session][:, :, :NUM_UNIFORMS], parameters)
    return ArSessions(session, focus, is_scan[session], hidden, log)
