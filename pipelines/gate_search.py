"""Search of a run and of the champion, asked the same: shoppers' searches of the run's test log, parts of product names, and pictures with another colour in words."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from guidelens.data.lake.lake import Lake
from guidelens.inference.search.files import FOLDER
from guidelens.inference.search.lexicon import HOME_LEXICON, Lexicon
from guidelens.inference.search.weighing import Weighing
from guidelens.schemas.ids import sub_seed
from guidelens.schemas.tables import Table
from pipelines.fit_search import recognizer_of
from pipelines.run_files import RunFiles

if TYPE_CHECKING:
    from guidelens.inference.search.engine import SearchEngine
    from guidelens.training.search_rows import Question

ALL_MODALITIES = "all"
NUM_LOG, NUM_CATALOGUE, NUM_PHOTO = 200, 150, 50


def searched_by_both(files: RunFiles, theirs: Path) -> NDArray[np.float64]:
    """(R, 2) reciprocal ranks of what was wanted, the run's and the champion's; none where either holds no search, or the catalogues differ.

    The run's recognizer looks at the photos for both, so that search alone is compared.
    """
    from guidelens.inference.guide_files import load_items

    none = np.zeros((0, 2))
    if not all((folder / FOLDER).is_dir() for folder in (files.fit, theirs)):
        return none
    if load_items(files.fit)[1].product_ids != load_items(theirs)[1].product_ids:
        return none
    asked = _questions(files)
    return np.stack([reciprocal_ranks(_engine(folder), asked) for folder in (files.fit, theirs)], axis=1) if asked else none


def recorded_of_both(ours: Path, theirs: Path) -> tuple[float, float] | None:
    """What training measured of the run's search and of the champion's, each on its own test queries; None where either was not measured."""
    found = [Weighing.load(folder / FOLDER).header.gains.get(ALL_MODALITIES) for folder in (ours, theirs)]
    return None if found[0] is None or found[1] is None else (found[0], found[1])


def reciprocal_ranks(engine: "SearchEngine", asked: Sequence["Question"]) -> NDArray[np.float64]:
    """(R,) of the best product that is wanted; ties count against it, and a search that is not answered finds nothing."""
    return np.array([_reciprocal_rank(engine, question) for question in asked])


def _reciprocal_rank(engine: "SearchEngine", question: "Question") -> float:
    known = engine.evidence(question.asked)
    if not engine.answers(question.asked, known):
        return 0.0
    scores_N = engine.weighing.scores(known.features_NF, known.context_C)
    rows = np.arange(len(scores_N)) if question.shown_K is None else question.shown_K
    is_wanted = np.isin(rows, sorted(question.wanted))
    best = scores_N[rows][is_wanted].max()
    return 1 / (1 + int((scores_N[rows][~is_wanted] >= best).sum()))


def _questions(files: RunFiles) -> list["Question"]:
    from guidelens.inference.guide_files import load_items
    from guidelens.training.search_rows import catalogue_questions, log_questions, photo_questions

    items, rng = load_items(files.fit)[0], np.random.default_rng(sub_seed(files.record.seed, "gate/search"))
    lexicon = Lexicon.load(files.home.root / HOME_LEXICON)
    found = [*catalogue_questions(items, lexicon, rng, NUM_CATALOGUE), *photo_questions(items, lexicon, rng, NUM_PHOTO)]
    if not files.has_guide:
        return found
    lake = Lake(files.record.lake, files.home.s3)
    queries = lake.read(Table.QUERIES, ["query"], manifest=lake.manifest(files.record.manifest))["query"].unique().sort().to_list()
    return [*found, *log_questions(files.examples().of("test"), queries, recognizer_of(files.fit), NUM_LOG)]


def _engine(folder: Path) -> "SearchEngine":
    from guidelens.encoders.backbones import load_text_backbone
    from guidelens.inference.content import Content
    from guidelens.inference.guide_files import encoders_of, has_guide, load_items
    from guidelens.inference.scorer import GuideScorer
    from guidelens.inference.search.shop import engine_of

    scorer = GuideScorer.load(folder) if has_guide(folder) else None
    return engine_of(folder, Content.load(folder, load_items(folder)[1]), load_text_backbone(encoders_of(folder).text), scorer)
