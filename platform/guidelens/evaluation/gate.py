"""The promotion gate: is a release no worse than the champion, within the margins of `GateConfig`? Each check says why.

A check that cannot be made is skipped with its reason (`passed` is null), never silently passed. Knows nothing of registries.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from guidelens.config import TASKS, GateConfig
from guidelens.data.examples import Examples
from guidelens.evaluation.guide import Draws
from guidelens.evaluation.offpolicy import LOGGING, RECOMMENDED, OffPolicyEstimate
from guidelens.evaluation.report import GateCheck, Report, slice_metric
from guidelens.evaluation.slices import MIN_REQUESTS, slices

GUARDED_SLICE = "new shoppers"
MIN_EFFECTIVE_SESSIONS = 10.0
MIN_BOTH_HELD_BACK = 30
"""Photos that say more of two recognizers than what each measured on its own."""


@dataclass(frozen=True)
class Paired:
    """NDCG@10 of the release and of the champion on the same clicked test requests; the champion's off-policy estimate on the same log, and its
    squared error of interest on the same pairs."""

    clicked: Examples
    ours_R: NDArray[np.floating]
    theirs_R: NDArray[np.floating]
    their_plan: OffPolicyEstimate | None
    their_interest_mse: float | None = None


@dataclass(frozen=True)
class Champion:
    """What is known of the champion. `paired` is None where it cannot score the release's test requests; `why` says so. missing: what it
    was made without (a task, photos, events). recognized_H2: right or wrong, the release's and its own, on photos that both held back. searched_R2:
    reciprocal ranks of the same searches, the release's and its own; empty where they cannot be asked the same. recorded_search: what each
    one's training measured."""

    version: str
    metrics: Mapping[str, float]
    paired: Paired | None
    why: str = ""
    missing: tuple[str, ...] = ()
    recognized_H2: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    searched_R2: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    recorded_search: tuple[float, float] | None = None


def judge(report: Report, champion: Champion | None, config: GateConfig, draws: Draws) -> Iterator[GateCheck]:
    """The checks on quality, in order; those on files and parity are the caller's."""
    yield _completeness(report, champion)
    yield _recognition(report, champion, config)
    yield _ranking(report, champion, config, draws)
    yield _slice(report, champion, config)
    yield _interest(report, champion, config)
    yield _calibration(report, config)
    yield _legality(report)
    yield _off_policy(report, champion)
    yield _search(champion, config)


def passed(checks: tuple[GateCheck, ...]) -> bool:
    """True where no check failed; skipped ones do not count."""
    return all(check.passed is not False for check in checks)


def skipped(name: str, why: str) -> GateCheck:
    return GateCheck(name=name, passed=None, why=why)


def _completeness(report: Report, champion: Champion | None) -> GateCheck:
    """Fails where the champion does what the release never learned: the checks on that are skipped, and would let it go unseen (ADR 173)."""
    name = "completeness"
    if champion is None:
        return skipped(name, "no champion to compare with")
    lost = sorted(_lacked(report.missing) - _lacked(champion.missing))
    why = f"lacks {', '.join(lost)}, which champion {champion.version} has" if lost else f"lacks nothing that champion {champion.version} has"
    return GateCheck(name=name, passed=not lost, why=why)


def _lacked(missing: Sequence[str]) -> set[str]:
    """What a release cannot do: without events there is no guide model, and so none of its tasks."""
    return {*missing, *(TASKS if "events" in missing else ())} - {"events"}


def _recognition(report: Report, champion: Champion | None, config: GateConfig) -> GateCheck:
    name = "recognition"
    if report.recognition is None:
        return skipped(name, report.absent.get("recognition", "not measured"))
    if champion is not None and len(champion.recognized_H2) >= MIN_BOTH_HELD_BACK:
        right, was_right = champion.recognized_H2.mean(axis=0).tolist()
        limit = was_right - config.max_recognition_drop
        why = f"top-1 {right:.3f}, champion {champion.version} {was_right:.3f} on the same {len(champion.recognized_H2)} photos, which both held back"
        return GateCheck(name=name, passed=right >= limit, why=f"{why}; at least {limit:.3f}")
    ours, theirs = report.recognition.top1, champion.metrics.get("test/recognition_top1") if champion else None
    if champion is None or theirs is None:
        return skipped(name, f"top-1 {ours:.3f}; no champion measured it")
    limit = theirs - config.max_recognition_drop
    return GateCheck(name=name, passed=ours >= limit, why=f"top-1 {ours:.3f}, champion {champion.version} {theirs:.3f}, at least {limit:.3f}")


def _ranking(report: Report, champion: Champion | None, config: GateConfig, draws: Draws) -> GateCheck:
    name = "ranking"
    if report.ranking is None:
        return skipped(name, report.absent.get("ranking", "not measured"))
    if champion is None:
        return _beside_popularity(report, config)
    if champion.paired is not None:
        pair = champion.paired
        gain = draws.gain(pair.ours_R, pair.theirs_R, pair.clicked.shopper_key)
        why = f"NDCG@10 {gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}] over champion {champion.version} on the same {gain.n} requests"
        return GateCheck(name=name, passed=gain.value >= -config.max_ndcg_drop, why=f"{why}; may drop by {config.max_ndcg_drop}")
    ours, theirs = report.ranking.model.ndcg_at_10, champion.metrics.get("test/ndcg_at_10")
    if theirs is None:
        return _beside_popularity(report, config)
    why = f"NDCG@10 {ours:.4f}, champion {champion.version} recorded {theirs:.4f} on its own test data ({champion.why}); may drop by {config.max_ndcg_drop}"
    return GateCheck(name=name, passed=ours >= theirs - config.max_ndcg_drop, why=why)


def _beside_popularity(report: Report, config: GateConfig) -> GateCheck:
    """Without a champion: not surely worse than popularity, by the upper end of the paired interval."""
    assert report.ranking is not None
    gain = report.ranking.gain_over["popularity"]
    why = f"no champion; NDCG@10 {gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}] over popularity; its upper end may not be below {-config.max_ndcg_drop}"
    return GateCheck(name="ranking", passed=gain.high >= -config.max_ndcg_drop, why=why)


def _slice(report: Report, champion: Champion | None, config: GateConfig) -> GateCheck:
    name = f"slice: {GUARDED_SLICE}"
    if report.ranking is None:
        return skipped(name, report.absent.get("ranking", "not measured"))
    if champion is None:
        return skipped(name, "no champion to compare with")
    if champion.paired is not None:
        mask = slices(champion.paired.clicked)[GUARDED_SLICE]
        if int(mask.sum()) < MIN_REQUESTS:
            return skipped(name, f"{int(mask.sum())} test requests, {MIN_REQUESTS} are needed")
        gain = float(np.mean(champion.paired.ours_R[mask] - champion.paired.theirs_R[mask]))
        why = f"NDCG@10 {gain:+.4f} over champion {champion.version} on {int(mask.sum())} requests; may drop by {config.max_slice_ndcg_drop}"
        return GateCheck(name=name, passed=gain >= -config.max_slice_ndcg_drop, why=why)
    ours, theirs = report.metrics().get(slice_metric(GUARDED_SLICE)), champion.metrics.get(slice_metric(GUARDED_SLICE))
    if ours is None or theirs is None:
        return skipped(name, "not measured for both releases")
    why = f"NDCG@10 {ours:.4f}, champion {champion.version} recorded {theirs:.4f}; may drop by {config.max_slice_ndcg_drop}"
    return GateCheck(name=name, passed=ours >= theirs - config.max_slice_ndcg_drop, why=why)


def _interest(report: Report, champion: Champion | None, config: GateConfig) -> GateCheck:
    """The champion's error on the same pairs, else what it recorded on its own; without a champion, not surely worse than a constant."""
    name = "interest"
    if report.interest is None:
        return skipped(name, report.absent.get("interest", "not measured"))
    ours, paired = report.interest.mse, champion.paired.their_interest_mse if champion and champion.paired else None
    recorded = champion.metrics.get("test/interest_mse") if champion else None
    if champion is None or (paired is None and recorded is None):
        low, constant = report.interest.mse_interval.low, report.interest.constant_mse
        why = f"no champion measured it; squared error {ours:.4f}, a constant's {constant:.4f}; its lower end {low:.4f} may not be above that"
        return GateCheck(name=name, passed=low <= constant, why=why)
    theirs, where = (paired, "on the same pairs") if paired is not None else (recorded, f"recorded on its own test data ({champion.why})")
    assert theirs is not None
    limit = theirs * (1 + config.max_interest_rise)
    why = f"squared error {ours:.4f}, champion {champion.version} {theirs:.4f} {where}; at most {limit:.4f}"
    return GateCheck(name=name, passed=ours <= limit, why=why)


def _calibration(report: Report, config: GateConfig) -> GateCheck:
    errors = {}
    if report.ranking:
        errors["click"] = report.ranking.click_calibration.ece
    if report.interest:
        errors["interest"] = report.interest.ece
    if not errors:
        return skipped("calibration", report.absent.get("ranking", "not measured"))
    listed = ", ".join(f"{name} {error:.4f}" for name, error in errors.items())
    return GateCheck(name="calibration", passed=max(errors.values()) <= config.max_ece, why=f"expected calibration error: {listed}; at most {config.max_ece}")


def _legality(report: Report) -> GateCheck:
    if report.plan is None:
        return skipped("legal_plans", report.absent.get("plan", "not measured"))
    return GateCheck(
        name="legal_plans", passed=report.plan.illegal == 0, why=f"{report.plan.illegal:.2%} of {report.plan.decoded} decoded plans break the grammar"
    )


def _off_policy(report: Report, champion: Champion | None) -> GateCheck:
    """Fails where even the upper end of the estimated value's interval lies below the champion's estimate, or the log's own mean."""
    name = "off_policy"
    if report.plan is None:
        return skipped(name, report.absent.get("plan", "not measured"))
    found = {one.estimator: one for one in report.plan.off_policy}
    if RECOMMENDED not in found:
        return skipped(name, "no plan of the test log has propensities and does what the new plans would")
    ours, theirs = found[RECOMMENDED], champion.paired.their_plan if champion and champion.paired else None
    beside, limit = ("the log's own mean", found[LOGGING].value) if champion is None or theirs is None else (f"champion {champion.version}", theirs.value)
    why = f"estimated value ({RECOMMENDED}) {ours.value:.2f} [{ours.low:.2f}, {ours.high:.2f}] minor units a session, {beside} {limit:.2f}; effective sessions {ours.ess:.0f} of {ours.sessions}"
    if ours.ess < MIN_EFFECTIVE_SESSIONS:
        return skipped(
            name, f"the log overlaps too little with the new plans to tell (at least {MIN_EFFECTIVE_SESSIONS:.0f} effective sessions are needed): {why}"
        )
    return GateCheck(name=name, passed=ours.high >= limit, why=why)


def _search(champion: Champion | None, config: GateConfig) -> GateCheck:
    """Mean reciprocal rank on the same searches, else what each one's training measured on its own."""
    name = "search"
    if champion is None:
        return skipped(name, "no champion to compare with")
    if len(champion.searched_R2):
        ours, theirs = champion.searched_R2.mean(axis=0).tolist()
        where = f"on the same {len(champion.searched_R2)} searches"
    elif champion.recorded_search is not None:
        (ours, theirs), where = champion.recorded_search, "each on its own test queries, as the catalogues differ"
    else:
        return skipped(name, "not measured for both releases")
    limit = theirs - config.max_search_drop
    why = f"mean reciprocal rank {ours:.3f}, champion {champion.version} {theirs:.3f} {where}; at least {limit:.3f}"
    return GateCheck(name=name, passed=ours >= limit, why=why)
