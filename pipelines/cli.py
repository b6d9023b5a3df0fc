"""The `guidelens` command. Verbs are imported only when they run, so that `--help` answers at once."""

import importlib

import click

from pipelines.entry import run_command

_VERBS: dict[str, tuple[str, str]] = {
    "doctor": ("pipelines.doctor", "Check this machine: versions, cores, GPUs, stores; a remedy for each problem."),
    "demo": ("pipelines.demo", "Run the whole loop, from raw files to served answers, and leave a report."),
    "ingest": ("pipelines.ingest", "Take catalogue, photos, shoppers, reviews and events into the lake."),
    "catalogue": ("pipelines.catalogue", "Bring products: folders of photos, or one product at a time without training."),
    "materialize": ("pipelines.materialize", "Compute point-in-time features and load the online store."),
    "features": ("pipelines.features", "Show the features' age, drift and origin; check online against offline."),
    "train": ("pipelines.train", "Fit the recognizer and the joint guide model; track the run."),
    "study": ("pipelines.study", "Try ways of learning the tasks together beside tuned single tasks."),
    "evaluate": ("pipelines.evaluate", "Measure a run or a released recognizer on data it has not seen."),
    "compare": ("pipelines.compare", "Show two runs side by side."),
    "release": ("pipelines.release", "Build a bundle of a run, register and gate it as challenger."),
    "promote": ("pipelines.promote", "Make a version the champion."),
    "rollback": ("pipelines.rollback", "Bring the previous champion back."),
    "serve": ("pipelines.serve_graph", "Serve a release over HTTP, with the page at /."),
    "config": ("pipelines.config_show", "Show what a preset and a home come to."),
    "forget": ("pipelines.forget", "Remove a shopper everywhere."),
    "keys": ("pipelines.keys", "Make a new key for pseudonyms and carry everything over to it."),
    "retention": ("pipelines.retention", "Remove what is older than its table's time."),
    "lake": ("pipelines.lake", "Describe the lake's tables."),
    "quarantine": ("pipelines.quarantine", "List, show and replay rejected records."),
    "review": ("pipelines.review", "Unknown frames: list, show, label, drop."),
    "world": ("pipelines.world", "Write a simulated shop's files, of any size, with the truth behind them."),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command: click.Command = importlib.import_module(_VERBS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, text) for name, (_, text) in _VERBS.items()])


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="guidelens")
def guidelens() -> None:
    """GuideLens: train, track, promote and serve an AR shopping guide.

    Logs go to stderr; the last line on stdout is one JSON object. Exit code 0 is success, 2 a caller's mistake, 1 anything else.
    """


def main() -> None:
    """Entry point of the console script."""
    run_command(guidelens)


if __name__ == "__main__":
    main()
