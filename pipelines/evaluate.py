"""`guidelens evaluate`: measures a run on the test split of its own data, beside baselines, and leaves the report in the run."""

import importlib
from pathlib import Path

import click

from guidelens.config import Config, Home
from guidelens.evaluation.report import Report, write_report
from guidelens.schemas.base import Frozen
from pipelines.entry import emit, home_option, progress, run_command

REPORT = "report"
_SUBCOMMANDS = {
    "run": ("pipelines.evaluate", "run_command_of"),
    "recognizer": ("pipelines.evaluate_recognizer", "recognizer_command"),
    "compare": ("pipelines.compare", "command"),
    "rolling": ("pipelines.rolling", "rolling_command"),
}


class EvaluateResult(Frozen):
    """`report`: path of report.json, with report.html beside it; also kept in the run as artifact `report`."""

    report: str
    metrics: dict[str, float]


def run(home: Home, run_id: str, world: Path | None = None, config: Config | None = None) -> EvaluateResult:
    """Measures a run's test split and logs report and metrics to the run.

    Args:
        world: folder of the simulated shop the log came from; plan values are measured there. Without it only the
            off-policy estimates say what plans are worth.
        config: the run's own where None; only its `evaluate` part and seed are read.

    Raises:
        NotFoundError: there is no such run, or its examples are gone.
        InputError: the run did not finish.
    """
    from pipelines.measure import measure
    from pipelines.run_files import open_run

    out = home.work / run_id / REPORT
    with open_run(home, run_id) as files:
        report = measure(files, world, config or files.record.config)
        path = write_report(report, out)
        files.registry.log_metrics(run_id, report.metrics())
        files.registry.log_folder(run_id, out, REPORT)
    _tell(report)
    return EvaluateResult(report=str(path), metrics=report.metrics())


def _tell(report: Report) -> None:
    for name, value in report.metrics().items():
        progress(f"  {name:34s} {value:.4f}")
    for section, why in report.absent.items():
        progress(f"  {section}: absent, {why}")


class _Evaluate(click.Group):
    """`evaluate --run RUN` measures a run; what else can be evaluated is a command of its own, imported when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _SUBCOMMANDS:
            return None
        module, name = _SUBCOMMANDS[cmd_name]
        found: click.Command = getattr(importlib.import_module(module), name)
        return found


_run = click.option("--run", "run_id", metavar="RUN", help="MLflow run id, as `guidelens train` prints it.")
_world = click.option("--world", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of the simulated shop that the log came from.")


@click.group(name="evaluate", cls=_Evaluate, invoke_without_command=True)
@_run
@_world
@home_option
@click.pass_context
def command(context: click.Context, run_id: str | None, world: Path | None, home: Home) -> None:
    """Measure a run on data it has not seen, beside the classic recommenders and single-task models.

    Leaves report.json and report.html in the home and in the run.
    """
    if context.invoked_subcommand is not None:
        return
    if run_id is None:
        raise click.UsageError("evaluate needs --run RUN, or one of the commands " + ", ".join(_SUBCOMMANDS))
    emit(run(home, run_id, world))


@click.command(name="run")
@click.option("--run", "run_id", required=True, metavar="RUN", help="MLflow run id, as `guidelens train` prints it.")
@_world
@home_option
def run_command_of(run_id: str, world: Path | None, home: Home) -> None:
    """Measure a run: the long form of `guidelens evaluate --run RUN`."""
    emit(run(home, run_id, world))


if __name__ == "__main__":
    run_command(command)
