"""A run's report: each section measured where the run and its data allow it, else absent with the reason."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from guidelens.config import Config, TaskName
from guidelens.data.examples import Examples
from guidelens.data.lake.lake import Lake
from guidelens.evaluation.first_place import why_no_first_place
from guidelens.evaluation.guide import Draws, classic_baselines, measure_interest, measure_ranking
from guidelens.evaluation.held_back import answers_of, measure_own, measure_recognition, shown_products
from guidelens.evaluation.misses import miss_classes
from guidelens.evaluation.offpolicy import estimates, overlap, plan_weights
from guidelens.evaluation.plan_value import PlanValues, measure_values, require_its_world
from guidelens.evaluation.plans import as_scores, greedy, logged_plans, measure_likeness, on_logged_histories, with_plans
from guidelens.evaluation.ranking import ProductScorer
from guidelens.evaluation.report import Curve, InterestReport, PlanReport, RankingReport, RecognitionReport, Report, SplitDates, StepTime, curves, step_time
from guidelens.inference.guide_files import load_items
from guidelens.inference.scorer import GuideScorer
from guidelens.models.plans.asked import StepPolicy
from guidelens.models.plans.baselines import log_baselines
from guidelens.schemas.ids import sub_seed
from guidelens.schemas.tables import Table
from guidelens.world import World
from pipelines.entry import progress
from pipelines.measure_why import beside_ranking
from pipelines.run_files import RunFiles

OFF_POLICY_OF = "of the model's likeliest step at each moment, by the shop's own account (margin on purchases kept, less coupons and walk-outs)"


def measure(files: RunFiles, world: Path | None, config: Config) -> Report:
    """The report of a run, without the sections that only serving can fill.

    Raises:
        NotFoundError: `world` holds no simulated shop; before anything is measured.
        InputError: it is not the shop that the log came from.
    """
    shop = None if world is None else World.open(world)
    record = files.record
    draws = Draws(config.evaluate.num_bootstrap, sub_seed(config.seed, "evaluate"))
    report = Report(
        source="world" if world is not None else record.lake,
        seed=record.seed,
        preset=record.config.preset,
        run=files.run_id,
        snapshot_sha256=record.snapshot_sha256,
        missing=record.missing,
        losses=_losses(files),
        step_time=_step_time(files),
    )
    progress("evaluate: recognition on photos held back")
    lake = Lake(record.lake, files.home.s3)
    recognition, why = _recognition(files, lake)
    report = report.with_sections(recognition=recognition) if recognition else _without(report, recognition=why)
    if not files.has_guide:
        return _without(report, ranking=record.parts.guide, interest=record.parts.guide, plan=record.parts.guide)
    return _with_guide(report, files, shop, config, draws)


def _recognition(files: RunFiles, lake: Lake) -> tuple[RecognitionReport | None, str]:
    """On photos that the fit held back, with what was missed; on others where it kept no such answers."""
    record, answers = files.record, answers_of(files.fit)
    snapshot = lake.manifest(record.manifest)
    if not answers:
        return measure_recognition(lake, snapshot, record.config)
    products = shown_products(lake, snapshot)
    found, why = measure_own(answers, products, sub_seed(record.config.seed, "recognizer"))
    if found is None:
        return None, why
    photos = lake.read(Table.PHOTOS, ["path", "product_id", "is_catalogue_image", "thumbnail"], manifest=snapshot).sort("path")
    of_photo = dict(photos.select("path", "thumbnail").iter_rows())
    of_product = dict(photos.filter(pl.col("is_catalogue_image").fill_null(False)).select("product_id", "thumbnail").iter_rows())
    return found.model_copy(update={"misses": miss_classes(answers, products, of_photo.get, of_product.get)}), ""


def _with_guide(report: Report, files: RunFiles, shop: World | None, config: Config, draws: Draws) -> Report:
    examples, scorer = files.examples(), GuideScorer.load(files.fit)
    train, test = examples.of("train"), examples.of("test")
    report = report.with_sections(split=split_dates(examples))
    planned = with_plans(test)
    if shop is not None and len(planned):
        require_its_world(shop, planned, scorer.catalogue.product_ids)
    progress(f"evaluate: {len(test)} test requests")
    ranking = _ranking(files, scorer, examples, draws)
    interest = None if _left_out(files, scorer, "interest") else measure_interest(scorer, files.control("interest"), train, test, draws)
    plan = None if _left_out(files, scorer, "plan") else _plan(files, scorer, examples, shop, config, draws)
    report = report.with_sections(**beside_ranking(files, scorer, examples, shop, draws))
    if ranking is not None and report.first_place is None:
        report = _without(report, first_place=why_no_first_place(test, len(scorer.catalogue)) or "the test part shows no slate")
    found: dict[str, RankingReport | InterestReport | PlanReport | None] = {"ranking": ranking, "interest": interest, "plan": plan}
    tasks: dict[str, TaskName] = {"ranking": "recommendation", "interest": "interest", "plan": "plan"}
    for name, section in found.items():
        why = _left_out(files, scorer, tasks[name]) or "the test part of the log holds nothing to measure it on"
        report = _without(report, **{name: why}) if section is None else report.with_sections(**{name: section})
    return report


def _without(report: Report, **reasons: str) -> Report:
    cleaned = {name: why.removeprefix("absent: ") for name, why in reasons.items()}
    return report.model_copy(update={"absent": {**report.absent, **cleaned}})


def _left_out(files: RunFiles, scorer: GuideScorer, task: TaskName) -> str | None:
    """Why the run has no such task, or None where it has."""
    if scorer.header.learned(task):
        return None
    by_config = files.record.config.train.lambdas[task] == 0
    return f"train.lambdas.{task} is 0 in this run" if by_config else "the training part of the log holds nothing to learn it from"


def _losses(files: RunFiles) -> tuple[Curve, ...]:
    """Epoch losses of the joint model: metrics guide.SPLIT.TERM become curves SPLIT/TERM."""
    names = [name for name in files.registry.metrics(files.run_id) if name.startswith(("guide.train.", "guide.val."))]
    return curves({name.removeprefix("guide.").replace(".", "/"): files.registry.history(files.run_id, name) for name in names})


def _step_time(files: RunFiles) -> StepTime | None:
    """From the joint model's seconds an epoch; None where training measured none (`train.telemetry`)."""

    def seconds(name: str) -> list[float]:
        return [value for _, value in files.registry.history(files.run_id, name)]

    named = "guide.step_seconds."
    parts = [name.removeprefix(named) for name in files.registry.metrics(files.run_id) if name.startswith(named)]
    return step_time(seconds("guide.epoch_seconds"), {part: seconds(named + part) for part in sorted(parts)}) if parts else None


def split_dates(examples: Examples) -> SplitDates:
    """When the parts of a temporal split begin and end."""

    def moment(ts_us: int) -> str:
        return datetime.fromtimestamp(ts_us / 1e6, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

    train, test = examples.of("train"), examples.of("test")
    return SplitDates(
        train_end=moment(int(train.ts_us.max())),
        test_start=moment(int(test.ts_us.min())),
        test_end=moment(int(test.ts_us.max())),
        train_requests=len(train),
        test_requests=len(test),
    )


def _ranking(files: RunFiles, scorer: GuideScorer, examples: Examples, draws: Draws) -> RankingReport | None:
    if _left_out(files, scorer, "recommendation"):
        return None
    peers: dict[str, ProductScorer] = dict(classic_baselines(examples, scorer.catalogue, sub_seed(draws.seed, "baselines")))
    single_task = files.control("recommendation")
    if single_task is not None:
        peers["single_task"] = single_task
    categories = load_items(files.fit)[0]["category"].fill_null("").to_list()
    return measure_ranking(scorer, peers, examples, categories, draws)


def _plan(files: RunFiles, scorer: GuideScorer, examples: Examples, shop: World | None, config: Config, draws: Draws) -> PlanReport | None:
    planned = with_plans(examples.of("test"))
    if len(planned) == 0:
        return None
    peers: dict[str, StepPolicy] = {**log_baselines(examples, scorer.catalogue, files.record.config.train.model, draws.seed)}
    chances_BSA = on_logged_histories(scorer, planned)
    likeness = measure_likeness(scorer, planned, chances_BSA)
    baselines = {name: as_scores(measure_likeness(peer, planned, on_logged_histories(peer, planned))) for name, peer in peers.items()}
    single_task = files.control("plan")
    if single_task is not None:
        peers["single_task"] = single_task
    log = logged_plans(scorer, planned, greedy(chances_BSA))
    values = None
    if shop is not None:
        progress(f"evaluate: {len(planned)} AR sessions in the simulated shop")
        values = measure_values(shop, scorer, peers, planned, rollouts=config.evaluate.plan_rollouts, draws=draws)
    found = PlanReport(
        illegal=likeness.illegal,
        decoded=likeness.decoded,
        plans=likeness.plans,
        match=likeness.free.match,
        step_accuracy=likeness.forced.step_accuracy,
        exact_match=likeness.free.exact_match,
        value_source="only estimated from the log, by importance sampling and a doubly robust estimate; no simulated shop was given",
        scores=as_scores(likeness),
        baselines=baselines,
        off_policy=tuple(estimates(log, seed=draws.seed)) if log else (),
        off_policy_of=OFF_POLICY_OF if log else "",
        overlap=overlap(plan_weights(log)) if log else None,
    )
    return found if values is None else _valued(found, values, config)


def _valued(plan: PlanReport, values: PlanValues, config: Config) -> PlanReport:
    means = {name: interval.value for name, interval in values.intervals.items()}
    source = f"in the simulated shop, closed loop, mean of {config.evaluate.plan_rollouts} runs of each of {values.sessions:,} test sessions on common random numbers"
    return plan.model_copy(
        update={
            "value_source": source,
            "value": means["model"],
            "gap_closed": values.gap_closed,
            "intervals": values.intervals,
            "gain_over": values.gain_over,
            **{f"{name}_value": value for name, value in means.items() if f"{name}_value" in PlanReport.model_fields},
        }
    )
