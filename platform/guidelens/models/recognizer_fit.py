"""Fits and calibrates the recognizer: whitening, prototypes, and by folds the scale of catalogue images, the temperature and the "not in the
catalogue" rule."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.linalg.lapack import dtrtri
from scipy.optimize import minimize, minimize_scalar
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from guidelens.config import RecognizerConfig
from guidelens.encoders.backbones import load_image_backbone
from guidelens.errors import ContractError, ShapeError
from guidelens.models.backgrounds import background_embeddings
from guidelens.models.recognizer import EVIDENCE, Floats, Gallery, Recognizer, RecognizerFacts, Rows, Whitening, middling, rooted, softmax, unit, usual_cosines

# Letters as in recognizer.py; N = drawn backgrounds, H = photos held back by a fold.

NUM_FOLDS = 4
VISITS = 6
"""Groups of photos that look alike, at most, a product is cut into for the folds."""
_DEFAULT_TEMPERATURE = 0.06
_MIN_PRODUCTS_WITH_BOTH = 5
"""Products with photos and a catalogue image from which the scale of catalogue images is learned."""
_MIN_SCALE_PHOTOS, _MAX_SCALE_CELLS = 100, 500_000
"""In each fold the scale is found on this many photos at least, and on no more cosines than that: three numbers need few, and a large catalogue has many."""
_SAME_SCALE = (1.0, 0.0)
_PRODUCT_PARTS = 5
"""Parts of the products of which each is judged by weights of evidence that the others gave."""
_TOP = 5
_CATALOGUE_SHARE = 0.5
"""Weight of a catalogue image beside the photos of its product, which show it as cameras see it."""


@dataclass(frozen=True)
class Backgrounds:
    """Embeddings (N, D) of images without a product, and the kind (N,) of each."""

    embeddings: Floats
    kinds: Rows


@dataclass(frozen=True)
class CrossFit:
    """What an encoder that has not seen the photos in `held_M`, and of the products in `novel_M` none, makes of all photos (M, D) and of the
    drawn backgrounds (N, D). Without novel products a photo held back stands for one of a product that is not in the catalogue, which
    flatters where the encoder has learned that product from other photos."""

    held_M: NDArray[np.bool_]
    novel_M: NDArray[np.bool_]
    embeddings: Floats
    backgrounds: Floats


@dataclass(frozen=True)
class HeldBackAnswers:
    """What calibration rests on: of each photo held back its place among those given (H,), and what was answered without it: at most five
    products (H, K), best first, their confidences, and whether it was taken for one of the catalogue."""

    photos_H: Rows
    product_rows_HK: Rows
    confidences_HK: Floats
    in_catalogue_H: NDArray[np.bool_]


@dataclass(frozen=True)
class _Shown:
    """Labelled photos and catalogue images: embeddings (M, D), product (M,), weight (M,) and whether it is a catalogue image (M,)."""

    embeddings: Floats
    rows: Rows
    weights: Floats
    is_catalogue: NDArray[np.bool_]
    num_products: int

    @property
    def points(self) -> tuple[Floats, Rows]:
        return self.embeddings, self.rows

    def where(self, kept_M: NDArray[np.bool_]) -> "_Shown":
        return replace(self, embeddings=self.embeddings[kept_M], rows=self.rows[kept_M], weights=self.weights[kept_M], is_catalogue=self.is_catalogue[kept_M])


@dataclass(frozen=True)
class _HeldBack:
    """Each photo as a recognizer saw it that was fitted without it: cosines (H, P), its product, and its evidence; the evidence of photos whose
    product is left out of the catalogue, and their products; and how many products no such encoder had learned, where there are any."""

    photos_H: Rows
    cosines_HP: Floats
    rows_H: Rows
    evidence_HE: Floats
    unseen_evidence_HE: Floats
    unseen_rows_H: Rows
    background_evidence_NE: Floats
    num_novel: int


def fit_recognizer(
    embeddings: NDArray[np.floating],
    product_rows: NDArray[np.integer],
    is_catalogue_image: NDArray[np.bool_],
    num_products: int,
    config: RecognizerConfig,
    seed: int,
    backgrounds: Backgrounds | None = None,
) -> Recognizer:
    """`fit_and_answer` without its answers."""
    return fit_and_answer(embeddings, product_rows, is_catalogue_image, num_products, config, seed, backgrounds)[0]


def fit_and_answer(
    embeddings: NDArray[np.floating],
    product_rows: NDArray[np.integer],
    is_catalogue_image: NDArray[np.bool_],
    num_products: int,
    config: RecognizerConfig,
    seed: int,
    backgrounds: Backgrounds | None = None,
    family_of: Sequence[int] = (),
    cross_fits: Sequence[CrossFit] = (),
) -> tuple[Recognizer, HeldBackAnswers | None]:
    """A recognizer of `num_products` products from their photos, catalogue images, or both, and its answers to photos held back from it.

    Args:
        embeddings: (M, D) as the image encoder makes them.
        product_rows: (M,) in [0, num_products), -1 for a photo without a product, which is ignored.
        is_catalogue_image: (M,) bool; a catalogue image weighs less than a photo where a product has both.
        backgrounds: images without a product; by default drawn and embedded here, which takes seconds.
        family_of: as in RecognizerFacts.
        cross_fits: of an encoder that learned from these photos, whose embeddings of them flatter: calibration rests on photos that the
            encoder of each has not seen. Without them it rests on four folds of the embeddings.

    Raises:
        ShapeError: lengths differ.
        ContractError: not one labelled photo or catalogue image, or a row out of range.
    """
    shown = _checked(embeddings, product_rows, is_catalogue_image, num_products)
    drawn = backgrounds or Backgrounds(*background_embeddings(load_image_backbone(), seed))
    known = product_rows >= 0
    crossed = [CrossFit(one.held_M[known], one.novel_M[known], one.embeddings[known], one.backgrounds) for one in cross_fits]
    whitening = _whitening(shown.embeddings, shown.rows)
    gallery = _gallery(whitening, shown, drawn)
    held = _hold_back(shown, drawn, seed, crossed)
    if held is None:
        return _calibrated_on_backgrounds(whitening, gallery, num_products, family_of), None
    # Also where every product has photos: one may join later by its catalogue image alone (recognizer_rows.py).
    scale = _catalogue_scale(shown, seed)
    if scale != _SAME_SCALE:
        gallery = replace(gallery, catalogue_scale=scale[0], catalogue_shift=scale[1])
        held = (_hold_back(shown, drawn, seed, crossed, scale) if gallery.from_catalogue_P.any() else None) or held
    fitted, in_catalogue_H = _calibrated(whitening, gallery, held, num_products, config, family_of)
    return fitted, _answers(fitted, held, in_catalogue_H, np.flatnonzero(known))


def _answers(fitted: Recognizer, held: _HeldBack, in_catalogue_H: NDArray[np.bool_], places_M: Rows) -> HeldBackAnswers:
    chances_HP = softmax(held.cosines_HP / np.float32(fitted.facts.temperature))
    order_HK = np.argsort(-held.cosines_HP, axis=1, kind="stable")[:, :_TOP]
    return HeldBackAnswers(
        places_M[held.photos_H],
        order_HK,
        np.take_along_axis(chances_HP, order_HK, axis=1),
        in_catalogue_H,
    )


def answers_held_back(
    embeddings: NDArray[np.floating],
    product_rows: NDArray[np.integer],
    is_catalogue_image: NDArray[np.bool_],
    held_M: NDArray[np.bool_],
    num_products: int,
    top: int = 5,
    seed: int = 0,
) -> Rows:
    """(H, <= top) products answered for the photos in `held_M`, best first, by a fit on the others alone.

    The ranking of a recognizer without its calibration: for measuring shares, not for serving.
    """
    shown = _checked(embeddings[~held_M], product_rows[~held_M], is_catalogue_image[~held_M], num_products)
    whitening = _whitening(shown.embeddings, shown.rows)
    nothing = Backgrounds(np.zeros((0, embeddings.shape[1]), np.float32), np.zeros(0, np.int64))
    gallery = _gallery(whitening, shown, nothing)
    if gallery.from_catalogue_P.any():
        scale = _catalogue_scale(shown, seed)
        gallery = replace(gallery, catalogue_scale=scale[0], catalogue_shift=scale[1])
    cosines_HP = gallery.cosines(whitening(embeddings[held_M]))
    order_HP: Rows = np.argsort(-cosines_HP, axis=1, kind="stable")
    return order_HP[:, : min(top, int(gallery.recognisable.sum()))]


def _checked(embeddings: NDArray[np.floating], product_rows: NDArray[np.integer], is_catalogue_image: NDArray[np.bool_], num_products: int) -> _Shown:
    """What is labelled."""
    if embeddings.ndim != 2 or product_rows.shape != (len(embeddings),) or is_catalogue_image.shape != (len(embeddings),):
        raise ShapeError(
            f"embeddings (M, D), product_rows (M,), is_catalogue_image (M,), got {embeddings.shape}, {product_rows.shape}, {is_catalogue_image.shape}"
        )
    known = product_rows >= 0
    if not known.any():
        raise ContractError(
            "a recognizer needs at least one photo or catalogue image with a product, got none; add photos.csv or catalogue images and ingest again"
        )
    rows = product_rows[known].astype(np.int64)
    if rows.max() >= num_products:
        raise ContractError(f"product rows must be below {num_products}, got {rows.max()}")
    is_beside_photos = is_catalogue_image[known] & np.isin(rows, rows[~is_catalogue_image[known]])
    weights = np.where(is_beside_photos, _CATALOGUE_SHARE, 1.0).astype(np.float32)
    return _Shown(np.asarray(embeddings[known], np.float32), rows, weights, is_catalogue_image[known], num_products)


def _whitening(embeddings: Floats, rows: Rows) -> Whitening:
    """Inverse root of the covariance within products, shrunk as Ledoit and Wolf (2004) say; the identity where no product has two photos."""
    points = rooted(embeddings)
    mean_D = points.mean(0, dtype=np.float64)
    _, product_of, counts = np.unique(rows, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), points.shape[1]))
    np.add.at(sums, product_of, points)
    repeated = counts[product_of] > 1
    residuals = (points[repeated] - (sums / counts[:, None])[product_of[repeated]]).astype(np.float32)
    if not len(residuals) or not residuals.any():
        return Whitening(mean_D.astype(np.float32), np.eye(points.shape[1], dtype=np.float32))
    covariance = (residuals.T @ residuals).astype(np.float64) / len(residuals)
    level = float(np.trace(covariance)) / len(covariance)
    shrinkage = _shrinkage(residuals, covariance, level)
    factor = np.linalg.cholesky((1 - shrinkage) * covariance / level + shrinkage * np.eye(len(covariance)))
    inverse, _ = dtrtri(factor, lower=1)
    return Whitening(mean_D.astype(np.float32), np.ascontiguousarray(inverse.T, np.float32))


def _shrinkage(residuals: Floats, covariance: NDArray[np.float64], level: float) -> float:
    """Ledoit and Wolf's (2004) share of the identity, from the covariance that is there already."""
    spread = float((np.einsum("nd,nd->n", residuals, residuals).astype(np.float64) ** 2).mean() - (covariance**2).sum()) / len(residuals)
    distance = float(((covariance - level * np.eye(len(covariance))) ** 2).sum())
    return min(1.0, spread / distance) if distance > 0 else 1.0


def _gallery(whitening: Whitening, shown: _Shown, drawn: Backgrounds, scale: tuple[float, float] = _SAME_SCALE) -> Gallery:
    by_photo_P = np.zeros(shown.num_products, bool)
    by_photo_P[shown.rows[~shown.is_catalogue]] = True
    prototypes_PD = _prototypes(whitening, shown)
    return Gallery(prototypes_PD, whitening(drawn.embeddings), ~by_photo_P, _usual(whitening, shown), *scale)


def _usual(whitening: Whitening, shown: _Shown) -> Floats:
    photos = shown.where(~shown.is_catalogue)
    return middling(usual_cosines(whitening(photos.embeddings), photos.rows, shown.num_products))


def _prototypes(whitening: Whitening, shown: _Shown) -> Floats:
    photos_MD = whitening(shown.embeddings)
    sums_PD = np.zeros((shown.num_products, photos_MD.shape[1]), np.float32)
    np.add.at(sums_PD, shown.rows, photos_MD * shown.weights[:, None])
    return unit(sums_PD)


def _hold_back(shown: _Shown, drawn: Backgrounds, seed: int, crossed: Sequence[CrossFit], scale: tuple[float, float] = _SAME_SCALE) -> _HeldBack | None:
    """Every photo of a fold whose product keeps another one outside it, judged by a fit without the fold."""
    parts: list[_HeldBack] = []
    for one in crossed or _folds_of_embeddings(shown, drawn, seed):
        held = one.held_M & np.isin(shown.rows, shown.rows[~one.held_M])
        if not held.any():
            continue
        seen = replace(shown, embeddings=one.embeddings)
        whitening = _whitening(*seen.where(~one.held_M & ~one.novel_M).points)
        gallery = _gallery(whitening, seen.where(~one.held_M), replace(drawn, embeddings=one.backgrounds), scale)
        queries = whitening(seen.embeddings[held])
        novel = np.unique(shown.rows[one.novel_M])
        # A release's encoder has learned all of its catalogue: one of this fit's size is without the novel products.
        learned = gallery.without(np.isin(np.arange(shown.num_products), novel))
        unseen_M = one.novel_M & ~shown.is_catalogue if len(novel) else held
        unseen = learned.evidence(whitening(seen.embeddings[unseen_M]), shown.rows[unseen_M])
        kinds = learned.evidence(gallery.backgrounds_ND, kind_of_B=drawn.kinds, kind_of_N=drawn.kinds)
        known = learned.evidence(queries)
        parts.append(_HeldBack(np.flatnonzero(held), gallery.cosines(queries), shown.rows[held], known, unseen, shown.rows[unseen_M], kinds, len(novel)))
    if not parts:
        return None
    return _HeldBack(
        np.concatenate([part.photos_H for part in parts]),
        np.concatenate([part.cosines_HP for part in parts]),
        np.concatenate([part.rows_H for part in parts]),
        np.concatenate([part.evidence_HE for part in parts]),
        np.concatenate([part.unseen_evidence_HE for part in parts]),
        np.concatenate([part.unseen_rows_H for part in parts]),
        np.concatenate([part.background_evidence_NE for part in parts]),
        sum(part.num_novel for part in parts),
    )


def _folds_of_embeddings(shown: _Shown, drawn: Backgrounds, seed: int) -> list[CrossFit]:
    """Folds whose encoder is that of all photos: it has not learned from any."""
    folds_M = np.full(len(shown.rows), -1)
    photos = shown.weights == 1
    folds_M[photos] = folds(shown.embeddings[photos], shown.rows[photos], seed)
    nothing = np.zeros(len(folds_M), bool)
    return [CrossFit(folds_M == fold, nothing, shown.embeddings, drawn.embeddings) for fold in range(NUM_FOLDS)]


def _catalogue_scale(shown: _Shown, seed: int) -> tuple[float, float]:
    """(scale, shift) that put cosines to catalogue images on the scale of those to photos.

    Found on products that have both, a quarter of them at a time as if known by their catalogue image alone: the likelihood of what photos show, those
    of the quarter and those held back of the others, is greatest. Too few such products leave cosines as they are.
    """
    has_both = np.unique(shown.rows[shown.weights < 1])
    if len(has_both) < _MIN_PRODUCTS_WITH_BOTH:
        return _SAME_SCALE
    folds_M = np.full(len(shown.rows), -1)
    photos_M = ~shown.is_catalogue
    folds_M[photos_M] = folds(shown.embeddings[photos_M], shown.rows[photos_M], seed)
    cosines, its, alone = [], [], []
    for fold in range(NUM_FOLDS):
        of_alone_M = np.isin(shown.rows, has_both[fold::NUM_FOLDS])
        fit = shown.where(~(photos_M & (of_alone_M | (folds_M == fold))))
        # Not of the fit: a product's way from catalogue image to photos is unknown where it has none.
        whitening = _whitening(*shown.where(~of_alone_M & (folds_M != fold)).points)
        gallery = _gallery(whitening, fit, Backgrounds(np.zeros((0, shown.embeddings.shape[1]), np.float32), np.zeros(0, np.int64)))
        asked_M = photos_M & (of_alone_M | (folds_M == fold)) & gallery.recognisable[shown.rows]
        asked = shown.where(_thinned(asked_M, max(_MIN_SCALE_PHOTOS, _MAX_SCALE_CELLS // shown.num_products), seed))
        cosines.append(gallery.cosines(whitening(asked.embeddings)))
        its.append(asked.rows)
        alone.append(np.broadcast_to(gallery.from_catalogue_P, cosines[-1].shape))
    return _likeliest_scale(np.concatenate(cosines), np.concatenate(its), np.concatenate(alone))


def _thinned(asked_M: NDArray[np.bool_], most: int, seed: int) -> NDArray[np.bool_]:
    """At most `most` of those asked for, drawn at random."""
    asked = np.flatnonzero(asked_M)
    if len(asked) <= most:
        return asked_M
    kept_M = np.zeros_like(asked_M)
    kept_M[np.random.default_rng(seed).choice(asked, most, replace=False)] = True
    return kept_M


def _likeliest_scale(cosines_HP: Floats, rows_H: Rows, alone_HP: NDArray[np.bool_]) -> tuple[float, float]:
    """Scale and shift, with a temperature, of least log-loss; each product weighs alike."""
    weights_H = 1 / np.bincount(rows_H)[rows_H]

    def loss(found: NDArray[np.float64]) -> float:
        log_temperature, log_scale, shift = found
        scaled_HP = np.where(alone_HP, np.exp(log_scale) * cosines_HP + shift, cosines_HP) / np.exp(log_temperature)
        right_H = scaled_HP[np.arange(len(rows_H)), rows_H]
        return float(np.average(logsumexp(scaled_HP, axis=1) - right_H, weights=weights_H))

    start = np.array([np.log(_DEFAULT_TEMPERATURE), 0.0, 0.0])
    around = np.concatenate([start[None], start + np.diag([0.5, 0.3, 0.1])])
    found = minimize(loss, start, method="Nelder-Mead", options={"initial_simplex": around})
    return float(np.exp(found.x[1])), float(found.x[2])


def folds(embeddings: Floats, rows: Rows, seed: int) -> Rows:
    """(M,) fold of each photo. Photos of a product that look alike (one shelf, one visit) stay together, so that a held-back photo
    is as new to the recognizer as a frame of tomorrow, not a near-duplicate of one it has seen."""
    points = rooted(embeddings)
    folds_M = np.zeros(len(rows), np.int64)
    load = np.zeros(NUM_FOLDS)
    random = np.random.default_rng(seed)
    for row in np.unique(rows):
        members = np.flatnonzero(rows == row)
        visit_of = _visits(points[members])
        sizes = np.bincount(visit_of)
        here = np.zeros(NUM_FOLDS)
        for visit in sorted(range(len(sizes)), key=lambda visit: (-sizes[visit], random.random())):
            fold = int(np.lexsort((load, here))[0])
            folds_M[members[visit_of == visit]] = fold
            here[fold] += sizes[visit]
            load[fold] += sizes[visit]
    return folds_M


def _visits(points: Floats) -> Rows:
    """Photos of one product in groups that look alike, by average linkage, numbered from 0."""
    if len(points) <= VISITS:
        return np.arange(len(points))
    return np.asarray(fcluster(linkage(points, "average"), VISITS, "maxclust") - 1, np.int64)


def _calibrated(
    whitening: Whitening, gallery: Gallery, held: _HeldBack, num_products: int, config: RecognizerConfig, family_of: Sequence[int]
) -> tuple[Recognizer, NDArray[np.bool_]]:
    """The recognizer, and which of the photos held back (H,) are taken for something of the catalogue."""
    weights_E, offset = _evidence_weights(held)
    nothing = held.background_evidence_NE @ weights_E
    known, unseen = (scores - np.float32(offset) for scores in _judged_by_others(held))
    min_evidence = _threshold(known, np.concatenate([unseen, nothing]), config.false_unknown_share)
    if config.max_false_accepts is not None:
        min_evidence = max(_refusing(others, config.max_false_accepts) for others in (unseen, nothing))
    first_H, families_P = held.cosines_HP.argmax(1), np.array(family_of)
    facts = RecognizerFacts(
        num_products=num_products,
        temperature=_temperature(held.cosines_HP, held.rows_H),
        min_evidence=min_evidence,
        calibration="held_back_photos",
        catalogue_scale=gallery.catalogue_scale,
        catalogue_shift=gallery.catalogue_shift,
        held_back_photos=len(known),
        held_back_top1=float((first_H == held.rows_H).mean()),
        held_back_coarse=float((families_P[first_H] == families_P[held.rows_H]).mean()) if len(family_of) else None,
        held_back_false_accepts=float((unseen >= min_evidence).mean()),
        novel_products=held.num_novel,
        family_of=tuple(family_of),
        held_back_unknown_share=float((known < min_evidence).mean()),
        unseen_product_auroc=float(roc_auc_score(np.r_[np.ones(len(known)), np.zeros(len(unseen))], np.r_[known, unseen])),
        background_unknown_share=float((nothing < min_evidence).mean()),
    )
    return Recognizer(whitening, gallery, weights_E, facts), known >= min_evidence


def _calibrated_on_backgrounds(whitening: Whitening, gallery: Gallery, num_products: int, family_of: Sequence[int]) -> Recognizer:
    """No photo can be held back: a frame is known when it lies nearer to some catalogue image than to every background."""
    weights_E = np.array([{"prototype": 1.0, "background": -1.0}.get(name, 0.0) for name in EVIDENCE], np.float32)
    facts = RecognizerFacts(
        num_products=num_products, temperature=_DEFAULT_TEMPERATURE, min_evidence=0.0, calibration="backgrounds_only", family_of=tuple(family_of)
    )
    return Recognizer(whitening, gallery, weights_E, facts)


def _judged_by_others(held: _HeldBack) -> tuple[Floats, Floats]:
    """(H,) logits of photos whose product is in the catalogue, and of those whose is not, each by weights that were found on other products: few
    stand for all that a shop does not sell, and weights fitted to these few flatter."""
    products = np.unique(np.concatenate([held.rows_H, held.unseen_rows_H]))
    known, unseen = np.zeros(len(held.rows_H), np.float32), np.zeros(len(held.unseen_rows_H), np.float32)
    for part in range(min(_PRODUCT_PARTS, len(products))):
        judged = products[part::_PRODUCT_PARTS]
        of_known, of_unseen = np.isin(held.rows_H, judged), np.isin(held.unseen_rows_H, judged)
        others = replace(held, evidence_HE=held.evidence_HE[~of_known], unseen_evidence_HE=held.unseen_evidence_HE[~of_unseen])
        weights_E, offset = _evidence_weights(others if len(others.evidence_HE) and len(others.unseen_evidence_HE) else held)
        known[of_known] = held.evidence_HE[of_known] @ weights_E + np.float32(offset)
        unseen[of_unseen] = held.unseen_evidence_HE[of_unseen] @ weights_E + np.float32(offset)
    return known, unseen


def _evidence_weights(held: _HeldBack) -> tuple[Floats, float]:
    """Logistic regression of "its product is in the catalogue" on evidence, and what it adds to all; the three sorts of examples weigh alike."""
    sorts = (held.evidence_HE, held.unseen_evidence_HE, held.background_evidence_NE)
    evidence = np.concatenate(sorts).astype(np.float64)
    scale_E = np.maximum(evidence.std(0), 1e-6)
    labels = np.concatenate([np.full(len(sort), number == 0) for number, sort in enumerate(sorts)])
    weights = np.concatenate([np.full(len(sort), (2.0 if number == 0 else 1.0) / len(sort)) for number, sort in enumerate(sorts)])
    model = LogisticRegression(C=1.0, max_iter=1000).fit(evidence / scale_E, labels, sample_weight=weights / weights.mean())
    return np.asarray(model.coef_[0] / scale_E, np.float32), float(model.intercept_[0])


def _threshold(known: Floats, others: Floats, false_unknown_share: float) -> float:
    """Keeps all but `false_unknown_share` of the known; where nearly all others lie lower still, halfway down to them."""
    lowest = float(np.quantile(known, false_unknown_share, method="lower"))
    highest_other = float(np.quantile(others, 0.99, method="higher"))
    return lowest if highest_other >= lowest else (lowest + highest_other) / 2


def _refusing(others: Floats, max_accepts: float) -> float:
    """The lowest threshold that at most this share of the others reaches."""
    return float(np.nextafter(np.float32(np.quantile(others, 1 - max_accepts, method="higher")), np.float32(np.inf)))


def _temperature(cosines_HP: Floats, rows_H: Rows) -> float:
    """The temperature of least log-loss on held-back photos and, as they are few, one more photo that could show any product."""
    can_be = np.isfinite(cosines_HP)

    def loss(log_temperature: float) -> float:
        logs = np.log(np.maximum(softmax(cosines_HP / np.float32(np.exp(log_temperature))), 1e-12))
        of_any = np.where(can_be, logs, 0).sum(1) / can_be.sum(1)
        return float(-(logs[np.arange(len(rows_H)), rows_H].sum() + of_any.mean()))

    found = minimize_scalar(loss, bounds=(np.log(0.005), 0.0), method="bounded")
    return float(np.exp(found.x))
