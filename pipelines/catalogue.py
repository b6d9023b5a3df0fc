"""`guidelens catalogue`: bring a shop's products, all at once or one by one."""

import click

from pipelines.entry import run_command
from pipelines.import_folders import import_folders_command


@click.group(name="catalogue")
def command() -> None:
    """Bring products: folders of photos, or one product at a time without training."""


command.add_command(import_folders_command)


if __name__ == "__main__":
    run_command(command)
