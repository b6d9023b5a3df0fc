"""From a finished run to a champion and back, through a real MLflow registry: measured, bundled, gated, promoted, rolled back."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from finished_run import box_glb, cv2_jpeg, finish_run

from guidelens.bundle import verify
from guidelens.config import Home
from guidelens.errors import BundleError, GateError, InputError, NotFoundError
from guidelens.evaluation.report import read_report
from guidelens.inference.fusion import FusionModel
from guidelens.inference.scorer import GuideScorer
from guidelens.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry
from pipelines import compare, evaluate, promote, release, rollback, train
from pipelines.fit_parts import FitDone, Parts
from serve.messages import RecognizeCall, RecognizeReply
from serve.recognizer import Recognizer


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(root=tmp_path_factory.mktemp("release") / "home")


@pytest.fixture(scope="module")
def run_id(home: Home) -> str:
    return finish_run(home)


@pytest.fixture(scope="module")
def measured(home: Home, run_id: str) -> evaluate.EvaluateResult:
    return evaluate.run(home, run_id)


@pytest.fixture(scope="module")
def first(home: Home, run_id: str, measured: evaluate.EvaluateResult) -> release.ReleaseResult:
    return release.run(home, run_id)


def test_a_run_is_measured_beside_its_baselines(home: Home, run_id: str, measured: evaluate.EvaluateResult) -> None:
    report = read_report(Path(measured.report))
    assert report.ranking is not None and report.interest is not None and report.plan is not None and report.recognition is not None
    assert set(report.ranking.baselines) == {
        *("popularity", "item_knn", "item_knn_pearson", "user_knn", "ease", "als", "transitions", "ncf", "hybrid", "content", "single_task")
    }
    assert report.plan.illegal == 0
    assert set(report.plan.baselines) == {"ngram", "nearest", "gru"}
    assert all(scores.illegal == 0 and scores.logged_length > 1 for scores in (report.plan.scores, *report.plan.baselines.values()) if scores)
    assert report.plan.scores is not None and report.plan.scores.free_match == report.plan.match
    assert report.plan.value is None and "no simulated shop" in report.plan.value_source
    assert report.plan.overlap is not None and report.plan.overlap.sessions == report.plan.off_policy[0].sessions
    estimated = {one.estimator for one in report.plan.off_policy}
    assert {"logging", "ips", "per_decision_ips", "dr", "dros"} <= estimated if report.plan.overlap.ess else estimated == {"logging"}
    assert report.first_place is not None and report.first_place.requests == report.first_place.overlap.sessions
    assert report.ranking.forecast is not None and report.ranking.forecast.decision is not None and report.ranking.cold is not None
    assert set(report.ranking.beyond) == {"model", *report.ranking.baselines}
    assert {"new products", "tail products", "category family 0"} <= {part.name for part in report.ranking.slices}
    assert report.recognition.top1 > 0.9
    assert {curve.name for curve in report.losses} == {"train/click", "val/click", "train/plan", "val/plan"}
    assert Registry(home).metrics(run_id)["test/ndcg_at_10"] == pytest.approx(report.ranking.model.ndcg_at_10)


def test_a_folder_that_holds_no_shop_is_refused_before_anything_is_measured(
    home: Home, run_id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NotFoundError, match="no simulated shop"):
        evaluate.run(home, run_id, world=tmp_path)
    assert "evaluate:" not in capsys.readouterr().err


def test_measuring_again_gives_the_same_figures(home: Home, run_id: str, measured: evaluate.EvaluateResult) -> None:
    before = Path(measured.report).read_bytes()
    assert evaluate.run(home, run_id).metrics == measured.metrics
    assert Path(measured.report).read_bytes() == before


def test_a_first_release_passes_with_its_skipped_checks_named(home: Home, first: release.ReleaseResult) -> None:
    checks = {check.name: check for check in first.gate}
    named = {
        "files",
        "parity",
        "completeness",
        "recognition",
        "ranking",
        "slice: new shoppers",
        "interest",
        "calibration",
        "legal_plans",
        "off_policy",
        "search",
    }
    assert set(checks) == named
    assert checks["parity"].passed and checks["files"].passed and checks["legal_plans"].passed
    assert checks["slice: new shoppers"].passed is None and "no champion" in checks["slice: new shoppers"].why


def test_a_log_without_guide_steps_is_measured_and_released(tmp_path: Path) -> None:
    """What most shops bring: slates and clicks, and no guide yet."""
    home = Home(root=tmp_path / "home")
    run_id = finish_run(home, plans=False)
    report = read_report(Path(evaluate.run(home, run_id).report))
    assert report.ranking is not None and report.plan is None
    checks = {check.name: check for check in release.run(home, run_id).gate}
    assert checks["parity"].passed
    assert checks["legal_plans"].passed is None


@pytest.mark.parametrize(
    ("guide", "recognizer", "missing"),
    [("trained", "trained", ("plan",)), ("absent: no log", "trained", ("events",)), ("absent: no log", "absent: no photos", ("events", "photos"))],
)
def test_what_a_training_lacked_is_named(guide: str, recognizer: str, missing: tuple[str, ...]) -> None:
    done = FitDone(parts=Parts(recognizer=recognizer, guide=guide, controls=guide), num_products=1, metrics={}, by_epoch=(), left_out=("plan",))
    assert train._missing(done) == missing


@pytest.mark.parametrize("events", [True, False])
def test_a_release_without_photos_is_served_and_says_so(tmp_path: Path, events: bool) -> None:
    home = Home(root=tmp_path / "home")
    version = release.run(home, finish_run(home, events=events, photos=False)).version
    assert "photos" in verify(home.releases / version).missing
    answer = asyncio.run(Recognizer(home, version).handle(RecognizeCall(version, cv2_jpeg(), None)))
    assert isinstance(answer, RecognizeReply)
    assert answer.in_catalogue is None and not len(answer.rows) and answer.embedding.any()


def test_the_released_copy_is_verified_and_answers_as_the_fit_did(home: Home, run_id: str, first: release.ReleaseResult) -> None:
    bundle = home.releases / first.version
    manifest = verify(bundle)
    assert manifest.run_id == run_id
    assert (bundle / "media" / "1.glb").read_bytes() == box_glb()
    assert {"index.usearch", "media/0.jpg", "guide.safetensors", "items.parquet"} <= set(manifest.files)
    assert not any(name.startswith("controls") for name in manifest.files)
    assert np.array_equal(GuideScorer.load(bundle).items_ND.numpy(), GuideScorer.load(home.work / run_id / "fit").items_ND.numpy())
    assert FusionModel.load(bundle).missing == ()


def test_release_sets_only_the_challenger(tmp_path: Path) -> None:
    home = Home(root=tmp_path / "home")
    found = release.run(home, finish_run(home, events=False))
    assert found.alias == CHALLENGER
    assert Registry(home).aliases() == {CHALLENGER: found.version}
    skipped = {check.name for check in found.gate if check.passed is None}
    assert {"ranking", "calibration", "legal_plans", "off_policy"} <= skipped
    report = read_report(Registry(home).download(Registry(home).version(found.version).run_id, "report", tmp_path) / "report.json")
    assert report.missing == ("events",)
    assert report.absent["ranking"] == "the lake holds no events"
    assert promote.run(home, found.version).champion == found.version
    assert Registry(home).aliases() == {CHAMPION: found.version}


@pytest.fixture
def released(home: Home, run_id: str, first: release.ReleaseResult) -> tuple[Home, str, str]:
    """Two versions of one run, the first one champion."""
    registry = Registry(home)
    for alias in (CHAMPION, PREVIOUS):
        registry.remove_alias(alias)
    promote.run(home, first.version, force="drawn weights")
    return home, first.version, release.run(home, run_id).version


def test_two_releases_of_one_run_are_promoted_and_rolled_back(released: tuple[Home, str, str]) -> None:
    home, old, new = released
    assert promote.run(home, new, force="drawn weights") == promote.PromoteResult(champion=new, previous=old)
    assert rollback.run(home) == promote.PromoteResult(champion=old, previous=new)
    assert rollback.run(home) == promote.PromoteResult(champion=new, previous=old)


def test_a_second_release_of_a_run_is_judged_beside_the_champion_on_the_same_requests(released: tuple[Home, str, str]) -> None:
    home, old, new = released
    ranking = next(check for check in release.status(home).gate if check.name == "ranking")
    assert f"champion {old}" in ranking.why and "the same" in ranking.why
    assert "+0.0000" in ranking.why
    search = next(check for check in release.status(home).gate if check.name == "search")
    assert search.passed and f"champion {old}" in search.why and "the same" in search.why
    assert release.status(home).newest == new


def test_promoting_the_champion_again_changes_nothing(released: tuple[Home, str, str]) -> None:
    home, old, new = released
    promote.run(home, new, force="drawn weights")
    assert promote.run(home, new, force="drawn weights") == promote.PromoteResult(champion=new, previous=old)


def test_a_release_that_is_not_better_is_left_where_it_is(released: tuple[Home, str, str]) -> None:
    home, old, new = released
    assert promote.run(home, new, if_better=True, force="drawn weights") == promote.PromoteResult(champion=old, previous=None, promoted=False)
    assert Registry(home).alias(CHAMPION) == old


def test_an_altered_copy_is_not_promoted(released: tuple[Home, str, str]) -> None:
    home, old, new = released
    picture = home.releases / new / "media" / "3.jpg"
    whole = picture.read_bytes()
    picture.write_bytes(whole[:-1] + b"x")
    with pytest.raises(BundleError, match=r"3\.jpg"):
        promote.run(home, new, force="drawn weights")
    assert Registry(home).alias(CHAMPION) == old
    picture.write_bytes(whole)


def test_a_copy_that_is_gone_is_fetched_again(released: tuple[Home, str, str]) -> None:
    import shutil

    home, _, new = released
    shutil.rmtree(home.releases / new)
    promote.run(home, new, force="drawn weights")
    verify(home.releases / new)
    assert not list(home.releases.glob(".arriving-*"))


def test_a_champion_whose_copy_is_gone_is_still_compared_with(released: tuple[Home, str, str], run_id: str) -> None:
    import shutil

    home, old, _ = released
    shutil.rmtree(home.releases / old)
    newest = release.run(home, run_id)
    assert any(f"champion {old}" in check.why for check in newest.gate)
    shutil.rmtree(home.releases / old)
    assert not promote.run(home, newest.version, if_better=True, force="drawn weights").promoted


def test_a_failed_gate_needs_a_reason_which_is_kept(released: tuple[Home, str, str]) -> None:
    home, _, new = released
    registry = Registry(home)
    registry.tag_version(new, {promote.GATE_TAG: "failed"})
    with pytest.raises(GateError, match="gate failed"):
        promote.run(home, new)
    promote.run(home, new, force="the baseline was wrong")
    assert registry.version(new).tags["forced_because"] == "the baseline was wrong"


def test_what_does_not_exist_is_named(home: Home, first: release.ReleaseResult, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="release 99"):
        promote.run(home, "99")
    with pytest.raises(NotFoundError, match="nobody"):
        release.run(home, "nobody")
    with pytest.raises(NotFoundError, match="no previous champion"):
        rollback.run(Home(root=tmp_path / "empty"))


def test_a_run_that_did_not_finish_is_not_released(home: Home) -> None:
    registry = Registry(home)
    failed = registry.start_run("train", {}, {})
    registry.finish(failed, "FAILED")
    with pytest.raises(InputError, match="FINISHED"):
        release.run(home, failed)


def test_two_runs_are_compared_on_the_requests_they_share(home: Home, run_id: str) -> None:
    other = finish_run(home, seed=5)
    compared = compare.run(home, run_id, other)
    found = {row.name: row for row in compared.metrics}
    assert found["NDCG@10"].difference is not None
    assert found["NDCG@10"].difference.value == pytest.approx((found["NDCG@10"].second or 0) - (found["NDCG@10"].first or 0))
    page = Path(compared.page).read_text()
    assert "<svg" in page and run_id in page and "NDCG@10 by slice" in page
    assert {"NDCG@10", "click log-loss", "interest squared error", "plan step accuracy"} <= set(found)
    assert all(row.test is not None and row.test.p <= row.test.p_holm for row in compared.metrics if row.difference is not None)
    same = {row.name: row for row in compare.run(home, run_id, run_id).metrics}
    assert same["plan edit similarity"].difference is not None and same["plan edit similarity"].difference.value == 0


def test_the_verbs_end_with_one_json_line(home: Home, run_id: str, first: release.ReleaseResult) -> None:
    where = ["--home", str(home.root)]
    listed = CliRunner().invoke(release.command, ["list", *where])
    assert json.loads(listed.stdout.splitlines()[-1])["releases"][0]["run"] == run_id
    shown = CliRunner().invoke(release.command, ["status", *where])
    assert json.loads(shown.stdout.splitlines()[-1])["newest"] is not None
    found = CliRunner().invoke(promote.command, [first.version, "--force", "test", *where])
    assert json.loads(found.stdout.splitlines()[-1])["champion"] == first.version
    measured = CliRunner().invoke(evaluate.command, ["--run", run_id, *where])
    assert Path(json.loads(measured.stdout.splitlines()[-1])["report"]).exists()
    assert CliRunner().invoke(evaluate.command, where).exit_code == 2
