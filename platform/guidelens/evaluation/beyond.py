"""Of the lists that a recommender would show: how much of the catalogue they reach, how little known and how unlike each other their products are.

Accuracy alone rewards showing everybody the same few best sellers. Formulae in docs/evaluation.md. Knows nothing of how lists were made.
"""

import numpy as np
from numpy.typing import NDArray

from guidelens.data.examples import Examples
from guidelens.models.items import Catalogue
from guidelens.schemas.base import Frozen

# Letters: R = requests, T = places of a list, N = products, E = numbers of a content vector.


class BeyondAccuracy(Frozen):
    """Of top-10 lists. coverage: share of the catalogue in at least one. novelty: mean self-information in bits of a listed product's
    share of the training clicks. diversity: mean over pairs of one list of 1 - cosine of their content; null for lists of one."""

    coverage: float
    novelty: float
    diversity: float | None


class ColdShare(Frozen):
    """Of what is measured: requests whose shopper has no request in the training part, and clicked products that nobody clicked in it."""

    shoppers: float
    products: float


def beyond_accuracy(top_RT: NDArray[np.integer], clicks_N: NDArray[np.floating], content_NE: NDArray[np.floating]) -> BeyondAccuracy:
    """Args: top_RT: product rows; clicks_N: training clicks; content_NE: unit vectors, zeros where nothing is known."""
    share_N = (clicks_N + 1) / (clicks_N.sum() + len(clicks_N))
    return BeyondAccuracy(
        coverage=len(np.unique(top_RT)) / len(clicks_N), novelty=float(-np.log2(share_N)[top_RT].mean()), diversity=_diversity(top_RT, content_NE)
    )


def _diversity(top_RT: NDArray[np.integer], content_NE: NDArray[np.floating]) -> float | None:
    """Mean over lists; the sum of all pairs' cosines is that of the summed vector's square less the vectors' own."""
    num = top_RT.shape[1]
    if num < 2:
        return None
    total = 0.0
    for list_T in top_RT:
        vectors_TE = content_NE[list_T]
        total += float((vectors_TE.sum(axis=0) ** 2).sum() - (vectors_TE**2).sum())
    return float(1 - total / len(top_RT) / (num * (num - 1)))


def content_vectors(catalogue: Catalogue) -> NDArray[np.float32]:
    """(N, E) image and text embeddings, each centred over the catalogue and scaled to length 1 (0 where missing), together of length 1."""
    parts = [_unit(_centred(catalogue.image_NE, catalogue.has_image_N)), _unit(_centred(catalogue.text_NE, np.asarray(catalogue.text_NE.any(axis=1))))]
    return _unit(np.concatenate(parts, axis=1))


def _centred(x_NE: NDArray[np.float32], known_N: NDArray[np.bool_]) -> NDArray[np.float32]:
    mean_E = x_NE[known_N].mean(axis=0) if known_N.any() else np.zeros(x_NE.shape[1], dtype=np.float32)
    return np.where(known_N[:, None], x_NE - mean_E, np.float32(0))


def _unit(x_NE: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(x_NE / np.maximum(np.linalg.norm(x_NE, axis=1, keepdims=True), 1e-9), dtype=np.float32)


def clicks_of(train: Examples, num_products: int) -> NDArray[np.float64]:
    """(N,) clicks in the training rows."""
    clicked = train.slate_rows[(train.click > 0) & (train.slate_rows >= 0)]
    return np.bincount(clicked, minlength=num_products).astype(np.float64)


def cold_share(train: Examples, clicked: Examples, relevant_RK: NDArray[np.bool_], clicks_N: NDArray[np.floating]) -> ColdShare:
    """Args: clicked: the requests measured; relevant_RK: which places of their slates count."""
    known = np.isin(clicked.shopper_key.astype(str), np.unique(train.shopper_key.astype(str)))
    return ColdShare(shoppers=1 - float(known.mean()), products=float((clicks_N[clicked.slate_rows[relevant_RK]] == 0).mean()))
