"""Sections of the report about what lies beside the ranking: why a product came, what goes with what, what a chance means, a task of one's own."""

from typing import Literal

from guidelens.config import VisitValue
from guidelens.evaluation.bootstrap import Interval
from guidelens.evaluation.calibration import Calibration
from guidelens.evaluation.offpolicy import OffPolicyEstimate, Overlap
from guidelens.schemas.base import Frozen


class InputEffect(Frozen):
    """What one input, where it is there, adds to the first product's lead: median and outer tenths, nats."""

    name: str
    requests: int
    low: float
    median: float
    high: float


class VisitEffect(Frozen):
    """What a past visit of a product added, nats."""

    title: str
    effect: float


class ExplainedProduct(Frozen):
    """One test request's first product, what is said of it, and what each input added, nats; `visits` by themselves, the strongest first.

    attention: the fusion's weight of each input, which is no effect; empty where it has no weights.
    """

    title: str
    reasons: tuple[str, ...]
    effects: dict[str, float]
    visits: tuple[VisitEffect, ...] = ()
    attention: dict[str, float] = {}


class ExplanationReport(Frozen):
    """The deletion test on the first product of test requests: by how much its log chance among the whole catalogue falls, in nats.

    first: after the first input of an order is taken away. area: the mean over taking away one, two, ... of them in that order.
    Orders: `occlusion` (ours, strongest first), `attention`, `random`, `least` (ours, weakest first). gain_over: paired difference of
    our area to each. true_reasons: share of given reasons whose input, taken away, lowers that chance, None where none was given. covered: share of the slates'
    products with a reason.
    """

    requests: int
    first: dict[str, Interval]
    area: dict[str, Interval]
    gain_over: dict[str, Interval]
    true_reasons: Interval | None
    covered: float
    inputs: tuple[InputEffect, ...]
    examples: tuple[ExplainedProduct, ...] = ()


class PartnerScores(Frozen):
    """NDCG@10 over all products of other categories. held_out: of what test shoppers engaged with beside a product. truth: of the simulated
    shop's true outfits, by how well they fit; precision: share of the first ten that are one. None without a simulated shop.
    """

    held_out: Interval
    truth: float | None = None
    precision: float | None = None


class ComplementsReport(Frozen):
    """What goes with what, beside popular products of other categories, and the nearest products by content."""

    model: PartnerScores
    baselines: dict[str, PartnerScores]
    gain_over: dict[str, Interval]
    pairs: int
    products_with_partners: int
    products: int


class ProbabilityReport(Frozen):
    """Calibration of the two chances on the test impressions, before and after the map that validation chose."""

    click_method: str
    purchase_method: str
    click_ece_before: float
    click_ece_after: float
    purchase_ece_before: float
    purchase_ece_after: float
    impressions: int


class FirstPlaceReport(Frozen):
    """Clicks a request at the slate's first place, were its product drawn as this model serves it at `temperature`: estimated from the log's
    propensities, `logging` being what the log itself got there."""

    temperature: float
    requests: int
    off_policy: tuple[OffPolicyEstimate, ...]
    overlap: Overlap


class ExtraTaskReport(Frozen):
    """Over products shown. loss: cross-entropy in nats of `binary`, squared error of `mse`; constant_loss: of the training part's mean
    everywhere, and gain how much less ours is, paired. auc: of a `binary` one, null where all labels are alike."""

    label: VisitValue
    kind: Literal["binary", "mse"]
    shown: int
    mean: float
    loss: Interval
    constant_loss: float
    gain: Interval
    auc: float | None
    calibration: Calibration
