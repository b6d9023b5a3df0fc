"""What a run is worth, as one document: report.json for programs, report.html for people.

Every section may be absent; `absent` then says why. Sections that a repeat with the same seed must reproduce (recognition,
ranking, interest, plan) hold no timings. Knows nothing of how figures were made.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from guidelens.errors import InputError
from guidelens.evaluation.beyond import BeyondAccuracy, ColdShare
from guidelens.evaluation.bootstrap import Interval
from guidelens.evaluation.calibration import Calibration
from guidelens.evaluation.clicks import Forecast
from guidelens.evaluation.offpolicy import OffPolicyEstimate, Overlap
from guidelens.evaluation.report_why import ComplementsReport, ExplanationReport, ExtraTaskReport, FirstPlaceReport, ProbabilityReport
from guidelens.schemas.base import Frozen

REPORT_SCHEMA_VERSION = 1


class StageTime(Frozen):
    name: str
    seconds: float


class SplitDates(Frozen):
    """The temporal split, RFC 3339: training rows end at `train_end`, test rows run from `test_start` to `test_end`."""

    train_end: str
    test_start: str
    test_end: str
    train_requests: int
    test_requests: int


class Confusion(Frozen):
    """`count` photos of `truth` were answered with `predicted`. Labels are titles or category levels."""

    truth: str
    predicted: str
    count: int


class MissExample(Frozen):
    """A photo that was missed, and how sure the wrong answer was. picture: a small JPEG as a data URI, null where none is kept."""

    path: str
    confidence: float
    in_catalogue: bool
    picture: str | None = None


class MissClass(Frozen):
    """`photos` of the `of_photos` photos of a product were answered with another one; where `answered` is null, rightly, but as none of the
    catalogue. shown, answered: titles. picture: of the product answered."""

    shown: str
    answered: str | None
    photos: int
    of_photos: int
    picture: str | None = None
    examples: tuple[MissExample, ...] = ()


class RecognitionReport(Frozen):
    """Shares of photos answered rightly first, or among five. `protocol` says which photos these are and what was fitted.

    `coarse_top1`: share whose whole category is right. `confusions`: the most frequent ones, at product level.
    `matrix`: counts by (true, predicted) coarse label, rows in the order of `labels`. `misses`: every pair of products that was confused.
    """

    top1: float
    top5: float
    photos: int
    protocol: str = ""
    top1_interval: Interval | None = None
    coarse_top1: float | None = None
    kept: float | None = None
    labels: tuple[str, ...] = ()
    matrix: tuple[tuple[int, ...], ...] = ()
    confusions: tuple[Confusion, ...] = ()
    misses: tuple[MissClass, ...] = ()


class RankingScores(Frozen):
    """Means over the test requests with a click, the whole catalogue ranked for each."""

    ndcg_at_10: float
    recall_at_10: float
    ndcg: Interval
    recall: Interval


class SliceScores(Frozen):
    """Of one scorer on a part of the test requests. hit_rate: share with a clicked product among the first ten."""

    ndcg: Interval
    hit_rate: Interval


class Slice(Frozen):
    """NDCG@10 and hit rate of a part of the test requests, of the model and of each baseline; null with fewer than a readable number of them."""

    name: str
    requests: int
    ndcg: Interval | None
    hit_rate: Interval | None = None
    baselines: dict[str, SliceScores] = {}


class RankingReport(Frozen):
    """`gain_over`: paired difference of NDCG@10 to each baseline. AUC, calibration and forecast: of clicks on the slates shown.

    `gauc`: AUC within each slate. `beyond`: of the top-10 lists of the model ("model") and each baseline.
    """

    model: RankingScores
    baselines: dict[str, RankingScores]
    gain_over: dict[str, Interval]
    requests: int
    products: int
    auc: float | None
    gauc: float | None
    purchase_auc: float | None = None
    click_calibration: Calibration
    slices: tuple[Slice, ...] = ()
    forecast: Forecast | None = None
    beyond: dict[str, BeyondAccuracy] = {}
    cold: ColdShare | None = None


class InterestReport(Frozen):
    """T2 on the (request, product) pairs whose interest was observed. `constant_mse`: the training mean everywhere."""

    mse: float
    ece: float
    constant_mse: float
    single_task_mse: float | None
    spearman: float | None
    pairs: int
    mse_interval: Interval
    calibration: Calibration


class PlanScores(Frozen):
    """A plan policy beside logged plans (evaluation/plans.py: LogLikeness). free: made from the session's start alone; forced: the next step
    after each logged history."""

    illegal: float
    free_step_accuracy: float
    free_exact_match: float
    free_match: float
    forced_step_accuracy: float
    forced_exact_match: float
    forced_match: float
    step_distance: float
    length: float
    logged_length: float


class PlanReport(Frozen):
    """T3. `illegal`: share of decoded plans that break the grammar. Values are minor units a session, in the simulated shop,
    closed loop; absent without a world, where only `off_policy` speaks. `reference_value` is a lower bound of what any guide
    could reach that sees what a real one sees; `oracle_value` knows the shopper's mind. `baselines`: policies fitted to the log, whose values
    lie in `intervals` under the same names; `scores`: the model beside them.
    """

    illegal: float
    decoded: int
    plans: int
    match: float
    step_accuracy: float
    exact_match: float
    value_source: str
    value: float | None = None
    logging_value: float | None = None
    script_value: float | None = None
    fixed_value: float | None = None
    single_task_value: float | None = None
    open_loop_value: float | None = None
    reference_value: float | None = None
    oracle_value: float | None = None
    gap_closed: float | None = None
    intervals: dict[str, Interval] = {}
    gain_over: dict[str, Interval] = {}
    scores: PlanScores | None = None
    baselines: dict[str, PlanScores] = {}
    off_policy: tuple[OffPolicyEstimate, ...] = ()
    off_policy_of: str = ""
    overlap: Overlap | None = None


class ServingReport(Frozen):
    """What a client on the same machine saw, one request at a time; `stages_p50_ms` as the replies state them."""

    requests: int
    failed: int
    p50_ms: float
    p99_ms: float
    stages_p50_ms: dict[str, float] = {}
    recognized_right: int | None = None


class GateCheck(Frozen):
    """One check of the promotion gate: passed, failed, or (null) skipped; `why` says it with figures."""

    name: str
    passed: bool | None
    why: str


class ReleaseReport(Frozen):
    version: str
    alias: str | None
    gate: tuple[GateCheck, ...] = ()


class Curve(Frozen):
    """One metric over the epochs of training."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


class StepTime(Frozen):
    """Where the joint model's training time went, all epochs together. shares: by part of a step (training/telemetry.py), and `other`, what is
    left: dealing out the rows. Validation and what is measured between epochs are in none of both."""

    epochs: int
    seconds: float
    shares: dict[str, float]


class Report(Frozen):
    """`missing`: inputs the lake lacked. `absent`: section name to the reason why it is not there."""

    schema_version: int = REPORT_SCHEMA_VERSION
    source: str
    seed: int
    preset: str = ""
    run: str = ""
    snapshot_sha256: str = ""
    missing: tuple[str, ...] = ()
    absent: dict[str, str] = {}
    split: SplitDates | None = None
    recognition: RecognitionReport | None = None
    ranking: RankingReport | None = None
    interest: InterestReport | None = None
    plan: PlanReport | None = None
    probabilities: ProbabilityReport | None = None
    first_place: FirstPlaceReport | None = None
    explanations: ExplanationReport | None = None
    complements: ComplementsReport | None = None
    extra_tasks: dict[str, ExtraTaskReport] = {}
    losses: tuple[Curve, ...] = ()
    step_time: StepTime | None = None
    serving: ServingReport | None = None
    release: ReleaseReport | None = None
    stages: tuple[StageTime, ...] = ()

    def with_sections(self, **sections: object) -> Self:
        """A copy with sections set, checked again; a section that is set is no longer absent."""
        absent = {name: why for name, why in self.absent.items() if sections.get(name) is None}
        return type(self).model_validate({**dict(self), **sections, "absent": absent})

    def metrics(self) -> dict[str, float]:
        """The headline figures as flat metrics (`test/ndcg_at_10`, …), for the run; absent ones left out."""
        found: dict[str, float | None] = {}
        if self.ranking:
            found |= {"test/ndcg_at_10": self.ranking.model.ndcg_at_10, "test/recall_at_10": self.ranking.model.recall_at_10}
            found |= {"test/click_auc": self.ranking.auc, "test/click_gauc": self.ranking.gauc, "test/click_ece": self.ranking.click_calibration.ece}
            found |= {f"test/ndcg_at_10_{name}": scores.ndcg_at_10 for name, scores in self.ranking.baselines.items()}
            found |= _forecast_metrics(self.ranking)
            found |= {slice_metric(part.name): part.ndcg.value for part in self.ranking.slices if part.ndcg}
        if self.interest:
            found |= {"test/interest_mse": self.interest.mse, "test/interest_ece": self.interest.ece, "test/interest_constant_mse": self.interest.constant_mse}
            found |= {"test/interest_spearman": self.interest.spearman, "test/interest_single_task_mse": self.interest.single_task_mse}
        if self.plan:
            found |= {f"test/plan_{name}": getattr(self.plan, name) for name in _PLAN_METRICS}
            found |= {f"test/plan_off_policy_{one.estimator}": one.value for one in self.plan.off_policy}
        found |= self._beside_ranking()
        if self.recognition:
            found |= {f"test/recognition_{name}": getattr(self.recognition, name) for name in ("top1", "top5", "coarse_top1")}
        return {name: value for name, value in found.items() if value is not None}

    def _beside_ranking(self) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        for name, task in self.extra_tasks.items():
            of = f"test/task_{name}"
            found |= {f"{of}_loss": task.loss.value, f"{of}_constant_loss": task.constant_loss, f"{of}_ece": task.calibration.ece, f"{of}_auc": task.auc}
        if chances := self.probabilities:
            found |= {f"test/{name}_ece_{when}": getattr(chances, f"{name}_ece_{when}") for name in ("click", "purchase") for when in ("before", "after")}
        if first := self.first_place:
            found |= {f"test/first_place_off_policy_{one.estimator}": one.value for one in first.off_policy}
        if why := self.explanations:
            found |= {f"test/explanation_area_{order}": area.value for order, area in why.area.items()} | {
                "test/true_reasons": why.true_reasons.value if why.true_reasons else None
            }
        if goes := self.complements:
            found |= {"test/partners_ndcg_at_10": goes.model.held_out.value, "test/partners_truth_ndcg_at_10": goes.model.truth}
        return found


def slice_metric(name: str) -> str:
    """The metric's name of a slice's NDCG@10. MLflow takes letters, digits and `_ - . : /` only."""
    return f"test/ndcg_at_10_{re.sub(r'[^a-z0-9_]+', '_', name.lower())}"


def _forecast_metrics(ranking: RankingReport) -> dict[str, float | None]:
    """The figures of shown slates and of the model's lists."""
    found: dict[str, float | None] = {}
    if one := ranking.forecast:
        found |= {"test/click_log_loss": one.log_loss.value, "test/purchase_log_loss": one.purchase_log_loss.value}
        found |= {"test/ctr": one.ctr.value, "test/ctr_predicted": one.ctr_predicted, "test/cvr": one.cvr, "test/cvr_predicted": one.cvr_predicted}
        found["test/click_gauc_by_shopper"] = one.gauc_by_shopper.value if one.gauc_by_shopper else None
        if one.decision:
            found |= {f"test/click_{name}": getattr(one.decision, name).value for name in ("accuracy", "recall", "f1")}
            found["test/click_precision"] = one.decision.precision.value if one.decision.precision else None
    if lists := ranking.beyond.get("model"):
        found |= {"test/coverage_at_10": lists.coverage, "test/novelty_at_10": lists.novelty, "test/diversity_at_10": lists.diversity}
    return found


_PLAN_METRICS = (
    *("illegal", "match", "step_accuracy", "exact_match", "value", "logging_value", "script_value", "fixed_value"),
    *("single_task_value", "open_loop_value", "reference_value", "oracle_value", "gap_closed"),
)


def write_report(report: Report, out: Path) -> Path:
    """Writes report.json and report.html (self-contained) into `out`, which is made; returns the path of report.json."""
    from guidelens.evaluation.report_html import render

    out.mkdir(parents=True, exist_ok=True)
    path = out / "report.json"
    there = {name: section for name, section in report.model_dump(mode="json").items() if section is not None}
    path.write_text(json.dumps(there, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    path.with_suffix(".html").write_text(render(report))
    return path


def read_report(path: Path) -> Report:
    """Reads back what `write_report` wrote.

    Raises:
        InputError: the file is missing or is no report of this schema.
    """
    try:
        return Report.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"report {path} cannot be read: {error}; `guidelens evaluate --run RUN` writes one") from error


def confusion_matrix(truth: Sequence[str], predicted: Sequence[str]) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """Labels in order, and counts by (true, predicted)."""
    labels = tuple(sorted({*truth, *predicted}))
    place = {label: i for i, label in enumerate(labels)}
    counts = [[0] * len(labels) for _ in labels]
    for t, p in zip(truth, predicted, strict=True):
        counts[place[t]][place[p]] += 1
    return labels, tuple(tuple(row) for row in counts)


def most_confused(truth: Sequence[str], predicted: Sequence[str], top: int = 12) -> tuple[Confusion, ...]:
    """The most frequent wrong answers, ties by name."""
    counts: dict[tuple[str, str], int] = {}
    for pair in zip(truth, predicted, strict=True):
        if pair[0] != pair[1]:
            counts[pair] = counts.get(pair, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Confusion(truth=t, predicted=p, count=count) for (t, p), count in ordered[:top])


def step_time(epochs: Sequence[float], parts: Mapping[str, Sequence[float]]) -> StepTime | None:
    """From seconds of each epoch, in all and by part of its steps; None where nothing was timed."""
    seconds = float(sum(epochs))
    if seconds <= 0:
        return None
    shares = {name: float(sum(values)) / seconds for name, values in parts.items()}
    return StepTime(epochs=len(epochs), seconds=seconds, shares={**shares, "other": max(0.0, 1 - sum(shares.values()))})


def curves(history: Mapping[str, Sequence[tuple[int, float]]]) -> tuple[Curve, ...]:
    """Metric histories as curves, by name; empty ones left out."""
    return tuple(
        Curve(name=name, steps=tuple(step for step, _ in points), values=tuple(value for _, value in points))
        for name, points in sorted(history.items())
        if points
    )
