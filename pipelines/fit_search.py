"""What a fit keeps for search: what products are called, and how words, photo, crowd and shopper are weighed."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from guidelens.config import Home
from guidelens.data.examples import Examples
from guidelens.inference.popularity import read_popularity
from guidelens.inference.search.files import FOLDER, write_search
from guidelens.inference.search.lexicon import HOME_LEXICON, Lexicon
from guidelens.schemas.ids import sub_seed
from pipelines.entry import progress

if TYPE_CHECKING:
    from guidelens.training.search_rows import Recognize


def keep_search(home: Home, encoder: str, items: pl.DataFrame, fit_dir: Path) -> None:
    """search/: the index of words; popularity.json must be there.

    Args:
        encoder: the text encoder's name, that of the lake.

    Raises:
        ConfigError: the home's lexicon cannot be read.
    """
    from guidelens.encoders.backbones import load_text_backbone

    lexicon = Lexicon.load(home.root / HOME_LEXICON)
    write_search(fit_dir, items, read_popularity(fit_dir, len(items)).weights_N, lexicon, load_text_backbone(encoder).embed)
    progress(f"train: search knows {len(items):,} products by their words")


def learn_search(home: Home, encoder: str, seed: int, examples: Examples | None, queries: list[str], fit_dir: Path) -> dict[str, float]:
    """Adds the weights to search/, learned from the validation part of the log and from the catalogue; the test part says what each modality is worth.

    Args:
        examples: None for a shop without a log.
        queries: texts of the examples' query rows.

    Returns:
        Metrics of the run.
    """
    from guidelens.encoders.backbones import load_text_backbone
    from guidelens.inference.content import Content
    from guidelens.inference.guide_files import has_guide, load_items
    from guidelens.inference.scorer import GuideScorer
    from guidelens.inference.search.shop import engine_of
    from guidelens.training.search import learn
    from guidelens.training.search_rows import catalogue_rows, log_rows, photo_rows

    items, catalogue = load_items(fit_dir)
    scorer = GuideScorer.load(fit_dir) if has_guide(fit_dir) else None
    engine = engine_of(fit_dir, Content.load(fit_dir, catalogue), load_text_backbone(encoder), scorer)
    lexicon, rng = Lexicon.load(home.root / HOME_LEXICON), np.random.default_rng(sub_seed(seed, "search"))
    recognize = recognizer_of(fit_dir)
    judged = [*catalogue_rows(engine, items, lexicon, rng), *photo_rows(engine, items, lexicon, rng)]
    logged = {part: log_rows(engine, examples.of(part), queries, recognize) for part in ("val", "test")} if examples is not None else {"val": [], "test": []}
    reported = [*logged["test"], *photo_rows(engine, items, lexicon, np.random.default_rng(sub_seed(seed, "search/reported")))]
    weighing = learn(engine, [*judged, *logged["val"]], reported, lexicon)
    weighing.save(fit_dir / FOLDER)
    found = weighing.header
    progress(
        f"train: search is weighed by {found.kind} fusion, learned from {len(logged['val']):,} slates and {len(judged):,} queries of the catalogue; "
        f"reciprocal rank {found.validation.get(found.kind, float('nan')):.3f} (prior weights {found.validation.get('prior', float('nan')):.3f})"
    )
    metrics = {f"search.validation.{name}": value for name, value in found.validation.items()} | {
        f"search.gain.{name}": value for name, value in found.gains.items()
    }
    return {**metrics, "search.threshold": found.answering.threshold}


def recognizer_of(fit_dir: Path) -> "Recognize | None":
    """On the log's embeddings as they are: its photos are not kept, so tuned blocks cannot look at them."""
    from guidelens.models.recognizer import Recognizer
    from guidelens.training.search_rows import Seen

    if not (fit_dir / "recognizer.json").exists():
        return None
    fitted = Recognizer.load(fit_dir)

    def recognize(embedding: NDArray[np.float32]) -> Seen:
        found = fitted.recognize(embedding[None], top=5)[0]
        num = len(found.product_rows) if found.in_catalogue else 0
        return Seen(bool(found.in_catalogue), np.asarray(found.product_rows, np.int32)[:num], np.asarray(found.confidences, np.float32)[:num])

    return recognize
