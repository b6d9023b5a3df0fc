"""Parts of the test requests that an average hides: new shoppers, searches, new and little-known products, channels, categories."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from guidelens.data.examples import Examples
from guidelens.evaluation.bootstrap import Draws
from guidelens.evaluation.ranking import RankingRows
from guidelens.evaluation.report import Slice, SliceScores
from guidelens.schemas.packed import decode

# Letters: R = requests, K = places of a slate, N = products.

MIN_REQUESTS = 30
PROFILE_ONLY, SESSION_ONLY = "new shoppers, profile only", "new shoppers, session only"
COLD = (PROFILE_ONLY, SESSION_ONLY, "new products")
"""Where the shopper's or the product's past says nothing: cold start."""
MAX_CATEGORIES = 8
HEAD_SHARE = 0.8
"""Of the training clicks: the products that have them, best ones first, are the head; all others the tail."""
Flags = NDArray[np.bool_]


def slices(examples: Examples) -> dict[str, Flags]:
    """(R,) masks by name, of what was known when it was asked. A shopper is new while no visit of theirs was known at request time.

    Of a new shopper either the profile is known, or nothing but the session: its frame, its words, its device.
    """
    packed, _ = decode(list(examples.packed))
    known, has_profile = packed["num_recent"] > 0, (packed["profile_ids"] != 0).any(axis=1)
    scanned, searched = examples.frame_row >= 0, examples.query_row >= 0
    return {
        "new shoppers": ~known,
        PROFILE_ONLY: ~known & has_profile,
        SESSION_ONLY: ~known & ~has_profile,
        "known shoppers": known,
        "started by a scan": scanned,
        "started by a search": searched & ~scanned,
        "started from the feed": ~scanned & ~searched,
        "devices without AR": examples.device == "none",
        **{f"channel {channel}": examples.channel == channel for channel in sorted({*examples.channel.tolist()} - {""})},
    }


def product_slices(examples: Examples, relevant_RK: Flags, clicks_N: NDArray[np.floating], categories: Sequence[str]) -> dict[str, Flags]:
    """(R,) masks by name, of what was clicked: a request is in a slice where one of its clicked products is.

    Args:
        clicks_N: training clicks. A product without any is new; the tail is all that is not in the head (HEAD_SHARE).
        categories: of each product, levels joined by `/`; the first level makes the slice. The MAX_CATEGORIES largest are shown.
    """
    rows_RK = np.where(relevant_RK, examples.slate_rows, -1)

    def any_of(chosen_N: Flags) -> Flags:
        return np.asarray(((rows_RK >= 0) & chosen_N[np.maximum(rows_RK, 0)]).any(axis=1))

    firsts = np.array([category.partition("/")[0] for category in categories], dtype=object)
    of_category = {f"category {name}": any_of(firsts == name) for name in sorted({*firsts.tolist()} - {""})}
    largest = sorted(of_category, key=lambda name: (-int(of_category[name].sum()), name))[:MAX_CATEGORIES]
    in_tail = tail(clicks_N)
    return {
        "new products": any_of(clicks_N == 0),
        "tail products": any_of(in_tail),
        "head products": any_of(~in_tail),
        **{name: of_category[name] for name in largest},
    }


def tail(clicks_N: NDArray[np.floating]) -> Flags:
    """(N,) True for the products that are not needed to make up HEAD_SHARE of all clicks, best ones first."""
    order = np.argsort(-clicks_N, kind="stable")
    before = np.cumsum(clicks_N[order]) - clicks_N[order]
    in_tail = np.ones(len(clicks_N), dtype=np.bool_)
    in_tail[order] = before >= HEAD_SHARE * clicks_N.sum()
    return in_tail


def sliced(masks: Mapping[str, Flags], ours: RankingRows, peers: Mapping[str, RankingRows], shopper_R: NDArray[np.object_], draws: Draws) -> tuple[Slice, ...]:
    """NDCG@10 and hit rate of each slice for the model and its peers, with intervals over shoppers; null where a slice has fewer than MIN_REQUESTS requests."""

    def scores(rows: RankingRows, mask: Flags) -> SliceScores:
        return SliceScores(ndcg=draws.over(rows.ndcg[mask], shopper_R[mask]), hit_rate=draws.over(rows.hit[mask], shopper_R[mask]))

    found = []
    for name, mask in masks.items():
        requests = int(mask.sum())
        if requests < MIN_REQUESTS:
            found.append(Slice(name=name, requests=requests, ndcg=None))
            continue
        mine, theirs = scores(ours, mask), {peer: scores(rows, mask) for peer, rows in peers.items()}
        found.append(Slice(name=name, requests=requests, ndcg=mine.ndcg, hit_rate=mine.hit_rate, baselines=theirs))
    return tuple(found)
