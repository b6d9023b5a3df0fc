"""Are explanations true to the model? Inputs are taken away in the order an explanation names them; a better one hurts sooner.

The measure is the log chance of the first product among the whole catalogue, which is not what attributions are computed from (a lead
over a sample), and inputs are taken away together, so that attributions can fail it. Ancona et al. 2018, Samek et al. 2017 (AOPC).
"""

# Letters: R = requests, N = products, I = inputs that are there.

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from guidelens.data.examples import Examples
from guidelens.evaluation.guide import Draws
from guidelens.evaluation.report_why import ExplainedProduct, ExplanationReport, InputEffect, VisitEffect
from guidelens.inference.explain import INPUTS, Explainer
from guidelens.inference.reasons import MIN_EFFECT, reasons_of
from guidelens.inference.scorer import GuideScorer
from guidelens.inference.words import reason
from guidelens.schemas.ids import sub_seed

MAX_REQUESTS = 300
MIN_INPUTS = 2
NUM_SHOWN, NUM_VISITS = 8, 3
SLATE = 10
ORDERS = ("occlusion", "attention", "random", "least")


class _Deleted(NamedTuple):
    """Of one request: falls of the log chance by order, after one input and on average; reasons given and how many were true; effects."""

    first: dict[str, float]
    area: dict[str, float]
    true: list[bool]
    covered: float
    effects: dict[str, float]


def measure_explanations(scorer: GuideScorer, test: Examples, titles: Sequence[str], draws: Draws) -> ExplanationReport | None:
    """The deletion test over at most MAX_REQUESTS test requests with at least MIN_INPUTS inputs; None where there is none."""
    explainer = Explainer(scorer)
    rng = np.random.default_rng(sub_seed(draws.seed, "explanations"))
    found: list[_Deleted] = []
    shoppers: list[str] = []
    examples: list[ExplainedProduct] = []
    for row in rng.permutation(len(test))[: 2 * MAX_REQUESTS].tolist():
        request = test.take(np.array([row]))
        slate = np.argsort(-scorer.product_scores(request)[0], kind="stable")[:SLATE]
        explained = explainer.explain(request, slate)
        if len(explained.inputs) < MIN_INPUTS or len(found) == MAX_REQUESTS:
            continue
        found.append(_deleted(explainer, request, slate, rng))
        shoppers.append(str(test.shopper_key[row]))
        if len(examples) < NUM_SHOWN:
            examples.append(_example(explainer, request, slate, titles))
    if not found:
        return None
    clusters = np.array(shoppers, dtype=object)

    def intervals(values: list[dict[str, float]]) -> dict[str, NDArray[np.float64]]:
        return {order: np.array([each[order] for each in values]) for order in ORDERS if order in values[0]}

    first, area = intervals([one.first for one in found]), intervals([one.area for one in found])
    true = np.concatenate([np.array(one.true, dtype=np.float64) for one in found])
    true_of = np.repeat(clusters, [len(one.true) for one in found])
    return ExplanationReport(
        requests=len(found),
        first={order: draws.over(values, clusters) for order, values in first.items()},
        area={order: draws.over(values, clusters) for order, values in area.items()},
        gain_over={order: draws.gain(area["occlusion"], values, clusters) for order, values in area.items() if order != "occlusion"},
        true_reasons=draws.over(true, true_of) if len(true) else None,
        covered=float(np.mean([one.covered for one in found])),
        inputs=tuple(
            _effect(name, [one.effects[name] for one in found if name in one.effects]) for name in INPUTS if any(name in one.effects for one in found)
        ),
        examples=tuple(examples),
    )


def _deleted(explainer: Explainer, request: Examples, slate: NDArray[np.int64], rng: np.random.Generator) -> _Deleted:
    explained = explainer.explain(request, slate)
    effects_I = explained.effects()[:, 0]
    names = list(explained.inputs)
    strongest = [names[i] for i in np.argsort(-effects_I, kind="stable")]
    orders = {"occlusion": strongest, "random": [names[i] for i in rng.permutation(len(names))], "least": strongest[::-1]}
    attention = explainer.attention(request)
    if attention:
        orders["attention"] = sorted(names, key=lambda name: -attention[name])
    falls = {order: _falls(explainer, request, int(slate[0]), listed) for order, listed in orders.items()}
    alone = _falls_alone(explainer, request, int(slate[0]), names)
    true = [bool(alone[i] > 0) for i in range(len(names)) if effects_I[i] >= MIN_EFFECT]
    covered = np.mean([bool(each) for each in reasons_of(explained, slate)])
    return _Deleted(
        {order: float(each[0]) for order, each in falls.items()},
        {order: float(each.mean()) for order, each in falls.items()},
        true,
        float(covered),
        dict(zip(names, effects_I.tolist(), strict=True)),
    )


def _falls(explainer: Explainer, request: Examples, row: int, listed: Sequence[str]) -> NDArray[np.float64]:
    """(I,) by how much the product's log chance among the catalogue falls, the first, the first two, ... inputs taken away."""
    return _log_chance_falls(explainer, request, row, [tuple(listed[: k + 1]) for k in range(len(listed))])


def _falls_alone(explainer: Explainer, request: Examples, row: int, names: Sequence[str]) -> NDArray[np.float64]:
    return _log_chance_falls(explainer, request, row, [(name,) for name in names])


def _log_chance_falls(explainer: Explainer, request: Examples, row: int, removals: Sequence[tuple[str | int, ...]]) -> NDArray[np.float64]:
    everything = np.arange(len(explainer.scorer.catalogue))
    leads_VN = explainer.leads(request, [(), *removals], everything).astype(np.float64)
    top_V1 = leads_VN.max(axis=1, keepdims=True)
    log_p_V = leads_VN[:, row] - top_V1[:, 0] - np.log(np.exp(leads_VN - top_V1).sum(axis=1))
    falls: NDArray[np.float64] = log_p_V[0] - log_p_V[1:]
    return falls


def _example(explainer: Explainer, request: Examples, slate: NDArray[np.int64], titles: Sequence[str]) -> ExplainedProduct:
    explained = explainer.explain(request, slate)
    given = reasons_of(explained, slate)[0]
    effects = {name: round(float(value), 3) for name, value in zip(explained.inputs, explained.effects()[:, 0], strict=True)}
    said = tuple(reason(one.key, "en", titles[one.about] if one.about >= 0 else "") for one in given)
    visit_effects_H = explained.lead_C[0] - explained.without_HC[:, 0]
    strongest = np.argsort(-np.abs(visit_effects_H), kind="stable")[:NUM_VISITS]
    return ExplainedProduct(
        title=titles[int(slate[0])],
        reasons=said,
        effects=effects,
        visits=tuple(VisitEffect(title=titles[int(explained.visits_H[place])], effect=round(float(visit_effects_H[place]), 3)) for place in strongest),
        attention={name: round(weight, 3) for name, weight in explainer.attention(request).items()},
    )


def _effect(name: str, values: Sequence[float]) -> InputEffect:
    low, median, high = np.quantile(values, [0.1, 0.5, 0.9])
    return InputEffect(name=name, requests=len(values), low=float(low), median=float(median), high=float(high))
