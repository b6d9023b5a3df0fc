"""`guidelens doctor`: is this machine, and this home, fit to run the loop; a remedy for each problem."""

import sys
from collections.abc import Iterator

import click

from guidelens.config import Config, Home
from guidelens.schemas.base import Frozen
from pipelines import doctor_machine, doctor_stores
from pipelines.doctor_machine import Finding
from pipelines.entry import config_options, emit, home_option, progress, run_command


class Problem(Frozen):
    subject: str
    problem: str
    remedy: str


class Diagnosis(Frozen):
    """`problems` keep the loop from running here; `notes` are optional parts that are not there, and what goes without them."""

    ok: bool
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]


def run(home: Home, config: Config, lake: str | None = None) -> Diagnosis:
    """Looks, starts nothing and writes nothing; a table for people goes to stderr."""
    findings = list(_findings(home, config, lake))
    for line in table(findings):
        progress(line)
    problems = tuple(Problem(subject=found.subject, problem=found.state, remedy=found.remedy) for found in findings if found.kind == "problem")
    notes = tuple(Problem(subject=found.subject, problem=found.state, remedy=found.remedy) for found in findings if found.kind == "note")
    return Diagnosis(ok=not problems, problems=problems, notes=notes)


def _findings(home: Home, config: Config, lake: str | None) -> Iterator[Finding]:
    yield doctor_machine.python_version()
    yield doctor_machine.packages()
    yield doctor_machine.code()
    yield doctor_machine.cores()
    yield doctor_machine.memory()
    yield doctor_machine.shared_memory()
    yield doctor_machine.gpus(wanted=config.train.use_gpu)
    yield from doctor_machine.programs()
    yield doctor_machine.port(8000)
    yield doctor_stores.home_folder(home)
    yield doctor_stores.disk(home)
    yield doctor_stores.lake(home, lake or home.lake_uri)
    yield doctor_stores.tracking(home)
    yield doctor_stores.online_store(home, config.features)


def table(findings: list[Finding]) -> Iterator[str]:
    """One line a finding, and the remedy under each that is not well."""
    marks = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}
    width = max(len(found.subject) for found in findings)
    for found in findings:
        yield f"{marks[found.kind]}  {found.subject:<{width}}  {found.state}"
        if found.kind != "ok":
            yield f"{'':7}  {'':{width}}  -> {found.remedy}"


@click.command()
@home_option
@config_options
@click.option("--lake", metavar="URI", default=None, help="A lake elsewhere than in the home, local or s3://.")
def command(home: Home, config: Config, lake: str | None) -> None:
    """Check this machine and this home; a remedy for each problem."""
    diagnosis = run(home, config, lake)
    emit(diagnosis)
    sys.exit(not diagnosis.ok)


if __name__ == "__main__":
    run_command(command)
