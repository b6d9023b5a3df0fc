"""`guidelens catalogue`: bring a shop's products, all at once or one by one."""

import click

from pipelines.catalogue_add import add_command, remove_command
from pipelines.entry import run_command
from pipelines.import_folders import import_folders_command


@click.group(name="catalogue")
def command() -> None:
    """Bring products: folders of photos, or one product at a time without training."""


for each in (import_folders_command, add_command, remove_command):
    command.add_command(each)


if __name__ == "__main__":
    run_command(command)
