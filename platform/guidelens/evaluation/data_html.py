"""data.html: what a lake holds, with plots. Numbers come from data.description."""

from collections.abc import Iterator

from markupsafe import Markup

from guidelens.data.lake.description import LATE_H, DataDescription, EventsDescription, funnel
from guidelens.evaluation import data_plots as plots
from guidelens.evaluation.pages import Headline, filled, share

_SHOWN_RUNS = 30
_UNITS = ("B", "kB", "MB", "GB", "TB")


def render(data: DataDescription) -> str:
    """A self-contained page: no script, no font, no picture from elsewhere."""
    runs = [run for run in data.runs if run.counts][-_SHOWN_RUNS:]
    return filled(
        "data.html.j2", {"bytes": size}, data=data, headlines=list(_headlines(data)), plots=_plots(data), runs=runs, late=_late(data.events), funnel=funnel
    )


def size(num_bytes: int) -> str:
    """Bytes as people read them, in powers of 1,000."""
    if num_bytes < 1000:
        return f"{num_bytes} B"
    power = min(4, (len(str(num_bytes)) - 1) // 3)
    return f"{num_bytes / 1000**power:.1f} {_UNITS[power]}"


def _headlines(data: DataDescription) -> Iterator[Headline]:
    total = sum(table.size_bytes for table in data.tables.values())
    yield Headline(label="lake version", figure=str(data.manifest), beside=f"{size(total)} in {sum(table.files for table in data.tables.values()):,} files")
    if events := data.events:
        yield Headline(label="events", figure=f"{events.events:,}", beside=f"{events.days[0].date} to {events.days[-1].date}")
        yield Headline(
            label="shoppers seen", figure=f"{events.shoppers:,}", beside=f"{events.sessions:,} sessions, {share(events.anonymous_share)} of events anonymous"
        )
    if catalogue := data.catalogue:
        yield Headline(label="products", figure=f"{catalogue.products:,}", beside=f"{catalogue.labelled_photos:,} of {catalogue.photos:,} photos labelled")
    refused = sum(group.records for group in data.refused)
    yield Headline(label="in quarantine", figure=f"{refused:,}", beside=f"{len(data.refused)} rules broken" if refused else "nothing was refused")


def _plots(data: DataDescription) -> dict[str, Markup]:
    found = dict.fromkeys(("days", "hours", "filled", "categories", "photos"), "")
    if events := data.events:
        found["days"] = plots.daily(
            "events a day", [day.date for day in events.days], {kind: [day.events.get(kind, 0) for day in events.days] for kind in events.by_type}
        )
        found["hours"] = plots.counts("events by hour of day (UTC)", {f"{hour:02d}": count for hour, count in enumerate(events.by_hour)}, "events")
        found["filled"] = plots.shares("fields said by events of each type", events.filled)
    if catalogue := data.catalogue:
        found["categories"] = plots.counts("products by category", catalogue.categories, "products")
        found["photos"] = plots.counts("products by labelled photos", catalogue.photos_a_product, "products")
    return {name: Markup(svg) for name, svg in found.items()}


def _late(events: EventsDescription | None) -> list[tuple[str, float]]:
    if events is None:
        return []
    names = [f"{hours:g} h" if hours >= 1 else f"{hours * 60:g} min" for hours in LATE_H]
    return list(zip(names, events.late, strict=True))
