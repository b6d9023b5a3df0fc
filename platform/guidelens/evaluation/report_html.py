"""report.html: headline figures first, then a section a task with its plot, its interval and what it was measured on."""

from collections.abc import Iterator, Sequence
from typing import Any

from markupsafe import Markup

from guidelens.evaluation import plots
from guidelens.evaluation.bootstrap import FEW_CLUSTERS, Interval
from guidelens.evaluation.offpolicy import LOGGING, RECOMMENDED, OffPolicyEstimate
from guidelens.evaluation.pages import Headline, filled, number, share
from guidelens.evaluation.plots import HIGH, LOW, OTHER, OURS
from guidelens.evaluation.report import PlanReport, RankingReport, Report
from guidelens.evaluation.slices import COLD

_PLOTS = (
    "losses",
    "ndcg",
    "recall",
    "clicks",
    "purchases",
    "gains",
    "slices",
    "confusion",
    "confused",
    "interest",
    "values",
    "off_policy",
    "first_place",
    "latency",
    "faithful",
    "effects",
    "attention",
)
_NAMES = {
    "model": "this model",
    "popularity": "popularity",
    "item_knn": "item-kNN (cosine)",
    "item_knn_pearson": "item-kNN (Pearson)",
    "user_knn": "user-kNN",
    "als": "ALS",
    "ncf": "NCF",
    "ease": "EASE",
    "transitions": "item transitions",
    "hybrid": "hybrid of behaviour",
    "single_task": "single-task model",
    "content": "content",
}
OFF_POLICY_NAMES = {
    "logging": "the log itself",
    "ips": "IPS",
    "per_decision_ips": "per-decision IPS",
    "clipped_ips": "clipped IPS",
    "snips": "SNIPS",
    "dm": "direct method",
    "dr": "doubly robust",
    "sndr": "self-normalized DR",
    "switch_dr": "Switch-DR",
    "dros": "DR, shrunk weights",
}
_FIRST_PEERS = ("single_task", "hybrid", "transitions", "ease", "item_knn", "item_knn_pearson", "user_knn", "als", "ncf", "content", "popularity")
_PLAN_NAMES = {
    "logging": "logging guide",
    "script": "its script, no noise",
    "fixed": "best fixed plan",
    "ngram": "n-gram of the log",
    "nearest": "nearest logged step",
    "gru": "GRU that imitates",
    "single_task": "single-task plan model",
    "open_loop": "this model, open loop",
    "model": "this model",
    "reference": "reference (lower bound)",
    "oracle": "oracle",
}
"""From what is easily had to what is out of reach."""
_PLAN_COLOURS = {"open_loop": LOW, "model": OURS, "reference": HIGH, "oracle": HIGH}
_ORDERS = {"occlusion": "what it added (ours)", "attention": "attention", "random": "chance", "least": "what it added, weakest first"}
_PARTS_OF_STEPS = {"workers": "exchange between workers", "other": "dealing out rows, and the rest"}
_PARTNERS_BY = {"model": "what goes with it (ours)", "popular": "popularity", "nearest": "likeness of image and text"}


def render(report: Report) -> str:
    """A self-contained page: no script, no font, no picture from elsewhere."""
    named: dict[str, Any] = {
        "recommended": RECOMMENDED,
        "few": FEW_CLUSTERS,
        "names": _NAMES,
        "estimators": OFF_POLICY_NAMES,
        "orders": _ORDERS,
        "partners_by": _PARTNERS_BY,
        "parts_of_steps": _PARTS_OF_STEPS,
        "plan_names": _PLAN_NAMES,
    }
    cold = [part for part in report.ranking.slices if part.name in COLD and part.ndcg] if report.ranking else []
    return filled(
        "report.html.j2", report=report, headlines=list(_headlines(report)), plots=_plots(report), values=_value_rows(report.plan), cold=cold, **named
    )


def _headlines(report: Report) -> Iterator[Headline]:
    if found := report.recognition:
        yield Headline(label="recognized first", figure=share(found.top1), beside=f"top-5 {share(found.top5)}, {found.photos:,} unseen photos")
    if ranking := report.ranking:
        best = max(ranking.baselines.items(), key=lambda item: item[1].ndcg_at_10, default=None)
        beside = "" if best is None else f"best peer {number(best[1].ndcg_at_10)} ({_NAMES.get(best[0], best[0])})"
        yield Headline(label="NDCG@10", figure=number(ranking.model.ndcg_at_10), beside=beside)
    if interest := report.interest:
        ratio = interest.mse / interest.constant_mse if interest.constant_mse else float("nan")
        yield Headline(label="interest, MSE", figure=number(interest.mse, 4), beside=f"{ratio:.2f} × a constant's; ECE {number(interest.ece)}")
    if plan := report.plan:
        yield _plan_headline(plan)
    if serving := report.serving:
        yield Headline(
            label="answered in", figure=f"{serving.p50_ms:.0f} ms", beside=f"p99 {serving.p99_ms:.0f} ms, {serving.failed} of {serving.requests} failed"
        )
    if release := report.release:
        yield Headline(label="release", figure=release.version, beside=release.alias or "no alias: the gate did not pass")


def _plan_headline(plan: PlanReport) -> Headline:
    if plan.gap_closed is not None:
        return Headline(label="plan: gap closed", figure=share(plan.gap_closed), beside="of what lies between the logging guide and the reference")
    found = next((one for one in plan.off_policy if one.estimator == RECOMMENDED), None)
    if found is None:
        return Headline(label="plan: match", figure=number(plan.match), beside=f"{plan.plans:,} logged plans")
    return Headline(label="plan value, estimated", figure=number(found.value, 1), beside=f"[{found.low:.1f}, {found.high:.1f}] minor units a session")


def _plots(report: Report) -> dict[str, Markup]:
    """The SVG of each plot by name, empty where its data is not there."""
    found = dict.fromkeys(_PLOTS, "")
    if report.losses:
        found["losses"] = plots.losses(report.losses)
    if report.ranking:
        found |= _ranking_plots(report.ranking)
    if seen := report.recognition:
        if seen.labels:
            found["confusion"] = plots.matrix(seen.labels, seen.matrix)
        if seen.confusions:
            found["confused"] = plots.confused_pairs(seen.confusions)
    if report.interest:
        found["interest"] = plots.reliability("interest calibration", report.interest.calibration, "interest")
    if report.plan and report.plan.off_policy:
        found["off_policy"] = plots.forest("off-policy estimates", _off_policy_rows(report.plan.off_policy), "minor units a session", truth=None)
    if first := report.first_place:
        found["first_place"] = plots.forest("first place, estimated", _off_policy_rows(first.off_policy), "clicks a request", truth=None)
    if values := _value_rows(report.plan):
        found["values"] = plots.bars("plan value", values, "minor units a session, closed loop")
    if why := report.explanations:
        rows = [(_ORDERS[order], area, OURS if order == "occlusion" else OTHER) for order, area in why.area.items()]
        found["faithful"] = plots.bars("faithfulness", rows, "fall of the log chance, nats")
        if why.examples:
            names = [one.name for one in why.inputs]
            found["effects"] = plots.by_input("effects of inputs", [(one.title, one.effects) for one in why.examples], names, is_signed=True)
            if any(one.attention for one in why.examples):
                found["attention"] = plots.by_input("attention of inputs", [(one.title, one.attention) for one in why.examples], names, is_signed=False)
    if report.serving and report.serving.stages_p50_ms:
        found["latency"] = plots.latency(report.serving.stages_p50_ms)
    return {name: Markup(svg) for name, svg in found.items()}


def _ranking_plots(ranking: RankingReport) -> dict[str, str]:
    order = [name for name in (*_FIRST_PEERS, *ranking.baselines) if name in ranking.baselines]
    peers = [(_NAMES.get(name, name.replace("_", " ")), ranking.baselines[name]) for name in dict.fromkeys(order)]
    rows = [("this model", ranking.model.ndcg, OURS), *((label, scores.ndcg, OTHER) for label, scores in peers)]
    recall = [("this model", ranking.model.recall, OURS), *((label, scores.recall, OTHER) for label, scores in peers)]
    parts = [(f"{part.name} ({part.requests:,})", part.ndcg.value, part.ndcg.low, part.ndcg.high, OURS) for part in ranking.slices if part.ndcg]
    found = {
        "ndcg": plots.bars("NDCG at 10", rows, "NDCG@10"),
        "recall": plots.bars("recall at 10", recall, "recall@10"),
        "clicks": plots.reliability("click calibration", ranking.click_calibration, "click probability"),
        "slices": plots.forest("NDCG at 10 by slice", parts, "NDCG@10; the line is all requests", truth=ranking.model.ndcg_at_10) if parts else "",
    }
    if forecast := ranking.forecast:
        found["purchases"] = plots.reliability("purchase calibration", forecast.purchase_calibration, "purchase probability")
        found["gains"] = plots.gains([(gain.shown, gain.captured) for gain in forecast.gains]) if forecast.gains else ""
    return found


def _off_policy_rows(found: Sequence[OffPolicyEstimate]) -> list[tuple[str, float, float, float, str]]:
    colours = {RECOMMENDED: OURS, LOGGING: LOW}
    return [(OFF_POLICY_NAMES.get(one.estimator, one.estimator), one.value, one.low, one.high, colours.get(one.estimator, OTHER)) for one in found]


def _value_rows(plan: PlanReport | None) -> list[tuple[str, Interval, str]]:
    """Label, value and colour of each policy that was valued in the world."""
    if plan is None:
        return []
    return [(label, plan.intervals[name], _PLAN_COLOURS.get(name, OTHER)) for name, label in _PLAN_NAMES.items() if name in plan.intervals]
