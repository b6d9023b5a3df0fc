"""MovieLens folders (Harper & Konstan, 2015) in any of their forms, RecBole's atomic files of them included.

    ml-100k                 u.data, u.item, u.user
    ml-1m, ml-10m           ratings.dat, movies.dat, users.dat (1m only)
    ml-20m, 25m, latest     ratings.csv, movies.csv, tags.csv (optional)
    RecBole                 NAME.inter, NAME.item, NAME.user

A rating is one event with its `rating`: a click where the film was liked (T1: LIKED or more), else a view; T2 is the rating itself.
`event_id` holds the row's number, so that splits by row can be drawn again. A session is a shopper's ratings of one UTC day. Each
rating within the contract of reviews (1 to 5; some forms go down to 0.5) is also a review without a text.
"""

import csv
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from guidelens.data.adapters.delimited import header_of, must, read_delimited, typed
from guidelens.data.adapters.source import AdaptedLog
from guidelens.errors import InputError
from guidelens.schemas.catalog import Product

LIKED = 4.0
_RATING = ("user", "item", "rating", "timestamp")
_TYPES: dict[str, type[pl.DataType]] = {"rating": pl.Float64, "timestamp": pl.Float64}
_AGES = ((18, "0-17"), (25, "18-24"), (35, "25-34"), (45, "35-44"), (50, "45-49"), (56, "50-55"), (200, "56+"))
_GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical",
    "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_NO_GENRE = ("(no genres listed)", "unknown")
_TAGS_SHOWN = 5


@dataclass(frozen=True)
class _Form:
    """Where a folder's ratings, films and shoppers lie, and how ratings are split into fields."""

    ratings: Path
    separator: str
    columns: tuple[str, ...]
    header_lines: int
    films: Callable[[], Iterator[tuple[str, str, list[str]]]]
    shoppers: Callable[[], pl.DataFrame] | None = None
    tags: Path | None = None


def load(path: Path) -> AdaptedLog:
    """The data set in `path`.

    Raises:
        InputError: the folder has none of the forms, or a table that belongs to its form is missing or broken.
    """
    form = _form(path)
    tags = _tags(form.tags)
    return AdaptedLog(
        products=tuple(_product(item, title, genres, tags.get(item, ())) for item, title, genres in form.films()),
        events=lambda: (_events(rows) for rows in _ratings(form)),
        shoppers=form.shoppers() if form.shoppers else None,
        reviews=lambda: (_reviews(rows) for rows in _ratings(form)),
    )


def _form(path: Path) -> _Form:
    if (path / "u.data").is_file():
        return _Form(path / "u.data", "\t", _RATING, 0, lambda: _films_100k(path / "u.item"), lambda: _people(path / "u.user", "|", (0, 1, 2, 4)))
    if (path / "ratings.dat").is_file():
        people = path / "users.dat"
        shoppers = (lambda: _people(people, "::", (0, 2, 1, 4))) if people.is_file() else None
        return _Form(path / "ratings.dat", "::", _RATING, 0, lambda: _films_dat(path / "movies.dat"), shoppers)
    if (path / "ratings.csv").is_file():
        header_of(path / "ratings.csv", ",", ("userId", "movieId", "rating", "timestamp"))
        tags = path / "tags.csv"
        return _Form(path / "ratings.csv", ",", _RATING, 1, lambda: _films_csv(path / "movies.csv"), tags=tags if tags.is_file() else None)
    atomic = sorted(path.glob("*.inter"))
    if len(atomic) == 1:
        return _recbole(atomic[0])
    raise InputError(f"--path must be a MovieLens folder (with u.data, ratings.dat, ratings.csv or one .inter file), got {path}")


def _recbole(ratings: Path) -> _Form:
    """Tab-separated with a header of `name:type`."""
    header = [name.split(":")[0] for name in header_of(ratings, "\t", ("user_id:token", "item_id:token", "rating:float", "timestamp:float"))]
    renamed = {"user_id": "user", "item_id": "item"}
    people = ratings.with_suffix(".user")
    shoppers = (lambda: _people_recbole(people)) if people.is_file() else None
    return _Form(ratings, "\t", tuple(renamed.get(name, name) for name in header), 1, lambda: _films_recbole(ratings.with_suffix(".item")), shoppers)


def _ratings(form: _Form) -> Iterator[pl.DataFrame]:
    """user, item (text), rating (float64), event_ts and row (from 1)."""
    for block in read_delimited(form.ratings, form.separator, form.columns, form.header_lines):
        rows = typed(block.select("line", *_RATING), form.ratings, _TYPES)
        must(rows, form.ratings, "rating", (pl.col("rating") > 0) & (pl.col("rating") <= 5), "above 0 and at most 5")
        moment = (pl.col("timestamp") * 1_000_000).cast(pl.Int64).cast(pl.Datetime("us", "UTC"))
        yield rows.with_columns(event_ts=moment, row=pl.col("line") - form.header_lines)


def _events(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(
        pl.format("r-{}", pl.col("row").cast(pl.String).str.zfill(9)).alias("event_id"),
        "event_ts",
        pl.format("u-{}", "user").alias("shopper_id"),
        pl.format("u-{}-{}", "user", pl.col("event_ts").dt.strftime("%Y%m%d")).alias("session_id"),
        pl.when(pl.col("rating") >= LIKED).then(pl.lit("click")).otherwise(pl.lit("view")).alias("type"),
        pl.format("m-{}", "item").alias("product_id"),
        "rating",
    )


def _reviews(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(pl.col("rating") >= 1).select(
        pl.format("r-{}", pl.col("row").cast(pl.String).str.zfill(9)).alias("review_id"),
        pl.format("m-{}", "item").alias("product_id"),
        pl.format("u-{}", "user").alias("shopper_id"),
        pl.col("event_ts").alias("ts"),
        "rating",
    )


def _product(item: str, title: str, genres: list[str], tags: tuple[str, ...]) -> Product:
    year = title[-5:-1] if title.endswith(")") and title[-5:-1].isdigit() else None
    return Product(
        product_id=f"m-{item}",
        title=title or f"Film {item}",
        description=", ".join((*genres, *tags)),
        category="/".join(["film", *genres[:1]]),
        attributes={"genres": genres, **({"year": int(year)} if year else {})},
        facts={"tags": list(tags)} if tags else {},
    )


def _lines(file: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    try:
        text = file.read_text(encoding=encoding, errors="replace")
    except OSError as error:
        raise InputError(f"--path must be a whole MovieLens folder with {file.name}, got {file.parent}: {error.strerror}") from error
    return ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())


def _fields(file: Path, number: int, line: str, separator: str, least: int) -> list[str]:
    fields = [field.strip() for field in line.rstrip("\r").split(separator)]
    if len(fields) < least:
        raise InputError(f"{file}, line {number}: must hold {least} fields split by {separator!r}, got {line[:80]!r}; fetch the data set again")
    return fields


def _films_100k(file: Path) -> Iterator[tuple[str, str, list[str]]]:
    for number, line in _lines(file, "latin-1"):
        fields = _fields(file, number, line, "|", 5 + len(_GENRES_100K))
        yield fields[0], fields[1], [genre for genre, flag in zip(_GENRES_100K[1:], fields[6:], strict=False) if flag == "1"]


def _films_dat(file: Path) -> Iterator[tuple[str, str, list[str]]]:
    """ml-1m is Latin-1, ml-10m UTF-8; titles may hold a colon pair."""
    raw = "utf-8" if _is_utf8(file) else "latin-1"
    for number, line in _lines(file, raw):
        fields = _fields(file, number, line, "::", 3)
        yield fields[0], "::".join(fields[1:-1]), _genres(fields[-1])


def _films_csv(file: Path) -> Iterator[tuple[str, str, list[str]]]:
    header_of(file, ",", ("movieId", "title", "genres"))
    with file.open(newline="", encoding="utf-8-sig") as lines:
        for row in csv.DictReader(lines):
            if not row["movieId"] or row["genres"] is None:
                raise InputError(f"{file}: each row must hold movieId, title and genres, got {row}; fetch the data set again")
            yield row["movieId"], row["title"].strip(), _genres(row["genres"])


def _films_recbole(file: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Genres stand under `class` or, in some of the data sets, `genre`."""
    header = header_of(file, "\t", ("item_id:token", "movie_title:token_seq", "release_year:token"))
    under = next((name for name in ("class:token_seq", "genre:token_seq") if name in header), None)
    if under is None:
        raise InputError(f"{file}: the first line must name class:token_seq or genre:token_seq, got {' '.join(header)[:80]!r}; fetch the data set again")
    places = [header.index(name) for name in ("item_id:token", "movie_title:token_seq", "release_year:token", under)]
    for number, line in _lines(file):
        if number > 1:
            fields = _fields(file, number, line, "\t", len(header))
            item, title, year, genres = (fields[place] for place in places)
            yield item, f"{title} ({year})" if year.isdigit() else title, [] if genres in _NO_GENRE else genres.split()


def _people_recbole(file: Path) -> pl.DataFrame:
    names = ("user_id:token", "age:token", "gender:token", "zip_code:token")
    header = header_of(file, "\t", names)
    user, age, gender, zip_code = (header.index(name) for name in names)
    return _people(file, "\t", (user, age, gender, zip_code), header_lines=1)


def _genres(joined: str) -> list[str]:
    return [] if joined in _NO_GENRE else [genre for genre in joined.split("|") if genre]


def _is_utf8(file: Path) -> bool:
    try:
        file.read_bytes().decode("utf-8")
    except (UnicodeDecodeError, OSError):
        return False
    return True


def _people(file: Path, separator: str, places: tuple[int, int, int, int], header_lines: int = 0) -> pl.DataFrame:
    """places: of id, age (in years, or the lowest of a band), gender and zip code."""
    people = []
    for number, line in _lines(file):
        if number <= header_lines:
            continue
        fields = _fields(file, number, line, separator, max(places) + 1)
        user, age, gender, zip_code = (fields[place] for place in places)
        if not age.isdigit():
            raise InputError(f"{file}, line {number}: age must be a whole number, got {age!r}; fetch the data set again")
        band = next(name for below, name in _AGES if int(age) < below)
        people.append({"shopper_id": f"u-{user}", "age_band": band, "gender": gender.lower() or None, "region": zip_code[:1] or None})
    return pl.DataFrame(people, schema=dict.fromkeys(("shopper_id", "age_band", "gender", "region"), pl.String))


def _tags(file: Path | None) -> dict[str, tuple[str, ...]]:
    """The most used tags of each film, in lower case."""
    if file is None:
        return {}
    header_of(file, ",", ("movieId", "tag"))
    used: defaultdict[str, Counter[str]] = defaultdict(Counter)
    with file.open(newline="", encoding="utf-8-sig") as lines:
        for row in csv.DictReader(lines):
            if row["movieId"] and row["tag"]:
                used[row["movieId"]][row["tag"].strip().lower()] += 1
    return {item: tuple(tag for tag, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:_TAGS_SHOWN]) for item, counts in used.items()}
