"""The simulated shop's constants, in one frozen config. A change of any of them makes another version, never an edit of `world_v1`."""

from typing import Annotated

from pydantic import Field

from guidelens.schemas.base import Frozen

Share = Annotated[float, Field(ge=0, le=1)]

STYLE_DIM = 8


class ShopperParameters(Frozen):
    """Latents are standard normal unless said otherwise; `profile_correlation` is that of a visible field with its latent."""

    profile_correlation: Share = 0.4
    shared_taste: float = 0.45
    taste_drift: float = 0.5
    """Radians by which a taste turns towards another one over the log."""
    household_share: Share = 0.04
    new_in_last_week_share: Share = 0.2
    activity_tail: float = 1.6
    """Pareto exponent of sessions a shopper."""
    no_ar_share: Share = 0.15
    ar_only_share: Share = 0.25
    anonymous_share: Share = 0.06
    """Share of sessions without a login."""


class SlateParameters(Frozen):
    """Weights of the logging policy's softmax, and of arrivals."""

    slate_size: Annotated[int, Field(ge=1)] = 10
    scan_share: Share = 0.5
    text_share: Share = 0.27
    popularity_weight: float = 0.9
    recency_weight: float = 0.4
    content_weight: float = 1.9
    campaign_boost: float = 0.8
    examination_decay: float = 0.13
    """Examination at position k is exp(-decay (k - 1))."""


class AppealParameters(Frozen):
    """appeal = bias + weights x terms; a click is examination x logistic(appeal)."""

    bias: float = -4.2
    taste: float = 0.8
    family: float = 0.5
    quality: float = 0.3
    price: float = 0.35
    popularity: float = 0.3
    context: float = 0.85
    noise: float = 1.1
    cart_bias: float = -3.2
    purchase_given_cart: Share = 0.025


class InterestParameters(Frozen):
    """Log-normal medians (ms) at zero latent interest, slopes and spreads of browse, stay and AR view time; depth is Poisson-like."""

    browse_ms: float = 900.0
    stay_ms: float = 9000.0
    slope: float = 0.55
    spread: float = 0.55
    censored_share: Share = 0.08
    """Share of page stays cut short by leaving."""


class GuideParameters(Frozen):
    """The AR decision process; guide_process.py says how they are used. Money is in shares of the product's margin."""

    ar_scan: float = 0.64
    ar_click: float = 0.4
    """Chance that a scan, or a click, turns into an AR session, at mean AR affinity."""
    script_share: Share = 0.6
    buy_bias: float = -8.3
    buy_readiness: float = 1.15
    buy_cart: float = 1.9
    buy_checkout: float = 2.6
    buy_quiet_expert: float = 1.4
    cart_bias: float = -2.9
    cart_readiness: float = 0.8
    leave: tuple[float, float, float, float, float] = (0.5, 0.26, 0.12, 0.05, 0.02)
    """Hazard of leaving after a step, by patience."""
    annoyance: tuple[float, float, float, float, float] = (0.05, 0.025, 0.01, 0.0, 0.0)
    """Cost of a leaving shopper, by patience."""
    coupon_cost: tuple[float, float, float] = (0.0, 0.28, 0.5)
    human_cost: float = 0.1
    return_cost: float = 0.15


class Trouble(Frozen):
    """What goes wrong in a log, each with its ground truth (trouble.py). All off but a little duplication and lateness.

    Shares are of events unless they say otherwise; days and hours count from 0, the first of the log.
    """

    duplicated_share: Share = 0.004
    late_share: Share = 0.01
    bot_shopper_share: Share = 0.0
    lost_ar_share: Share = 0.0
    """Share of shoppers whose client loses ar_view and ar_gesture events."""
    price_bug_day: int | None = None
    """A day on which purchases are booked at a hundredth of their value."""
    outage_hour: int | None = None
    """An hour of which no event arrives."""
    drift_day: int | None = None
    """A day from which tastes point elsewhere (by DRIFT_RADIANS) and other products are popular."""
    skewed_shopper_share: Share = 0.0
    """Share of shoppers whose client's clock is up to half a day behind, or ahead by no more than ingest tolerates; `created_ts` is the server's and right."""
    future_share: Share = 0.0
    """Events dated a hundred years ahead, `created_ts` too."""
    negative_dwell_share: Share = 0.0
    """Of events, those with a browse or stay time among them get it negative."""
    unknown_product_share: Share = 0.0
    """Of events, those with a product among them name one that the catalogue never held."""
    malformed_share: Share = 0.0
    """Lines that break one rule of the contract; JSONL only."""


class People(Frozen):
    """What people do beyond acting under one name in one place. All off in world_v1."""

    device_ids: bool = False
    """An anonymous session has its device's id, the same for all anonymous sessions of one shopper in one channel, and no id tells a shopper's number."""
    login_share: Share = 0.0
    """Share of anonymous sessions in which the shopper logs in: from then on events carry both ids."""
    delayed_purchase_share: Share = 0.0
    """Share of purchases made hours or days later, in another channel, outside the session that led to them."""
    declining_share: Share = 0.0
    """Share of shoppers who decline consent."""
    withdrawing_share: Share = 0.0
    """Share of shoppers who withdraw it during the log."""
    reviews_a_product: Annotated[float, Field(ge=0)] = 0.0
    """Mean number of reviews of a product of mean popularity."""


class WorldParameters(Frozen):
    version: str
    shoppers: ShopperParameters = ShopperParameters()
    slates: SlateParameters = SlateParameters()
    appeal: AppealParameters = AppealParameters()
    interest: InterestParameters = InterestParameters()
    guide: GuideParameters = GuideParameters()
    trouble: Trouble = Trouble()
    people: People = People()
    start_day: str = "2025-09-01"
    """First day (UTC, a Monday) of the log."""
    wrong_attribute_share: Share = 0.03
    omitted_text_share: Share = 0.06
    labelled_frame_share: Share = 0.6
    num_holdout: Annotated[int, Field(ge=1)] = 240


WORLD_V1 = WorldParameters(version="world_v1")
WORLD_V2 = WorldParameters(
    version="world_v2",
    people=People(device_ids=True, login_share=0.35, delayed_purchase_share=0.3, declining_share=0.05, withdrawing_share=0.03, reviews_a_product=12.0),
)
"""world_v1's people with several devices, second thoughts and opinions."""
WORLDS = {world.version: world for world in (WORLD_V1, WORLD_V2)}
