"""The gate: what fails a release, what is skipped and why, and that a skipped check never passes for a made one."""

import dataclasses

import numpy as np
import pytest
from test_report import around, full

from guidelens.config import GateConfig
from guidelens.data.examples import empty
from guidelens.evaluation.gate import Champion, Paired, judge, passed
from guidelens.evaluation.guide import Draws
from guidelens.evaluation.offpolicy import RECOMMENDED, OffPolicyEstimate
from guidelens.evaluation.report import GateCheck, Report

DRAWS = Draws(50, 0)


def estimate(value: float, ess: float = 80.0) -> OffPolicyEstimate:
    return OffPolicyEstimate(estimator=RECOMMENDED, value=value, low=value - 5, high=value + 5, ess=ess, sessions=900)


def report(**plan: object) -> Report:
    found = full()
    assert found.plan is not None
    log = OffPolicyEstimate(estimator="logging", value=41.0, low=40.0, high=42.0, ess=900, sessions=900)
    settled = found.plan.model_copy(update={"off_policy": (log, estimate(60.0)), **plan})
    return found.with_sections(plan=settled)


def beside(champion: Champion | None, of: Report | None = None, config: GateConfig | None = None) -> dict[str, GateCheck]:
    return {check.name: check for check in judge(of or report(), champion, config or GateConfig(), DRAWS)}


def champion(gain: float, num: int = 100, their_plan: float = 50.0) -> Champion:
    """A champion that scored each of `num` new shoppers' requests `gain` lower."""
    clicked, theirs = empty(num), np.full(num, 0.2)
    return Champion("3", {"test/recognition_top1": 0.8}, Paired(clicked, theirs + gain, theirs, estimate(their_plan)))


@pytest.mark.parametrize(
    ("ours", "same_pairs", "recorded", "allowed"),
    [(0.0315, 0.031, 0.02, True), (0.0335, 0.031, 0.2, False), (0.0335, None, 0.032, True), (0.0345, None, 0.032, False)],
    ids=["on the same pairs", "worse on the same pairs", "as recorded", "worse than recorded"],
)
def test_interest_may_not_lose_what_the_champion_has(ours: float, same_pairs: float | None, recorded: float, allowed: bool) -> None:
    found = report()
    assert found.interest is not None
    champion_of = Champion("3", {"test/interest_mse": recorded}, dataclasses.replace(champion(0.0).paired, their_interest_mse=same_pairs))
    check = beside(champion_of, found.with_sections(interest=found.interest.model_copy(update={"mse": ours})))["interest"]
    assert check.passed is allowed
    assert "champion 3" in check.why and ("same pairs" in check.why) == (same_pairs is not None)


def test_a_first_release_may_not_be_surely_worse_than_a_constant_in_interest() -> None:
    found = report()
    assert found.interest is not None and beside(None, found)["interest"].passed
    worse = found.interest.model_copy(update={"mse": 0.06, "mse_interval": around(0.06)})
    assert worse.mse_interval.low > worse.constant_mse
    assert beside(None, found.with_sections(interest=worse))["interest"].passed is False


def test_a_first_release_is_held_against_popularity_and_absolute_limits() -> None:
    checks = beside(None)
    assert checks["ranking"].passed and "popularity" in checks["ranking"].why
    assert checks["calibration"].passed and checks["legal_plans"].passed and checks["off_policy"].passed
    assert checks["slice: new shoppers"].passed is None and "no champion" in checks["slice: new shoppers"].why
    assert passed(tuple(checks.values()))


def test_a_first_release_that_is_surely_worse_than_popularity_fails() -> None:
    found = report()
    assert found.ranking is not None
    worse = found.with_sections(ranking=found.ranking.model_copy(update={"gain_over": {"popularity": around(-0.05)}}))
    assert beside(None, worse)["ranking"].passed is False


@pytest.mark.parametrize(
    ("missing", "of_champion", "lost"),
    [
        (("recommendation", "interest"), (), "interest, recommendation"),
        (("photos",), ("plan",), "photos"),
        (("events",), ("plan",), "interest, recommendation"),
        (("plan",), ("events",), ""),
        (("events", "photos"), ("events", "photos"), ""),
    ],
)
def test_a_release_that_lacks_what_the_champion_has_fails(missing: tuple[str, ...], of_champion: tuple[str, ...], lost: str) -> None:
    """The checks on what it lacks are skipped, so that without this one it would pass."""
    ours = report().model_copy(update={"missing": missing})
    check = beside(dataclasses.replace(champion(0.0), missing=of_champion), ours)["completeness"]
    assert check.passed is (lost == "")
    assert lost in check.why
    assert beside(None, ours)["completeness"].passed is None


@pytest.mark.parametrize(("gain", "verdict"), [(0.02, True), (-0.009, True), (-0.011, False)])
def test_ranking_may_drop_by_the_margin_and_no_more(gain: float, verdict: bool) -> None:
    check = beside(champion(gain))["ranking"]
    assert check.passed is verdict
    assert f"{gain:+.4f}" in check.why and "champion 3" in check.why


def test_a_slice_has_a_margin_of_its_own_and_needs_enough_requests() -> None:
    assert beside(champion(-0.02))["slice: new shoppers"].passed
    assert beside(champion(-0.04))["slice: new shoppers"].passed is False
    assert beside(champion(-0.04, num=10))["slice: new shoppers"].passed is None


def test_a_champion_that_cannot_score_these_requests_is_compared_by_what_it_recorded() -> None:
    recorded = Champion("3", {"test/ndcg_at_10": 0.30}, None, "the catalogues differ")
    check = beside(recorded)["ranking"]
    assert check.passed is False and "the catalogues differ" in check.why


def test_too_large_a_calibration_error_fails() -> None:
    assert beside(None, config=GateConfig(max_ece=0.001))["calibration"].passed is False


def test_one_illegal_plan_fails() -> None:
    assert beside(None, report(illegal=0.001))["legal_plans"].passed is False


def test_plans_fail_only_where_even_the_upper_end_lies_below() -> None:
    assert beside(champion(0.0, their_plan=64.0))["off_policy"].passed
    assert beside(champion(0.0, their_plan=66.0))["off_policy"].passed is False


def test_without_overlap_the_log_cannot_judge_plans() -> None:
    check = beside(None, report(off_policy=(estimate(41.0), estimate(1.0, ess=2.0).model_copy(update={"estimator": "logging"}), estimate(1.0, ess=2.0))))
    assert check["off_policy"].passed is None and "overlaps too little" in check["off_policy"].why


def test_recognition_may_not_drop() -> None:
    assert beside(Champion("3", {"test/recognition_top1": 0.83}, None))["recognition"].passed
    assert beside(Champion("3", {"test/recognition_top1": 0.85}, None))["recognition"].passed is False


def test_recognition_is_judged_on_the_photos_that_both_held_back_where_there_are_enough() -> None:
    """What the champion measured on photos of its own then says nothing."""
    right = np.ones((40, 2))
    right[:2, 0] = 0
    better_elsewhere = Champion("3", {"test/recognition_top1": 0.99}, None)
    assert beside(better_elsewhere)["recognition"].passed is False
    found = beside(dataclasses.replace(better_elsewhere, recognized_H2=right[:, ::-1]))["recognition"]
    assert found.passed and "same 40 photos" in found.why
    assert beside(dataclasses.replace(better_elsewhere, recognized_H2=right))["recognition"].passed is False
    assert beside(dataclasses.replace(better_elsewhere, recognized_H2=right[:20, ::-1]))["recognition"].passed is False


def test_without_events_every_check_on_the_guide_is_skipped_with_the_reason() -> None:
    bare = Report(source="shop", seed=0, absent=dict.fromkeys(("ranking", "interest", "plan", "recognition"), "the lake holds no events"))
    checks = beside(None, bare)
    assert {check.passed for check in checks.values()} == {None}
    assert {checks.pop(name).why for name in ("completeness", "search")} == {"no champion to compare with"}
    assert {check.why for check in checks.values()} == {"the lake holds no events"}
    assert passed(tuple(checks.values()))


@pytest.mark.parametrize(("ours", "allowed"), [(0.79, True), (0.74, False)])
def test_search_may_not_find_less_than_the_champion_s_on_the_same_searches(ours: float, allowed: bool) -> None:
    searched = np.tile([[ours, 0.8]], (50, 1))
    check = beside(Champion("3", {}, None, searched_R2=searched, recorded_search=(0.1, 0.9)))["search"]
    assert check.passed is allowed and "same 50 searches" in check.why


def test_search_over_another_catalogue_is_judged_by_what_training_measured() -> None:
    assert beside(Champion("3", {}, None, recorded_search=(0.7, 0.72)))["search"].passed
    assert beside(Champion("3", {}, None, recorded_search=(0.7, 0.74)))["search"].passed is False
    assert beside(Champion("3", {}, None))["search"].passed is None
    assert beside(None)["search"].passed is None
