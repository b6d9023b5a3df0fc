"""Tiny data sets in the published ones' own formats, for tests of the adapters."""

import json
from collections.abc import Callable
from pathlib import Path

USER = [f"{letter * 32}" for letter in "abcd"]
HEADER = ",timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1,user_feature_2,user_feature_3,user-item_affinity_0\n"
ITEMS = ",item_id,item_feature_0,item_feature_1,item_feature_2,item_feature_3\n0,0,-0.6,{0}1,{0}2,{0}3\n1,1,0.4,{0}1,{0}2,{0}4\n"


def impression(number: int, item: int, position: int, click: int, propensity: str) -> str:
    return f"{number},2019-11-24 00:0{number}:13.442536+00:00,{item},{position},{click},{propensity},{','.join(USER)},0.0\n"


def write_bandit(root: Path) -> Path:
    for policy, propensity in (("random", "0.5"), ("bts", "0.03")):
        folder = root / policy / "men"
        folder.mkdir(parents=True)
        (folder / "item_context.csv").write_text(ITEMS.format(policy))
        (folder / "men.csv").write_text(HEADER + impression(0, 1, 3, 0, propensity) + impression(1, 0, 1, 1, propensity))
    return root


def write_beauty(folder: Path) -> Path:
    folder.mkdir()
    (folder / "Beauty.txt").write_text("1 1 2 3\n2 3 1\n")
    (folder / "Beauty_item2attributes.json").write_text(json.dumps({"1": [9, 4, 5], "2": [4, 5], "3": []}))
    return folder


RATINGS = [("1", "10", "4", "874965758"), ("1", "20", "3", "874965759"), ("2", "10", "0.5", "874965760")]


def _ml_100k(folder: Path) -> None:
    (folder / "u.data").write_text("".join("\t".join(row) + "\n" for row in RATINGS))
    flags = ["0"] * 19
    comedy = "|".join([*flags[:5], "1", *flags[6:]])
    films = f"10|Café (1995)|01-Jan-1995||http://x|{comedy}\n20|Untagged|||http://x|{'|'.join(flags)}\n"
    (folder / "u.item").write_bytes(films.encode("latin-1"))
    (folder / "u.user").write_text("1|24|M|technician|85711\n2|56|F|other|94043\n")


def _ml_1m(folder: Path) -> None:
    (folder / "ratings.dat").write_text("".join("::".join(row) + "\n" for row in RATINGS))
    (folder / "movies.dat").write_bytes("10::Café (1995)::Comedy|Drama\n20::Untagged::(no genres listed)\n".encode("latin-1"))
    (folder / "users.dat").write_text("1::M::18::10::85711\n2::F::56::16::94043\n")


def _ml_latest(folder: Path) -> None:
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\r\n" + "".join(",".join(row) + "\r\n" for row in RATINGS))
    (folder / "movies.csv").write_text('movieId,title,genres\r\n10,"Café (1995)",Comedy|Drama\r\n20,Untagged,(no genres listed)\r\n')
    (folder / "tags.csv").write_text("userId,movieId,tag,timestamp\r\n1,10,paris,1\r\n2,10,Paris,1\r\n1,10,love,1\r\n")


def _recbole(folder: Path) -> None:
    rows = "".join("\t".join(row) + "\n" for row in RATINGS)
    (folder / "ml.inter").write_text("user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + rows)
    (folder / "ml.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n10\tCafé\t1995\tComedy Drama\n20\tUntagged\t\t\n"
    )
    (folder / "ml.user").write_text(
        "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n1\t24\tM\ttechnician\t85711\n2\t56\tF\tother\t94043\n"
    )


FORMS: dict[str, Callable[[Path], None]] = {"100k": _ml_100k, "1m": _ml_1m, "latest": _ml_latest, "recbole": _recbole}
