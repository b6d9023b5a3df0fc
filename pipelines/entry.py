"""What every verb shares: the home, the preset, the last JSON line, exit codes. The only reader of the environment."""

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import SecretStr, ValidationError

from guidelens.config import Config, Home, IngestConfig, S3Options
from guidelens.errors import CallerError, ConfigError, GuideLensError
from guidelens.schemas.base import Frozen
from pipelines.cluster import in_job, refuse_foreign_code

Command = TypeVar("Command", bound=Callable[..., Any])


def home_option(function: Command) -> Command:
    """`--home DIR`, else GUIDELENS_HOME, else .guidelens; handed on as an absolute `Home`."""
    return click.option(
        "--home",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="GUIDELENS_HOME",
        default=Path(".guidelens"),
        show_default=True,
        help="Where all state lives.",
        callback=lambda _context, _option, value: open_home(value),
    )(function)


def open_home(root: Path) -> Home:
    """The home at `root`, with the S3 options of the environment. Nothing is created.

    Raises:
        ConfigError: a relative path inside a Ray job, whose working_dir is deleted with all that was written to it.
    """
    if in_job() and not root.expanduser().is_absolute():
        raise ConfigError(f"a job must be given an absolute --home (or GUIDELENS_HOME) that its nodes share, got {root}")
    return Home(root=root.expanduser().absolute(), s3=s3_options(), kafka=kafka_settings())


def s3_options() -> S3Options:
    """How to reach S3, as the environment says.

    Raises:
        ConfigError: GUIDELENS_S3_SSE or GUIDELENS_S3_KMS_KEY_ID ask for an encryption that S3 does not have.
    """
    try:
        return _s3_options()
    except ValidationError as error:
        raise ConfigError(f"GUIDELENS_S3_SSE must be AES256 or aws:kms, and aws:kms with GUIDELENS_S3_KMS_KEY_ID: {error.errors()[0]['msg']}") from error


def _s3_options() -> S3Options:
    return S3Options(
        endpoint_url=os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"),
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        access_key=os.environ.get("AWS_ACCESS_KEY_ID"),
        secret_key=os.environ.get("AWS_SECRET_ACCESS_KEY"),
        sse=os.environ.get("GUIDELENS_S3_SSE") or None,
        sse_kms_key_id=os.environ.get("GUIDELENS_S3_KMS_KEY_ID") or None,
    )


def kafka_settings() -> dict[str, SecretStr]:
    """librdkafka's settings by their own names: GUIDELENS_KAFKA_SASL_PASSWORD is `sasl.password`."""
    prefix = "GUIDELENS_KAFKA_"
    return {name.removeprefix(prefix).lower().replace("_", "."): SecretStr(value) for name, value in os.environ.items() if name.startswith(prefix)}


def config_options(function: Command) -> Command:
    """`--preset`, `--set a.b=v` (repeatable) and `--seed`, handed on as `config`."""

    from guidelens import presets

    def build(context: click.Context, _option: click.Parameter, value: str) -> Config:
        settings = context.params.pop("settings", None) or ()
        seed = context.params.pop("seed", None)
        return presets.load(value, settings, **({} if seed is None else {"seed": seed}))

    function = click.option(
        "--preset", "config", type=click.Choice(list(presets.PRESETS)), default="laptop", show_default=True, help="Named configuration.", callback=build
    )(function)
    function = click.option(
        "--set", "settings", multiple=True, metavar="A.B=V", is_eager=True, help="Change one setting of the preset; repeatable.", expose_value=True
    )(function)
    return click.option("--seed", type=click.IntRange(min=0), default=None, is_eager=True, help="Seed of everything random.")(function)


def rename_option(function: Command) -> Command:
    """`--rename OLD=NEW` (repeatable), handed on as `rename`."""

    def parse(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
        pairs = [pair.partition("=") for pair in given]
        for old, _, new in pairs:
            if not (old and new):
                raise click.BadParameter(f"must look like OLD=NEW, such as uid=shopper_id, got {old!r}")
        return {old: new for old, _, new in pairs}

    return click.option("--rename", multiple=True, metavar="OLD=NEW", help="Read a field under the name its files give it; repeatable.", callback=parse)(
        function
    )


def with_renames(config: Config, rename: dict[str, str]) -> Config:
    """The config with these added to `ingest.rename`.

    Raises:
        ConfigError: no contract has such a field.
    """
    settings = config.ingest.model_dump() | {"rename": {**config.ingest.rename, **rename}}
    try:
        return config.model_copy(update={"ingest": IngestConfig.model_validate(settings)})
    except ValidationError as error:
        raise ConfigError(str(error.errors()[0]["ctx"]["error"])) from error


def progress(message: str) -> None:
    """A line for people, on stderr."""
    click.echo(message, err=True)


_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}
"""What JSON leaves as it is and some readers take for the end of a line."""


def emit(result: Frozen | dict[str, Any]) -> None:
    """The last line on stdout: one JSON object saying where the result is."""
    payload = result.model_dump(mode="json") if isinstance(result, Frozen) else result
    click.echo(json.dumps(payload, ensure_ascii=False).translate(_LINE_ENDS))


def run_command(command: click.Command) -> None:
    """Runs a verb and exits: 0 success, 2 a caller's mistake (message on stderr), 1 anything else."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    try:
        refuse_foreign_code()
        command.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show(sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except CallerError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    except GuideLensError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
