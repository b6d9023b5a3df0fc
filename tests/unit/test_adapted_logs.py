"""Published logs as the contracts see them, from tiny folders in each data set's own format."""

import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from adapted_folders import FORMS, HEADER, USER, impression, write_bandit, write_beauty

from guidelens.config import S3Options
from guidelens.data.adapters import load
from guidelens.data.adapters.delimited import read_delimited
from guidelens.data.pseudonyms import Pseudonymizer
from guidelens.data.records.sources import IngestSources, Kind, chunks_of, record_files
from guidelens.data.records.validation import Checker, checked_tables
from guidelens.errors import InputError


@pytest.fixture
def bandit(tmp_path: Path) -> Path:
    return write_bandit(tmp_path / "obd")


@pytest.fixture
def beauty(tmp_path: Path) -> Path:
    return write_beauty(tmp_path / "beauty")


def _refused(sources: IngestSources, keys: Path) -> list[tuple[str, str]]:
    """What the checks that every shop's files pass through refuse of these."""
    found = []
    for kind in (Kind.CATALOGUE, Kind.SHOPPERS, Kind.REVIEWS, Kind.EVENTS):
        chunks = chunks_of(record_files(kind, sources.files_of(kind), S3Options()), 1 << 22, S3Options())
        checker = Checker(kind, Pseudonymizer.open(keys), datetime(2026, 1, 1, tzinfo=UTC))
        for chunk in chunks:
            for table in checked_tables(chunk, checker, S3Options()):
                rules = table["rule"].drop_null().to_pylist()
                found += [(str(kind), rule) for rule in rules]
    return found


def _events(name: str, folder: Path, out: Path) -> pl.DataFrame:
    return pl.read_parquet(load(name, folder).write(out).events[0])


def test_all_that_adapters_write_follows_the_contracts(bandit: Path, beauty: Path, tmp_path: Path) -> None:
    folders = [("open-bandit", bandit), ("amazon-beauty", beauty)]
    for form, make in FORMS.items():
        (tmp_path / form).mkdir()
        make(tmp_path / form)
        folders.append(("movielens", tmp_path / form))
    for number, (name, folder) in enumerate(folders):
        assert _refused(load(name, folder).write(tmp_path / f"out-{number}"), tmp_path / "keys") == []


def test_bandit_impressions_keep_policy_place_propensity_and_click(bandit: Path, tmp_path: Path) -> None:
    events = _events("open-bandit", bandit, tmp_path / "out")
    shown = events.filter(pl.col("type") == "impression")
    assert shown.select("request_id", "product_id", "position", "propensity", "release").rows() == [
        ("random-men-1", "men-1", 3, 0.5, "random"),
        ("random-men-2", "men-0", 1, 0.5, "random"),
        ("bts-men-1", "men-1", 3, 0.03, "bts"),
        ("bts-men-2", "men-0", 1, 0.03, "bts"),
    ]
    clicked = events.filter(pl.col("type") == "click")
    assert clicked.select("request_id", "product_id", "propensity").rows() == [("random-men-2", "men-0", None), ("bts-men-2", "men-0", None)]
    assert shown["event_ts"].dt.strftime("%H:%M:%S%.6f").to_list()[0] == "00:00:13.442536"


def test_a_bandit_shopper_is_all_with_the_same_hashed_features(bandit: Path, tmp_path: Path) -> None:
    sources = load("open-bandit", bandit).write(tmp_path / "out")
    assert sources.shoppers is not None
    shoppers = pl.read_parquet(sources.shoppers)
    assert shoppers.select("gender", "age_band", "region", "body").rows() == [tuple(USER)]
    assert set(pl.read_parquet(sources.events[0])["shopper_id"]) == set(shoppers["shopper_id"])


def test_beauty_sequences_keep_their_order_and_end_on_one_day(beauty: Path, tmp_path: Path) -> None:
    events = _events("amazon-beauty", beauty, tmp_path / "out").sort("shopper_id", "event_ts")
    days = events.select("shopper_id", "product_id", pl.col("event_ts").dt.date().cast(pl.String)).rows()
    assert days == [
        ("b-1", "b-1", "2014-07-20"),
        ("b-1", "b-2", "2014-07-21"),
        ("b-1", "b-3", "2014-07-22"),
        ("b-2", "b-3", "2014-07-21"),
        ("b-2", "b-1", "2014-07-22"),
    ]


def test_a_beauty_brand_is_what_is_never_anywhere_else_than_first(beauty: Path, tmp_path: Path) -> None:
    catalogue = load("amazon-beauty", beauty).write(tmp_path / "out").catalogue
    assert catalogue is not None
    products = [json.loads(line) for line in Path(catalogue).read_text().splitlines()]
    # 4 comes second elsewhere, so it is a category where it comes first.
    assert [(row.get("brand"), row["category"]) for row in products] == [
        ("brand 9", "beauty/category 4/category 5"),
        (None, "beauty/category 4/category 5"),
        (None, "beauty"),
    ]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_movielens_gives_the_same_ratings(form: str, tmp_path: Path) -> None:
    (tmp_path / form).mkdir()
    FORMS[form](tmp_path / form)
    sources = load("movielens", tmp_path / form).write(tmp_path / "out")
    events = pl.read_parquet(sources.events[0])
    assert events.select("event_id", "shopper_id", "product_id", "type", "rating", "session_id").rows() == [
        ("r-000000001", "u-1", "m-10", "click", 4.0, "u-1-19970922"),
        ("r-000000002", "u-1", "m-20", "view", 3.0, "u-1-19970922"),
        ("r-000000003", "u-2", "m-10", "view", 0.5, "u-2-19970922"),
    ]
    assert sources.reviews is not None
    assert pl.read_parquet(sources.reviews)["rating"].to_list() == [4.0, 3.0], "a review's rating is at least 1"
    assert sources.catalogue is not None
    films = [json.loads(line) for line in Path(sources.catalogue).read_text().splitlines()]
    assert [(film["product_id"], film["title"], film["category"]) for film in films] == [("m-10", "Café (1995)", "film/Comedy"), ("m-20", "Untagged", "film")]
    assert films[0]["attributes"]["year"] == 1995
    if sources.shoppers:
        shoppers = pl.read_parquet(sources.shoppers).rows()
        assert shoppers == [("u-1", "18-24", "m", "8"), ("u-2", "56+", "f", "9")]


def test_movielens_tags_are_shown_most_used_first(tmp_path: Path) -> None:
    FORMS["latest"](tmp_path)
    catalogue = load("movielens", tmp_path).write(tmp_path / "out").catalogue
    assert catalogue is not None
    assert json.loads(Path(catalogue).read_text().splitlines()[0])["facts"] == {"tags": ["paris", "love"]}


@pytest.mark.parametrize(
    ("name", "file", "text", "message"),
    [
        ("open-bandit", "bts/men/men.csv", HEADER + impression(0, 1, 4, 0, "0.5"), r"men\.csv, line 2: position must be 1 to 3, got 4"),
        ("open-bandit", "bts/men/men.csv", HEADER + impression(0, 1, 3, 0, "0.0"), "propensity_score must be above 0"),
        ("open-bandit", "bts/men/men.csv", HEADER + "0,2019-11-24", "must hold 11 fields"),
        ("open-bandit", "bts/men/men.csv", HEADER.replace("click", "clock"), "without click"),
        ("open-bandit", "bts/men/men.csv", HEADER + impression(0, 1, 3, 0, "0.5").replace("2019-11-24", "yesterday"), "timestamp must be a time like"),
        ("open-bandit", "bts/men/item_context.csv", "item\n", "without item_id"),
        ("amazon-beauty", "Beauty.txt", "1 1 2\n1 2 3\n", "line 2: must hold one new shopper"),
        ("amazon-beauty", "Beauty.txt", "1 1 77\n", "got 77; fetch both files"),
        ("amazon-beauty", "Beauty.txt", "1 one\n", "item numbers, got '1 one"),
        ("amazon-beauty", "Beauty_item2attributes.json", "[1]", "must be a JSON object"),
    ],
)
def test_a_broken_data_set_is_refused_by_file_line_and_rule(name: str, file: str, text: str, message: str, bandit: Path, beauty: Path, tmp_path: Path) -> None:
    folder = {"open-bandit": bandit, "amazon-beauty": beauty}[name]
    (folder / file).write_text(text)
    with pytest.raises(InputError, match=message):
        load(name, folder).write(tmp_path / "out")


@pytest.mark.parametrize("name", ["open-bandit", "amazon-beauty", "movielens"])
def test_a_folder_that_is_not_the_data_set_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--path must be"):
        load(name, tmp_path)


@pytest.mark.parametrize(("file", "form"), [("u.item", "100k"), ("movies.dat", "1m"), ("movies.csv", "latest"), ("ml.item", "recbole")])
def test_movielens_without_its_films_is_refused(file: str, form: str, tmp_path: Path) -> None:
    FORMS[form](tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(InputError, match=file):
        load("movielens", tmp_path)


def test_atomic_files_are_read_by_the_names_of_their_columns(tmp_path: Path) -> None:
    FORMS["recbole"](tmp_path)
    (tmp_path / "ml.item").write_text(
        "release_year:token\tgenre:token_seq\titem_id:token\tmovie_title:token_seq\n"
        "1995\tComedy Sci-Fi\t10\tCafé\nunkonwn\tunknown\t20\tunkonwn\nV\t(no genres listed)\t30\tPart (1995)\n"
    )
    (tmp_path / "ml.user").write_text("gender:token\tuser_id:token\tzip_code:token\tage:token\nM\t1\t85711\t24\n")
    sources = load("movielens", tmp_path).write(tmp_path / "out")
    assert sources.catalogue is not None and sources.shoppers is not None
    films = [json.loads(line) for line in Path(sources.catalogue).read_text().splitlines()]
    assert [(film["product_id"], film["title"], film["category"], film["attributes"].get("year")) for film in films] == [
        ("m-10", "Café (1995)", "film/Comedy", 1995),
        ("m-20", "unkonwn", "film", None),
        ("m-30", "Part (1995)", "film", 1995),
    ]
    assert pl.read_parquet(sources.shoppers).rows() == [("u-1", "18-24", "m", "8")]


@pytest.mark.parametrize(
    ("file", "header", "message"),
    [
        ("ml.inter", "user_id:token\titem_id:token\ttimestamp:float", "without rating:float"),
        ("ml.item", "item_id:token\tmovie_title:token_seq\trelease_year:token", "class:token_seq or genre:token_seq"),
        ("ml.item", "item_id:token\tclass:token_seq\trelease_year:token", "without movie_title:token_seq"),
        ("ml.user", "user_id:token\tage:token\tgender:token", "without zip_code:token"),
    ],
)
def test_an_atomic_file_without_a_column_is_refused(file: str, header: str, message: str, tmp_path: Path) -> None:
    FORMS["recbole"](tmp_path)
    (tmp_path / file).write_text(header + "\n")
    with pytest.raises(InputError, match=message):
        load("movielens", tmp_path)


def test_a_rating_that_is_no_number_is_refused_with_its_line(tmp_path: Path) -> None:
    FORMS["100k"](tmp_path)
    with (tmp_path / "u.data").open("a") as sink:
        sink.write("3\t10\tgood\t874965758\n")
    with pytest.raises(InputError, match=r"line 4: rating must be a number, got 'good'"):
        load("movielens", tmp_path).write(tmp_path / "out")


def test_blocks_of_any_size_give_the_same_rows(tmp_path: Path) -> None:
    file = tmp_path / "table"
    file.write_text("a\tb\n" + "".join(f"{row}\té{row}\n" for row in range(50)) + "\nlast\tone")
    whole = pl.concat(read_delimited(file, "\t", ("first", "second"), header_lines=1))
    assert whole.height == 51
    assert whole.row(-1) == (53, "last", "one")
    for block_bytes in (1, 7, 64):
        assert pl.concat(read_delimited(file, "\t", ("first", "second"), header_lines=1, block_bytes=block_bytes)).equals(whole)


@pytest.mark.shared_data
def test_the_real_bandit_logs_are_complete(shared_data: Path, tmp_path: Path) -> None:
    events = _events("open-bandit", shared_data / "open-bandit", tmp_path)
    by_log = events.with_columns(campaign=pl.col("product_id").str.split("-").list.first()).group_by("release", "campaign", "type").len()
    counted = {(release, campaign, kind): number for release, campaign, kind, number in by_log.rows()}
    clicks = {("random", "men"): 46, ("random", "women"): 46, ("bts", "men"): 69, ("bts", "women"): 46}
    assert counted == {(*log, kind): number for log, found in clicks.items() for kind, number in (("click", found), ("impression", 10_000))}
    assert _refused(load("open-bandit", shared_data / "open-bandit").write(tmp_path), tmp_path / "keys") == []
    uniform = events.filter((pl.col("release") == "random") & (pl.col("type") == "impression"))
    assert uniform["propensity"].round(6).unique().sort().to_list() == [round(1 / 46, 6), round(1 / 34, 6)]


@pytest.mark.shared_data
def test_the_real_beauty_sequences_can_be_read_back_from_the_events(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "amazon-beauty"
    events = _events("amazon-beauty", folder, tmp_path)
    assert (events.height, events["shopper_id"].n_unique(), events["product_id"].n_unique()) == (198_502, 22_363, 12_101)
    read_back = events.sort("shopper_id", "event_ts").group_by("shopper_id", maintain_order=True).agg("product_id")
    lines = {
        f"b-{user} " + " ".join(f"b-{item}" for item in items) for user, *items in (line.split() for line in (folder / "Beauty.txt").read_text().splitlines())
    }
    assert {f"{shopper} {' '.join(items)}" for shopper, items in read_back.rows()} == lines
    days = events.group_by(pl.col("event_ts").dt.date()).len().sort("event_ts")["len"].to_list()
    assert days[-2:] == [22_363, 22_363], "test and validation items are the last two days"
