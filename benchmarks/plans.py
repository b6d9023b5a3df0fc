"""What are learned plans worth? The joint model beside everything it must beat, in simulated shops, learned from their logs alone.

    python -m benchmarks.plans [--seeds 1000-1004] [--perturbed N | --parameters FILE] [--rollouts 4] [--out benchmarks/results]

A seed draws another shop, log and split. Each shop is drawn without photos (a plan is about a known product), its log is taken in, features
are made, and the joint model is fitted with the laptop preset. Values are of the test part's AR sessions, by the world's own account, on
common random numbers; means over seeds with 95 % intervals. `--perturbed` moves the constants of the world's guide process at random
(world/perturbation.py); `--parameters` reads a whole set from JSON. Development looked at sets 1 to 3, with seeds 4 to 6, and at no other.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from pydantic import ValidationError

from benchmarks._plan_worlds import BEAM, Valued, one_world
from benchmarks._results import keep, machine, today
from benchmarks.seeds import Figure, figure_of, parse_seeds
from guidelens.errors import ConfigError
from guidelens.presets import load
from guidelens.schemas.base import Frozen
from guidelens.world.parameters import WORLD_V1, WorldParameters
from guidelens.world.perturbation import perturbed
from pipelines.cluster import ray_session
from pipelines.entry import progress, run_command

NAMES = {
    "model": "the joint model",
    "small_fitted_q": "small decoder, the same target weights",
    "small_advantage": "small decoder, advantage-weighted log",
    "gru": "small decoder, imitation of the log (GRU)",
    "ngram": "n-gram over category, device, last two steps",
    "nearest": "nearest logged step, copied",
    "logging": "the guide that wrote the log",
    "script": "its script, without noise",
    "fixed": "best fixed plan per kind, found in the simulator",
    "reference": "reference (V_ref)",
    "oracle": "oracle, knows the shopper's mind",
}


class PlanStudy(Frozen):
    """closed_loop, open_loop, beam: minor units a session by policy. gain_over: of the model, closed loop, paired by seed. gap_closed: shares of
    reference - logging. scores: by policy and measure, means over seeds. counts: by seed."""

    machine: str
    date: str
    command: str
    parameters: WorldParameters
    seeds: tuple[int, ...]
    rollouts: int
    closed_loop: dict[str, Figure]
    open_loop: dict[str, Figure]
    beam: dict[str, Figure]
    gap_closed: dict[str, Figure]
    gain_over: dict[str, Figure]
    beam_over_greedy: dict[str, Figure]
    scores: dict[str, dict[str, float]]
    counts: tuple[dict[str, int], ...]


def study(seeds: Sequence[int], parameters: WorldParameters, rollouts: int, preset: str, line: str) -> PlanStudy:
    """One world a seed, one after another, in one Ray session."""
    found: list[Mapping[str, Valued]] = []
    counts = []
    with ray_session():
        for seed in seeds:
            valued, count = one_world(load(preset, seed=seed), parameters, rollouts)
            found.append(valued)
            counts.append(count)
            progress(f"seed {seed}: {count}, " + ", ".join(f"{name} {value.closed_loop:.1f}" for name, value in valued.items()))
    return PlanStudy(
        machine=machine(),
        date=today(),
        command=line,
        parameters=parameters,
        seeds=tuple(seeds),
        rollouts=rollouts,
        counts=tuple(counts),
        scores=_scores(found),
        **_figures(found),
    )


def _figures(found: Sequence[Mapping[str, Valued]]) -> dict[str, dict[str, Figure]]:
    closed = {name: [one[name].closed_loop for one in found] for name in found[0]}
    opened = {name: [one[name].open_loop or 0.0 for one in found] for name in found[0] if found[0][name].open_loop is not None}
    beam = {name: [one[name].beam or 0.0 for one in found] for name in found[0] if found[0][name].beam is not None}
    return {
        "closed_loop": {name: figure_of(values) for name, values in closed.items()},
        "open_loop": {name: figure_of(values) for name, values in opened.items()},
        "beam": {name: figure_of(values) for name, values in beam.items()},
        "gap_closed": {name: figure_of(_gaps(values, closed)) for name, values in closed.items() if name not in ("logging", "reference", "oracle")},
        "gain_over": {name: figure_of(_less(closed["model"], values)) for name, values in closed.items() if name != "model"},
        "beam_over_greedy": {name: figure_of(_less(values, opened[name])) for name, values in beam.items()},
    }


def _gaps(values: Sequence[float], closed: Mapping[str, Sequence[float]]) -> list[float]:
    return [(value - log) / (reference - log) for value, log, reference in zip(values, closed["logging"], closed["reference"], strict=True)]


def _less(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [one - other for one, other in zip(ours, theirs, strict=True)]


def _scores(found: Sequence[Mapping[str, Valued]]) -> dict[str, dict[str, float]]:
    measured = {name: [one[name].scores for one in found] for name in found[0] if found[0][name].scores is not None}
    rows = {name: [score.model_dump() for score in scores if score is not None] for name, scores in measured.items()}
    return {name: {key: sum(row[key] for row in each) / len(each) for key in each[0]} for name, each in rows.items()}


def as_markdown(found: PlanStudy) -> str:
    train, kept, test = (", ".join(f"{count[name]:,}" for count in found.counts) for name in ("train_sessions", "train_kept", "test_sessions"))
    lines = [
        f"# Plans in the simulated shop: {found.parameters.version}",
        "",
        f"`{found.command}`, {found.machine}, {found.date}. Seeds {', '.join(map(str, found.seeds))}: AR sessions to learn from {train}, of which kept a "
        f"purchase {kept}; to value on {test}, each simulated {found.rollouts} times. Minor units a session; 95 % intervals, Student's t over seeds.",
        "",
        "| policy | closed loop | by seed | gap closed | the model's gain over it | open loop | open loop, beam |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, label in NAMES.items():
        cells = [getattr(found, column).get(name) for column in ("gap_closed", "gain_over", "open_loop", "beam")]
        shares = [_cell(cells[0], 3), _cell(cells[1], 1), _cell(cells[2], 1), _cell(cells[3], 1)]
        value = found.closed_loop[name]
        lines.append(f"| {label} | {_cell(value, 1)} | {', '.join(f'{one:.0f}' for one in value.by_seed)} | {' | '.join(shares)} |")
    over = found.beam_over_greedy["model"]
    lines += ["", f"Beam search ({BEAM} plans kept) over greedy decoding, the model's open-loop plans: {_cell(over, 1)}.", ""]
    return "\n".join([*lines, *_likeness_table(found), ""])


def _likeness_table(found: PlanStudy) -> list[str]:
    """Likeness to the log, which is no aim of a plan that is to earn more than it."""
    measures = tuple(next(iter(found.scores.values())))
    lines = [
        "Beside the test part's logged plans. Free: plans made from the session's start alone, cut to the logged lengths. Forced: the likeliest next "
        "step after each logged history. Match: edit similarity. Distance: total variation of how often each step is taken, from the log.",
        "",
        "| policy | " + " | ".join(measure.replace("_", " ") for measure in measures) + " |",
        "|---" * (len(measures) + 1) + "|",
    ]
    for name, label in NAMES.items():
        if name in found.scores:
            lines.append(f"| {label} | " + " | ".join(f"{found.scores[name][measure]:.3f}" for measure in measures) + " |")
    return lines


def _cell(value: Figure | None, digits: int) -> str:
    return "" if value is None else f"{value.mean:.{digits}f} ({value.low:.{digits}f} to {value.high:.{digits}f})"


def _parameters(number: int | None, file: Path | None) -> WorldParameters:
    """The set asked for.

    Raises:
        ConfigError: two of them, or a file that holds none.
    """
    if number is not None and file is not None:
        raise ConfigError("--perturbed and --parameters must not be given together; each names a set of parameters")
    if number is not None:
        return perturbed(WORLD_V1, number)
    if file is None:
        return WORLD_V1
    try:
        return WorldParameters.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise ConfigError(f"--parameters must be JSON of WorldParameters (world/parameters.py), got {file}: {error}") from error


@click.command()
@click.option("--seeds", default="1000-1004", show_default=True, callback=parse_seeds)
@click.option("--perturbed", "number", default=None, type=click.IntRange(min=0), help="Seed of a perturbed set of the world's parameters.")
@click.option("--parameters", "file", default=None, type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A set of parameters as JSON.")
@click.option("--rollouts", default=4, show_default=True, type=click.IntRange(1), help="Simulated runs of each test session.")
@click.option("--preset", default="laptop", show_default=True)
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(seeds: tuple[int, ...], number: int | None, file: Path | None, rollouts: int, preset: str, out: Path) -> None:
    """Learn plans in simulated shops and write benchmarks/results/plans*.{json,md}."""
    named = f" --perturbed {number}" if number is not None else f" --parameters {file.name}" if file else ""
    line = f"python -m benchmarks.plans --seeds {','.join(map(str, seeds))}{named} --rollouts {rollouts} --preset {preset}"
    found = study(seeds, _parameters(number, file), rollouts, preset, line)
    keep(found, as_markdown(found), out, "plans" + (f"-perturbed-{number}" if number is not None else f"-{file.stem}" if file else ""))


if __name__ == "__main__":
    run_command(command)
