"""The served graph: `build` binds four deployments that scale on their own. Importing this does no work and loads no model.

guidelens serve --home DIR
serve run serve.app:build home=DIR release=champion
serve deploy serve/config.yaml
"""

from pathlib import Path

from pydantic import model_validator
from ray.serve import Application

from guidelens.config import FeatureConfig, Home, S3Options, ServeConfig
from guidelens.schemas.base import Frozen


class ServeArgs(Frozen):
    """What the graph is built from; Ray Serve makes it of `key=value` pairs or of a config file's `args`.

    Attributes:
        home: where state lives; a relative path counts from the folder the graph is built in.
        release: `champion`, another alias, or a version.
        serve: settings in place of those the release was trained with.
        features: where the online store is.
    """

    home: Path = Path(".guidelens")
    release: str = "champion"
    serve: ServeConfig | None = None
    features: FeatureConfig = FeatureConfig()
    s3: S3Options = S3Options()

    @model_validator(mode="before")
    @classmethod
    def _version_may_be_a_number(cls, given: object) -> object:
        if isinstance(given, dict) and isinstance(given.get("release"), int):
            return given | {"release": str(given["release"])}
        return given


def build(args: ServeArgs) -> Application:
    """The graph of one release: ingress -> {recognizer, shopper features} -> fusion -> ranker.

    Raises:
        NotFoundError: no such release, or it has no local copy in this home.
        BundleError: its copy is damaged.
    """
    from serve.deployments import bind
    from serve.fusion import Fusion
    from serve.ingress import Ingress
    from serve.ranker import Ranker
    from serve.recognizer import Recognizer
    from serve.release import open_bundle, resolve, trained_settings

    home = Home(root=args.home.expanduser().absolute(), s3=args.s3)
    release = resolve(home, args.release)
    bundle, _manifest = open_bundle(home, release)
    config = args.serve or trained_settings(bundle)
    recognizer = bind(Recognizer, config, home, release, config)
    fusion = bind(Fusion, config, home, release, config)
    ranker = bind(Ranker, config, home, release, config)
    waiting = config.max_ongoing_requests + config.max_queued_requests
    return bind(Ingress, config, home, release, config, args.features, recognizer, fusion, ranker, spare_queue=waiting)
