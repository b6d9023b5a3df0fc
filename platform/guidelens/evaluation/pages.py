"""What every page has: the templates, in which all text is escaped and what is missing is an error, and how figures are written."""

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from guidelens.evaluation.bootstrap import Interval
from guidelens.schemas.base import Frozen


class Headline(Frozen):
    """One big number, what it is, and what to hold it against."""

    label: str
    figure: str
    beside: str


def filled(template: str, filters: Mapping[str, Callable[..., str]] | None = None, **values: Any) -> str:
    """A self-contained page: no script, no font, no picture from elsewhere."""
    environment = Environment(
        loader=PackageLoader("guidelens.evaluation", "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"share": share, "interval": interval, "signed": signed, "number": number, **(filters or {})}
    return environment.get_template(template).render(**values)


def share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def interval(found: Interval, digits: int = 3) -> str:
    return f"{found.value:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def signed(found: Interval, digits: int = 3) -> str:
    return f"{found.value:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"
