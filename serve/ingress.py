"""The ingress deployment: HTTP in and out. Owns deadlines, fallbacks, sessions and events; holds no model, imports no torch."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from fastapi import FastAPI
from ray import serve

from guidelens.config import FeatureConfig, Home, ServeConfig
from guidelens.data.inbox import Inbox
from guidelens.data.pseudonyms import LiveKeys
from guidelens.data.review import ReviewQueue
from guidelens.errors import GuideLensError
from guidelens.inference.facts import read_facts
from guidelens.inference.popularity import read_popularity
from guidelens.inference.reranking import BUNDLED, LiveRules
from guidelens.inference.search.messages import SearchOutput
from guidelens.schemas.tables import IMAGE_DIM
from serve.api import build_api
from serve.catalogue import Catalogue
from serve.deployments import RayHop
from serve.desk import Desk
from serve.graph import CHANNEL, Graph
from serve.messages import FrameProblem, FuseCall, FuseReply, RankCall, RankReply, RecognizeCall, RecognizeReply, SessionSteps
from serve.metrics import ServeMetrics
from serve.online import NoStore, OnlineFeatures, OnlineStore
from serve.release import baseline, open_bundle
from serve.requests import Asked
from serve.review import UnknownFrames
from serve.search_messages import SearchCall, SuggestCall, Suggested
from serve.sights import SightLog

log = logging.getLogger(__name__)
_PROBE_S = 10.0


@serve.ingress()
class Ingress:
    """Built once a replica; `__serve_build_asgi_app__` is Serve's hook for a class that makes its own app."""

    def __init__(self, home: Home, release: str, config: ServeConfig, features: FeatureConfig, recognizer: Any, fusion: Any, ranker: Any) -> None:
        online = OnlineFeatures(_online_store(home, features))
        bundle, manifest = open_bundle(home, release)
        catalogue = Catalogue(bundle, release)
        graph = Graph(
            release=release,
            catalogue=catalogue,
            recognizer=RayHop[RecognizeCall, RecognizeReply | FrameProblem]("recognizer", recognizer),
            fusion=RayHop[FuseCall, FuseReply]("fusion", fusion),
            ranker=RayHop[RankCall, RankReply]("ranker", ranker),
            online=online,
            popularity=read_popularity(bundle, len(catalogue.items)).weights_N,
            baseline=baseline(bundle, catalogue),
            has_guide=manifest.parts.get("guide") == "trained",
            missing=tuple(manifest.missing),
            metrics=ServeMetrics(release),
            rules=live_rules(home, bundle, config, catalogue),
            searcher=RayHop[SearchCall, SearchOutput]("fusion", fusion),
            suggester=RayHop[SuggestCall, Suggested]("fusion", fusion),
            unknown=unknown_frames(home, bundle, config, catalogue),
        )
        self._desk = Desk(
            graph=graph,
            inbox=Inbox(home.inbox),
            pseudonyms=LiveKeys(home.keys),
            max_in_flight=config.max_ongoing_requests + config.max_queued_requests,
            probe=lambda: probe(graph),
            run_id=manifest.run_id,
            sights=SightLog(len(catalogue.items)) if config.fuse_frames else None,
        )
        # Threads for the files and the inbox; the default of asyncio is sized by cores.
        self._threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="ingress")
        online.wait()

    def __serve_build_asgi_app__(self) -> FastAPI:
        asyncio.get_running_loop().set_default_executor(self._threads)
        return build_api(self._desk)


def _online_store(home: Home, config: FeatureConfig) -> Callable[[], OnlineStore]:
    """Opens the online store where it is called: Feast takes seconds to import."""

    def open_store() -> OnlineStore:
        from guidelens.features import Features

        try:
            return Features(home, config).online()
        except GuideLensError as error:
            log.error("no online store: %s; shoppers are answered without their features", error)
            return NoStore(str(error))

    return open_store


def live_rules(home: Home, bundle: Path, config: ServeConfig, catalogue: Catalogue) -> LiveRules:
    """The home's rules, else the release's: what the last rung obeys; the ranker reads the same files."""
    facts = read_facts(bundle, read_popularity(bundle, len(catalogue.items)).clicks_N)
    ids = [item.view.product_id for item in catalogue.items]
    return LiveRules([home.root / config.rerank.rules, bundle / BUNDLED], ids, facts.categories, facts)


def unknown_frames(home: Home, bundle: Path, config: ServeConfig, catalogue: Catalogue) -> Callable[[Asked, RecognizeReply], None] | None:
    """What keeps frames of nothing in the catalogue for review; None where `serve.review` keeps none, or no product of the release has an image."""
    encoders = pl.read_parquet(bundle / "items.parquet", columns=["image_encoder"])["image_encoder"].drop_nulls()
    if config.review.keep_days == 0 or not len(encoders):
        return None
    return UnknownFrames(ReviewQueue(home.review, home.keys), config.review, catalogue, encoders[0]).take


async def probe(graph: Graph) -> None:
    """One small request through every hop.

    Raises:
        HopFailedError, HopOverloadedError: a hop gave no answer.
    """
    none = SessionSteps(np.zeros(0, np.int8), np.zeros(0, np.int8), np.zeros(0, np.float32), np.zeros(0, np.int16))
    seen = graph.recognizer.ask(RecognizeCall(graph.release, None, np.ones(IMAGE_DIM, dtype=np.float32)), _PROBE_S)
    fuse = FuseCall(graph.release, None, None, "warm", np.zeros(0, np.int32), np.zeros(0, np.float32), "ar+front", CHANNEL, 0, "en")
    _, fused = await asyncio.gather(seen, graph.fusion.ask(fuse, _PROBE_S))
    await graph.ranker.ask(RankCall(graph.release, fused, None, -1, none, "ar+front", CHANNEL, 1, 0, 0, "en"), _PROBE_S)
