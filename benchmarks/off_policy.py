"""Do off-policy estimates tell what other guides would earn, and do their intervals hold the truth as often as they say?

    python -m benchmarks.off_policy [--seeds 1100-1199] [--data DIR] [--out benchmarks/results]

In the simulated shop the truth is known: other guides are run in it, by the loop that wrote the log. Each seed is another shop. Of its
shoppers a part are logged, and the log alone has to say what each guide earns a session. With --data (or GUIDELENS_DATA), a folder that
holds `open-bandit`, the click rate of each of its two policies is estimated from the other one's log and held against its own.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import click
import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks._results import keep, machine, today
from benchmarks.seeds import parse_seeds
from guidelens.config import WorldSize
from guidelens.evaluation.bootstrap import Interval, mean_interval
from guidelens.evaluation.offpolicy import LOGGING, RECOMMENDED, LoggedChoices, LoggedPlans, OffPolicyEstimate, estimates
from guidelens.evaluation.offpolicy.weights import MIN_EFFECTIVE
from guidelens.schemas.base import Frozen
from guidelens.schemas.ids import sub_seed
from guidelens.schemas.steps import MAX_STEPS, NUM_STEPS, allowed_next
from guidelens.world.blueprint import Job, build
from guidelens.world.fixed_plan import best_fixed_plans
from guidelens.world.latents import KINDS
from guidelens.world.parameters import WORLD_V1
from guidelens.world.policy import Observed, PlanPolicy, script_plans
from guidelens.world.rollout import GuideSessions, Rollout, run, session_draws
from guidelens.world.sessions import session_counts, simulate
from pipelines.entry import progress, run_command

# Letters: B = AR sessions, A = NUM_STEPS.

SIZE = WorldSize(num_products=120, num_shoppers=6000, num_sessions=36_000, num_frames=120, views_per_product=2)
LOGGED_SHOPPERS = {"small log": 600, "large log": 2400}
ROLLOUTS = 6
_CHUNK = 400
_PLANS_SEED = 0
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Columns = TypeVar("Columns", GuideSessions, Rollout)


class Shop(NamedTuple):
    """All AR sessions of one simulated shop: hidden truth, what the logging guide did, whose they are."""

    hidden: GuideSessions
    log: Rollout
    shopper: Ints

    def of(self, shoppers: Ints) -> "Shop":
        rows = np.flatnonzero(np.isin(self.shopper, shoppers))
        return Shop(_taken(self.hidden, rows), _taken(self.log, rows), self.shopper[rows])


@dataclass(frozen=True)
class NoisyPlans:
    """A guide that follows an order of steps a kind, but draws evenly from the allowed steps in a share of `noise`. draws: (B, 8)."""

    plans: PlanPolicy
    noise: float
    draws: Floats

    def chances(self, observed: Observed) -> Floats:
        """(B, A) probability of each step."""
        chances_BA = self.noise * observed.allowed / observed.allowed.sum(axis=1, keepdims=True)
        chances_BA[np.arange(len(chances_BA)), self.plans.act(observed)] += 1 - self.noise
        return np.asarray(chances_BA)

    def act(self, observed: Observed) -> Ints:
        chances_BA = self.chances(observed)
        reached_BA = chances_BA.cumsum(axis=1) > self.draws[observed.session_rows, observed.length, None]
        return np.where(reached_BA.any(axis=1), reached_BA.argmax(axis=1), chances_BA.argmax(axis=1))


class Row(Frozen):
    """One estimator of one guide from logs of one size, over seeds. Money in minor units a session.

    covered: share of seeds whose 95 % interval held the truth. rmse and median_error: of the estimate. width: median of the intervals.
    """

    guide: str
    log: str
    estimator: str
    truth: float
    ess: float
    sessions: float
    covered: float
    rmse: float
    median_error: float
    width: float


class BanditRow(Frozen):
    """One estimator on one campaign of open-bandit: click rate of `policy` from the other policy's log, beside its own log's."""

    campaign: str
    policy: str
    estimator: str
    value: float
    low: float
    high: float
    on_policy: Interval
    relative_error: float
    ess: float


class OffPolicyStudy(Frozen):
    """dr_over_ips, recommended_over_ips: RMSE of the estimate over that of IPS, geometric mean over guides and logs; intervals draw seeds."""

    machine: str
    date: str
    command: str
    seeds: tuple[int, ...]
    seconds_a_seed: float
    recommended: str
    dr_over_ips: Interval
    recommended_over_ips: Interval
    rows: tuple[Row, ...]
    bandit: tuple[BanditRow, ...]


def shop_of(seed: int) -> Shop:
    """Draws a shop and simulates all of its sessions; no files."""
    shop, _ = build(Job(SIZE, seed, WORLD_V1, None, Path()))
    counts = session_counts(shop.shoppers, SIZE.num_sessions, seed)
    chunks = [simulate(shop, range(start, min(start + _CHUNK, SIZE.num_shoppers)), counts) for start in range(0, SIZE.num_shoppers, _CHUNK)]
    hidden, log = _joined([chunk.ar.hidden for chunk in chunks]), _joined([chunk.ar.log for chunk in chunks])
    shopper = np.concatenate([chunk.moments.shopper[chunk.ar.session] for chunk in chunks])
    return Shop(replace(hidden, row=np.arange(hidden.num)), log, shopper)


def _joined(parts: Sequence[Columns]) -> Columns:
    return type(parts[0])(**{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(parts[0])})


def _taken(whole: Columns, rows: Ints) -> Columns:
    return type(whole)(**{field.name: getattr(whole, field.name)[rows] for field in fields(whole)})


def guides() -> dict[str, tuple[Ints, float]]:
    """Plans a kind and noise of the guides to be valued, from near the logging guide (the script, with a noise of .4) to far from it.

    The other plan is the best fixed one that the simulator finds in a development shop.
    """
    script = script_plans(KINDS)
    other = best_fixed_plans(shop_of(_PLANS_SEED).hidden, WORLD_V1.guide, sub_seed(_PLANS_SEED, "fixed plans"))
    return {
        "the script, half its noise": (script, 0.2),
        "the script": (script, 0.0),
        "another plan, noise .6": (other, 0.6),
        "another plan, noise .3": (other, 0.3),
    }


def truth(shop: Shop, plans: Ints, noise: float, seed: int) -> float:
    """Mean value of a session under the guide, over all sessions of the shop and ROLLOUTS runs of each, on other luck than the log's."""
    total = 0.0
    for rollout in range(ROLLOUTS):
        luck = session_draws(shop.hidden.row, sub_seed(seed, "truth"), f"rollout/{rollout}")
        own = session_draws(shop.hidden.row, sub_seed(seed, "truth"), f"guide/{rollout}", 1)[:, :, 0]
        total += float(run(shop.hidden, NoisyPlans(PlanPolicy(plans, shop.hidden.kind), noise, own), luck, WORLD_V1.guide).value.mean())
    return total / ROLLOUTS


def logged_plans(shop: Shop, plans: Ints, noise: float) -> LoggedPlans:
    """The log as a shop has it, with what the guide would do at each of its histories. A session earns at its last step."""
    hidden, log = shop.hidden, shop.log
    ends = (log.steps >= 0).sum(axis=1)
    guide = NoisyPlans(PlanPolicy(plans, hidden.kind), noise, np.zeros((hidden.num, MAX_STEPS)))
    target, reward = np.zeros((hidden.num, MAX_STEPS, NUM_STEPS)), np.zeros((hidden.num, MAX_STEPS))
    reward[np.arange(hidden.num), ends - 1] = log.value
    for length in range(MAX_STEPS):
        rows = np.flatnonzero(ends > length)
        allowed = allowed_next(hidden.base[rows], log.steps[rows], length)
        target[rows, length] = guide.chances(Observed(rows, log.steps[rows], log.outcomes[rows], log.view_ms[rows], log.gestures[rows], length, allowed))
    context = np.concatenate([hidden.base, np.eye(len(KINDS))[hidden.kind]], axis=1)
    propensity = np.where(log.steps >= 0, log.propensity, 1.0)
    return LoggedPlans(log.steps.astype(np.int64), log.outcomes.astype(np.int64), propensity, reward, target, context, shop.shopper, hidden.margin)


def of_seed(seed: int, wanted: dict[str, tuple[Ints, float]]) -> list[tuple[str, str, float, OffPolicyEstimate]]:
    """Guide, log, truth and estimate of everything in one shop."""
    shop = shop_of(seed)
    order = np.random.Generator(np.random.Philox(key=sub_seed(seed, "who is logged"))).permutation(SIZE.num_shoppers)
    found = []
    for guide, (plans, noise) in wanted.items():
        value = truth(shop, plans, noise, seed)
        for size, num_shoppers in LOGGED_SHOPPERS.items():
            log = logged_plans(shop.of(order[:num_shoppers]), plans, noise)
            found += [(guide, size, value, one) for one in estimates(log, seed=seed) if one.estimator != LOGGING]
    return found


def summed_up(found: Sequence[tuple[str, str, float, OffPolicyEstimate]]) -> tuple[Row, ...]:
    """Rows over seeds, in the order in which guides, logs and estimators first come."""
    groups: dict[tuple[str, str, str], list[tuple[float, OffPolicyEstimate]]] = {}
    for guide, size, value, one in found:
        groups.setdefault((guide, size, one.estimator), []).append((value, one))
    rows = []
    for (guide, size, estimator), pairs in groups.items():
        values, low, high = (np.array(column) for column in zip(*((value, one.low, one.high) for value, one in pairs), strict=True))
        error = np.array([one.value for _, one in pairs]) - values
        rows.append(
            Row(
                guide=guide,
                log=size,
                estimator=estimator,
                truth=float(values.mean()),
                ess=float(np.median([one.ess for _, one in pairs])),
                sessions=float(np.mean([one.sessions for _, one in pairs])),
                covered=float(np.mean((low <= values) & (values <= high))),
                rmse=float(np.sqrt((error**2).mean())),
                median_error=float(np.median(np.abs(error))),
                width=float(np.median(high - low)),
            )
        )
    return tuple(rows)


def error_ratio(found: Sequence[tuple[str, str, float, OffPolicyEstimate]], ours: str, theirs: str, num_bootstrap: int = 2000) -> Interval:
    """RMSE of one estimator over another's, geometric mean over guides and logs, with a percentile bootstrap over seeds."""
    groups = list(dict.fromkeys((guide, size) for guide, size, _, _ in found))

    def squares(estimator: str) -> Floats:
        """(seeds, groups) squared errors."""
        return np.array([[(one.value - value) ** 2 for g, s, value, one in found if (g, s) == group and one.estimator == estimator] for group in groups]).T

    first, second = squares(ours), squares(theirs)
    num = len(first)
    drawn = np.random.Generator(np.random.Philox(key=sub_seed(0, "error ratio"))).integers(0, num, (num_bootstrap, num))
    ratios = np.exp(0.5 * np.log(first[drawn].mean(axis=1) / second[drawn].mean(axis=1)).mean(axis=1))
    low, high = (float(q) for q in np.quantile(ratios, [0.025, 0.975]))
    value = float(np.exp(0.5 * np.log(first.mean(axis=0) / second.mean(axis=0)).mean()))
    return Interval(value=value, low=low, high=high, n=num, clusters=num)


def open_bandit(folder: Path, seed: int = 0) -> tuple[BanditRow, ...]:
    """Each policy's click rate from the other one's log, a campaign at a time.

    A policy's chance of an item at a position is how often its own log shows it there: the sampling policy's own probabilities moved
    from hour to hour, and are known at the items it took only.
    """
    rows = []
    for campaign in sorted(path.name for path in (folder / "random").iterdir() if path.is_dir()):
        logs = {policy: _bandit_log(folder / policy / campaign / f"{campaign}.csv") for policy in ("random", "bts")}
        num_items = 1 + int(max(log["item_id"].max() for log in logs.values()))  # type: ignore[type-var, operator]
        for policy, other in (("bts", "random"), ("random", "bts")):
            own = logs[policy]["click"].to_numpy().astype(np.float64)
            on_policy = mean_interval(own, num_bootstrap=2000, seed=seed)
            for one in estimates(_choices(logs[other], _frequencies(logs[policy], num_items)), seed=seed):
                error = abs(one.value - on_policy.value) / on_policy.value
                rows.append(
                    BanditRow(
                        campaign=campaign,
                        policy=policy,
                        estimator=one.estimator,
                        value=one.value,
                        low=one.low,
                        high=one.high,
                        on_policy=on_policy,
                        relative_error=error,
                        ess=one.ess,
                    )
                )
    return tuple(rows)


def _bandit_log(path: Path) -> pl.DataFrame:
    return pl.read_csv(path, columns=["item_id", "position", "click", "propensity_score", *(f"user_feature_{k}" for k in range(4))])


def _frequencies(log: pl.DataFrame, num_items: int) -> Floats:
    """(P, A) share of each item among what the log shows at a position."""
    counts = np.zeros((int(log["position"].max()), num_items))  # type: ignore[arg-type]
    np.add.at(counts, (log["position"].to_numpy() - 1, log["item_id"].to_numpy()), 1)
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def _choices(log: pl.DataFrame, target_PA: Floats) -> LoggedChoices:
    positions = log["position"].to_numpy() - 1
    features = log.select(pl.col(f"user_feature_{k}") for k in range(4)).to_dummies().to_numpy().astype(np.float64)
    reward, propensity = log["click"].to_numpy().astype(np.float64), log["propensity_score"].to_numpy()
    return LoggedChoices(log["item_id"].to_numpy().astype(np.int64), positions.astype(np.int64), propensity, reward, target_PA[positions], features)


def as_markdown(found: OffPolicyStudy) -> str:
    lines = [
        "# Off-policy estimates beside the truth",
        "",
        f"`{found.command}`, {found.machine}, {found.date}; {found.seconds_a_seed:.1f} s a seed. {len(found.seeds)} shops (seeds {found.seeds[0]}-{found.seeds[-1]}) "
        f"of world_v1, each with its own products and shoppers; the truth of a guide is its mean over all AR sessions of the shop, {ROLLOUTS} runs of each. "
        f"Money in minor units a session. Held: share of shops whose 95 % interval holds the truth. Recommended: `{found.recommended}`.",
        "",
        *_conclusions(found),
    ]
    for guide, size in dict.fromkeys((row.guide, row.log) for row in found.rows):
        mine = [row for row in found.rows if (row.guide, row.log) == (guide, size)]
        lines += [
            "",
            f"## {guide[0].upper()}{guide[1:]}, {size}",
            "",
            f"{mine[0].sessions:,.0f} sessions, {mine[0].ess:,.0f} effective (median); true value {mine[0].truth:.1f}.",
            "",
            "| estimator | held | interval's width (median) | RMSE | median error |",
            "|---|---|---|---|---|",
            *(f"| {row.estimator} | {row.covered:.2f} | {row.width:.0f} | {row.rmse:.1f} | {row.median_error:.1f} |" for row in mine),
        ]
    return "\n".join([*lines, *_bandit_lines(found.bandit), ""])


def _conclusions(found: OffPolicyStudy) -> list[str]:
    """What the tables come to: coverage where the log can tell and where a warning says it cannot, and errors beside those of IPS."""
    return [*(_held(found, name) for name in dict.fromkeys((found.recommended, "dr"))), _errors(found)]


def _held(found: OffPolicyStudy, estimator: str) -> str:
    rows = [row for row in found.rows if row.estimator == estimator]
    parts = {"at least": [row.covered for row in rows if row.ess >= MIN_EFFECTIVE], "fewer than": [row.covered for row in rows if row.ess < MIN_EFFECTIVE]}
    said = [
        f"with {word} {MIN_EFFECTIVE:.0f} effective sessions (median) in {min(held):.2f} to {max(held):.2f} of the shops{', with a warning' if word != 'at least' else ''}"
        for word, held in parts.items()
        if held
    ]
    return f"`{estimator}` holds the truth {'; '.join(said)}; {np.mean([row.covered for row in rows]):.3f} over all tables."


def _errors(found: OffPolicyStudy) -> str:
    of = {(row.guide, row.log, row.estimator): row for row in found.rows}
    said = []
    for name, ratio in {found.recommended: found.recommended_over_ips, "dr": found.dr_over_ips}.items():
        shares = [row.rmse / of[row.guide, row.log, "ips"].rmse for row in found.rows if row.estimator == name]
        said.append(
            f"`{name}` is lower in {sum(one < 1 for one in shares)} of {len(shares)} tables ({min(shares):.2f} to {max(shares):.2f} of it; "
            f"geometric mean {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}], shops drawn again)"
        )
    return f"RMSE beside that of IPS: {'; '.join(said)}."


def _bandit_lines(rows: Sequence[BanditRow]) -> list[str]:
    if not rows:
        return []
    lines = [
        "",
        "## Open Bandit Dataset, small logs",
        "",
        "Click rate of a policy from the other one's log of 10,000 impressions, beside the mean of its own log (95 % intervals). Each log has 46 to 69 clicks, so",
        "chance decides relative errors; what the rows show is that intervals and own logs agree.",
        "",
        "| campaign | policy | own log | estimator | estimate | relative error | effective impressions |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        own, off = (
            f"{value:.4f} [{low:.4f}, {high:.4f}]"
            for value, low, high in ((row.on_policy.value, row.on_policy.low, row.on_policy.high), (row.value, row.low, row.high))
        )
        lines.append(f"| {row.campaign} | {row.policy} | {own} | {row.estimator} | {off} | {row.relative_error:.2f} | {row.ess:,.0f} |")
    return lines


@click.command()
@click.option("--seeds", default="1100-1199", show_default=True, callback=parse_seeds)
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), envvar="GUIDELENS_DATA", help="Folder that holds open-bandit/.")
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(seeds: tuple[int, ...], data: Path | None, out: Path) -> None:
    """Value guides from logs in one shop a seed, and write benchmarks/results/off_policy.{json,md}."""
    wanted, found, begun = guides(), [], time.monotonic()
    for number, seed in enumerate(seeds, 1):
        found += of_seed(seed, wanted)
        progress(f"seed {seed}: {number} of {len(seeds)} shops, {(time.monotonic() - begun) / number:.1f} s each")
    folder = data / "open-bandit" if data else None
    study = OffPolicyStudy(
        machine=machine(),
        date=today(),
        command=f"python -m benchmarks.off_policy --seeds {seeds[0]}-{seeds[-1]}{' --data DIR' if data else ''}",
        seeds=seeds,
        seconds_a_seed=round((time.monotonic() - begun) / len(seeds), 2),
        recommended=RECOMMENDED,
        dr_over_ips=error_ratio(found, "dr", "ips"),
        recommended_over_ips=error_ratio(found, RECOMMENDED, "ips"),
        rows=summed_up(found),
        bandit=open_bandit(folder) if folder and folder.is_dir() else (),
    )
    keep(study, as_markdown(study), out, "off_policy")


if __name__ == "__main__":
    run_command(command)
