"""One frozen model per stage. Nothing here reads the environment: entry points do, once, and pass the result on."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from guidelens.schemas.base import Frozen
from guidelens.schemas.catalog import Product, Review, Shopper
from guidelens.schemas.events import Event

Fusion = Literal["concat", "weighted", "attention"]
Sharing = Literal["single_task", "shared_bottom", "mmoe", "ple"]
Sequence = Literal["mean", "gru", "attention"]
Modality = Literal["x1", "x2", "x3", "frame", "query"]
TaskName = Literal["recommendation", "interest", "plan"]
TASKS: tuple[TaskName, ...] = ("recommendation", "interest", "plan")
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Balancing = Literal["fixed", "uncertainty", "dwa", "gradnorm", "famo", "pcgrad", "cagrad"]
VisitValue = Literal["browse_ms", "stay_ms", "depth", "view_ms", "carts", "gestures"]

REGISTERED_MODEL = "guidelens"
DEFAULT_IMAGE_ENCODER = "efficientnet-lite0"
DEFAULT_TEXT_ENCODER = "usem3"
FEATURE_SERVICE = "guide_v1"


def _near(value: int, factor: int) -> str:
    """A value that is no multiple of a factor, and those beside it that are."""
    below = value // factor * factor
    return f"{value}; use {f'{below} or ' if below else ''}{below + factor}"


class S3Options(Frozen):
    """How to reach an S3 API. Unset fields fall to boto3's and pyarrow's own chain (profile, instance role).

    sse: encryption at rest asked for with each write, by S3's own key or by KMS (`sse_kms_key_id`, else the account's default).
    """

    endpoint_url: str | None = None
    region: str | None = None
    access_key: SecretStr | None = None
    secret_key: SecretStr | None = None
    sse: Literal["AES256", "aws:kms"] | None = None
    sse_kms_key_id: str | None = None
    timeout_s: Annotated[float, Field(gt=0)] = 20.0

    @model_validator(mode="after")
    def _a_key_is_of_kms(self) -> Self:
        if self.sse_kms_key_id is not None and self.sse != "aws:kms":
            raise ValueError(f"s3.sse_kms_key_id needs s3.sse aws:kms, got {self.sse}; set GUIDELENS_S3_SSE=aws:kms")
        return self


class KafkaOptions(Frozen):
    """How to reach a Kafka cluster. settings: librdkafka's own (`security.protocol`, `sasl.password`), all of them kept out of logs."""

    bootstrap: str
    settings: dict[str, SecretStr] = {}


class Home(Frozen):
    """Where all state of one installation lives. `root` is absolute: workers of other folders get it as it is."""

    root: Path
    s3: S3Options = S3Options()
    kafka: dict[str, SecretStr] = {}

    @model_validator(mode="after")
    def _absolute(self) -> Self:
        if not self.root.is_absolute():
            raise ValueError(f"home must be an absolute path, got {self.root}; use Home(root=path.resolve())")
        return self

    @property
    def lake_uri(self) -> str:
        return str(self.root / "lake")

    @property
    def mlflow_tracking_uri(self) -> str:
        return f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def mlflow_artifacts(self) -> Path:
        return self.root / "mlartifacts"

    @property
    def feast(self) -> Path:
        return self.root / "feast"

    @property
    def releases(self) -> Path:
        return self.root / "releases"

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    @property
    def review(self) -> Path:
        """Frames that wait for a person to say what they show."""
        return self.root / "review"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def work(self) -> Path:
        """Scratch space of running jobs; whatever lies here may be deleted between runs."""
        return self.root / "work"


class EncoderConfig(Frozen):
    """The pretrained encoders that a lake is embedded with, by the names of `guidelens.encoders.backbones`. All of a lake is of one encoder: with another
    one, ingest everything again, into a new lake."""

    image: Annotated[str, Field(pattern=f"^{DEFAULT_IMAGE_ENCODER}$|^[^:]+:.+$")] = DEFAULT_IMAGE_ENCODER
    text: Annotated[str, Field(pattern=f"^{DEFAULT_TEXT_ENCODER}$|^[^:]+:.+$")] = DEFAULT_TEXT_ENCODER


class IngestConfig(Frozen):
    """max_photo_*: caps before decoding. num_workers: parallel Ray Data tasks a stage. What a task holds grows with event_chunk_bytes and
    event_ids_per_task (16 bytes each); event_file_rows: rows of one of the lake's files of events, about."""

    max_photo_bytes: Annotated[int, Field(gt=0)] = 20 * 1024 * 1024
    max_photo_pixels: Annotated[int, Field(gt=0)] = 50_000_000
    num_workers: Annotated[int, Field(ge=1)] = 2
    photo_batch_size: Annotated[int, Field(ge=1)] = 32
    event_chunk_bytes: Annotated[int, Field(gt=0)] = 16 * 1024 * 1024
    event_file_rows: Annotated[int, Field(gt=0)] = 250_000
    event_ids_per_task: Annotated[int, Field(gt=0)] = 1_000_000
    encoders: EncoderConfig = EncoderConfig()
    rename: dict[str, str] = {}
    """Field of a contract by the name that the files give it, for every kind of record that has the field."""

    @field_validator("rename")
    @classmethod
    def _fields_of_a_contract(cls, rename: dict[str, str]) -> dict[str, str]:
        fields = [set(model.model_fields) for model in (Event, Product, Shopper, Review)]
        for given, name in rename.items():
            having = [known for known in fields if name in known]
            if not having:
                raise ValueError(f"ingest.rename must name fields of a contract, got {name!r} for {given!r}; docs/data.md lists them")
            if any(given in known for known in having):
                raise ValueError(f"ingest.rename must not rename a known field, got {given!r}; it would be read as two")
        return rename


class FeatureConfig(Frozen):
    """redis_connection: HOST:PORT. shopper_ttl_days: how old a shopper's row may be and still be used, in training and online; 0 for ever."""

    online_store: Literal["sqlite", "redis"] = "sqlite"
    redis_connection: str | None = None
    shopper_ttl_days: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @model_validator(mode="after")
    def _redis_needs_an_address(self) -> Self:
        if self.online_store == "redis" and self.redis_connection is None:
            raise ValueError("features.redis_connection must be set when features.online_store is redis, got none; use HOST:PORT")
        return self


Days = Annotated[int, Field(ge=1)]


class RetentionConfig(Frozen):
    """How many days each table keeps what: None keeps it. Nothing goes before `guidelens retention apply` runs.

    events_days: by the day (UTC) they happened. reviews_days: since they were written. quarantine_days, frames_days (photos of no product):
    since they came in. features_days: all features of a shopper, since anything was known of the shopper last.
    """

    events_days: Days | None = None
    reviews_days: Days | None = None
    quarantine_days: Days | None = None
    frames_days: Days | None = None
    features_days: Days | None = None


class TuningConfig(Frozen):
    """How the image encoder's last blocks are tuned on a shop's photos.

    num_shared_blocks: of the encoder's 16, stay frozen. num_views: random views of each photo, beside the plain one. family_weight: of the
    family head's loss beside the product head's. mixup: both parameters of the Beta distribution blends are drawn from; 0 blends nothing.
    head_scale: of the cosines that the heads' logits are while tuning; None for linear heads.
    averaging: share of the running average of weights that one step keeps. max_views: photos shown over all epochs, about; a shop with
    more gets fewer epochs. num_cross_fits: further fits, each without a quarter of the photos, on which confidences are calibrated;
    num_workers: fits that run at once.
    """

    min_products: Annotated[int, Field(ge=2)] = 10
    num_cross_fits: Annotated[int, Field(ge=1, le=4)] = 1
    num_workers: Annotated[int, Field(ge=1)] = 2
    max_views: Annotated[int, Field(ge=1)] = 30_000
    num_shared_blocks: Annotated[int, Field(ge=0, le=15)] = 9
    num_views: Annotated[int, Field(ge=0)] = 5
    epochs: Annotated[int, Field(ge=1)] = 8
    batch_size: Annotated[int, Field(ge=1)] = 32
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3e-4
    head_learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3e-3
    weight_decay: Weight = 0.02
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    mixup: Weight = 0.3
    family_weight: Weight = 0.5
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    head_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = 16.0
    averaging: Annotated[float, Field(ge=0, lt=1)] = 0.99


class RecognizerConfig(Frozen):
    """How photos are told apart, and what is held to be none of the catalogue; all of it found on photos held back, as new as tomorrow's.

    false_unknown_share: share of photos of the catalogue's own products that may be called "not in the catalogue". max_false_accepts:
    instead, share of photos of a product left out of the catalogue that may be taken for one in it. tuning: None leaves the encoder as it
    is, as do fewer than `tuning.min_products` products with photos.
    """

    false_unknown_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    max_false_accepts: Annotated[float, Field(gt=0, lt=1)] | None = None
    tuning: TuningConfig | None = TuningConfig()


class ModelConfig(Frozen):
    """The guide model's shape. width: of the intent and item vectors, and of the experts.

    num_experts: shared ones (mmoe, ple); num_task_experts: of each task beside them (ple), in each of num_expert_levels.
    expert_norm: each expert's output is normalized, so that none dies or drowns the others (HoME).
    target_attention: each candidate looks at the recent visits by itself (DIN). cross_layers, cross_rank: explicit feature
    crosses of a pair (DCN-v2), none by default. personal_gates: the profile scales each task's vector (PEPNet).
    """

    fusion: Fusion = "attention"
    sharing: Sharing = "mmoe"
    sequence: Sequence = "attention"
    width: Annotated[int, Field(ge=8)] = 64
    num_experts: Annotated[int, Field(ge=1)] = 4
    num_task_experts: Annotated[int, Field(ge=1)] = 1
    num_expert_levels: Annotated[int, Field(ge=1, le=4)] = 1
    expert_norm: bool = False
    target_attention: bool = False
    cross_layers: Annotated[int, Field(ge=0, le=4)] = 0
    cross_rank: Annotated[int, Field(ge=1)] = 16
    personal_gates: bool = False
    num_attention_heads: Annotated[int, Field(ge=1)] = 4
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    modality_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    id_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of products whose id vector is left out of a step, so that content alone has to place them (DropoutNet)."""
    content_noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.5
    """How far, in standard deviations of an axis, each product's image and text are moved at random in a training step, so that what is
    learned of a product holds for one that is nearly like it; 0 leaves them where they are."""
    num_profile_buckets: Annotated[int, Field(ge=2)] = 256
    without: tuple[Modality, ...] = ()
    """Modalities the model never sees: the ablations."""

    @model_validator(mode="after")
    def _levels_are_of_ple(self) -> Self:
        if self.num_expert_levels > 1 and self.sharing != "ple":
            raise ValueError(f"train.model.num_expert_levels above 1 needs sharing ple, got {self.sharing}; set train.model.sharing=ple or one level")
        if self.width % self.num_attention_heads:
            raise ValueError(
                f"train.model.width must be a multiple of num_attention_heads ({self.num_attention_heads}), got {_near(self.width, self.num_attention_heads)}"
            )
        return self


class ExtraTask(Frozen):
    """A task beside the three: one more head over the shared experts, for the products of a slate.

    label: what of the visit that followed it predicts. loss: `binary` (was there any: cross-entropy) or `mse` (of
    1 - exp(-value / median), the median being that of the training part's non-zero values). weight: its lambda.
    """

    label: VisitValue
    loss: Literal["binary", "mse"] = "binary"
    weight: Weight = 1.0


class BalancingConfig(Frozen):
    """How the tasks' losses (lambda x L each) are brought together; models/balancing.py names the papers.

    rate: step size of the method's own weights (uncertainty, gradnorm, famo). alpha: gradnorm's pull towards like speed of
    training. temperature: dwa's softmax. decay: famo's. radius: cagrad's c.
    """

    method: Balancing = "fixed"
    rate: Annotated[float, Field(gt=0)] = 0.025
    alpha: Annotated[float, Field(ge=0)] = 1.5
    temperature: Annotated[float, Field(gt=0)] = 2.0
    decay: Annotated[float, Field(ge=0)] = 1e-3
    radius: Annotated[float, Field(ge=0, lt=1)] = 0.4


class PlanCosts(Frozen):
    """What a guide's doings cost by the shop's own account, in shares of the product's margin; plans are weighted by it."""

    coupon: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Each coupon shown, of a purchase that follows it."""
    walkout: Annotated[float, Field(ge=0)] = 0.05
    """A session that the shopper walks out of."""
    human: Annotated[float, Field(ge=0)] = 0.12
    """A session handed to a human."""
    taken_back: Annotated[float, Field(ge=0)] = 0.15
    """A purchase that is returned."""


class PlanLearning(Frozen):
    """How the strategist's target weights are made from the log (docs/plans.md).

    targets: `imitation` of the logged steps; `advantage`: the same, weighted by what came of them; `fitted_q`: preferences among all allowed
    steps by their estimated values. sweeps: how many steps ahead values look beyond the step itself. temperatures, advantage_temperature: in
    shares of a margin; of the former, validation sessions choose one.
    """

    targets: Literal["imitation", "advantage", "fitted_q"] = "fitted_q"
    sweeps: Annotated[int, Field(ge=0)] = 5
    temperatures: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (0.005, 0.01, 0.02)
    advantage_temperature: Annotated[float, Field(gt=0)] = 0.25


Baseline = Literal["item_knn", "item_knn_pearson", "transitions", "ease", "content", "hybrid", "user_knn", "als", "ncf"]


class FallbackConfig(Frozen):
    """What answers where the model gives no answer in time (docs/serving.md): a classic recommender, fitted with the run, in its release.

    baseline: `none` leaves popularity alone to answer. num_neighbours: products that each product speaks for, 8 bytes each (not of `user_knn`, `als`, `ncf`).
    """

    baseline: Baseline | Literal["none"] = "transitions"
    num_neighbours: Annotated[int, Field(ge=1)] = 50


class TrainConfig(Frozen):
    """lambdas: weight of each task's loss; 0, or none given, leaves the task out. global_batch_size counts requests over all workers."""

    lambdas: dict[TaskName, Weight] = {"recommendation": 1.0, "interest": 1.0, "plan": 1.0}
    extra_tasks: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], ExtraTask] = {}
    balancing: BalancingConfig = BalancingConfig()
    model: ModelConfig = ModelConfig()
    recognizer: RecognizerConfig = RecognizerConfig()
    epochs: Annotated[int, Field(ge=1)] = 5
    global_batch_size: Annotated[int, Field(ge=2)] = 256
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    likeness_pace: Annotated[float, Field(ge=1, le=1000)] = 32.0
    """How many times the learning rate the weights of likeness learn at: few numbers that have several nats to go, where the others have
    hundredths. 1: as fast as all."""
    num_workers: Annotated[int, Field(ge=1)] = 1
    min_workers: Annotated[int, Field(ge=1)] | None = None
    """Fewest workers to go on with: training is elastic between them and num_workers. None: num_workers, no fewer."""
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    """Rows of a worker's batch that are taken at once; the gradients of the parts are summed. None: all of them."""
    precision: Literal["fp32", "bf16"] = "fp32"
    patience: Annotated[int, Field(ge=0)] = 0
    """Epochs without a better validation objective after which a model's training ends; 0 trains all epochs."""
    use_gpu: bool = False
    """A GPU a worker, over NCCL; the CPU over gloo otherwise."""
    device: Literal["auto", "cpu"] = "auto"
    """cpu: workers that Ray places on GPUs compute on the CPU all the same, as when a cluster is tried without its driver."""
    telemetry: bool = True
    """Measure, at the end of each epoch, how the tasks' gradients lie to each other and how the experts are used."""
    sharding: Literal["replicated", "rows"] = "replicated"
    """rows: each worker holds its share of the products' id vectors and biases, and of what the optimizer keeps for them, instead of all
    (which is what a single worker's share is)."""
    max_failures: Annotated[int, Field(ge=0)] = 2
    single_task_controls: bool = True
    validation_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    test_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.15
    interest_weights: tuple[Weight, Weight, Weight, Weight] = (0.4, 0.3, 0.2, 0.1)
    purchase_window_h: Annotated[float, Field(gt=0)] = 24.0
    margin_share: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Of a product's price, what a purchase is taken to earn when plans are weighted by their outcome."""
    plan_costs: PlanCosts = PlanCosts()
    plan_learning: PlanLearning = PlanLearning()
    fallback: FallbackConfig = FallbackConfig()
    num_threads: Annotated[int, Field(ge=1)] = 1

    @field_validator("lambdas")
    @classmethod
    def _of_every_task(cls, given: dict[TaskName, float]) -> dict[TaskName, float]:
        return {task: given.get(task, 0.0) for task in TASKS}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.global_batch_size % self.num_workers:
            raise ValueError(
                f"train.global_batch_size must be a multiple of num_workers ({self.num_workers}), got {_near(self.global_batch_size, self.num_workers)}"
            )
        if self.min_workers is not None and self.min_workers > self.num_workers:
            raise ValueError(f"train.min_workers must be at most num_workers ({self.num_workers}), got {self.min_workers}")
        if self.micro_batch_size is not None and self.balancing.method == "famo":
            raise ValueError("train.micro_batch_size cannot be set with balancing famo, which weighs by the whole batch's losses first; leave it out")
        if not any(weight > 0 for weight in self.lambdas.values()):
            raise ValueError(f"train.lambdas must leave at least one task in, got {self.lambdas}; set one above 0")
        taken = {"click", "purchase", "softmax", *TASKS} & set(self.extra_tasks)
        if taken:
            raise ValueError(f"train.extra_tasks must have names of their own, got {sorted(taken)}; call it otherwise")
        return self


class EvaluateConfig(Frozen):
    num_bootstrap: Annotated[int, Field(ge=0)] = 200
    plan_rollouts: Annotated[int, Field(ge=1)] = 4
    """Simulated runs of each test session when a plan is valued in the world."""


class GateConfig(Frozen):
    """A challenger passes where it is no worse than the champion by more than these margins. max_interest_rise: of the squared error, relative."""

    max_ndcg_drop: Annotated[float, Field(ge=0)] = 0.01
    max_ece: Annotated[float, Field(gt=0)] = 0.10
    max_slice_ndcg_drop: Annotated[float, Field(ge=0)] = 0.03
    max_interest_rise: Annotated[float, Field(ge=0)] = 0.05
    max_recognition_drop: Annotated[float, Field(ge=0)] = 0.03
    max_search_drop: Annotated[float, Field(ge=0)] = 0.03
    max_parity_error: Annotated[float, Field(gt=0)] = 1e-4


class RerankConfig(Frozen):
    """From scores to the slate that is shown (docs/ranking.md).

    diversity: what a slate gains by products unlike each other, over the guide model's product vectors; `strength` in nats of score.
    rules: a shop's rules, a YAML or JSON file; relative to the home. Where there is none, no rule but stock acts.
    """

    diversity: Literal["none", "mmr", "dpp"] = "none"
    strength: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.5
    rules: Path = Path("rules.yaml")


EMBEDDED = "embedded"


class SearchConfig(Frozen):
    """vectors: where a large catalogue's vectors are searched: `embedded` (in the release), or the address of a PostgreSQL with pgvector.
    An address holds no password, as it goes into runs and bundles: PGPASSWORD is read by whoever connects."""

    vectors: Annotated[str, Field(pattern=r"^(embedded|postgres(ql)?://.+)$")] = EMBEDDED

    @model_validator(mode="after")
    def _no_password(self) -> Self:
        if re.search(r"//[^/@]*:[^/@]*@|[?&]password=", self.vectors):
            raise ValueError("serve.search.vectors must hold no password, as it goes into runs and bundles; set PGPASSWORD")
        return self


class ReviewConfig(Frozen):
    """Frames that show nothing of the catalogue, kept for a person to say what they show: keep_days until an entry expires (0 keeps none),
    max_entries in all."""

    keep_days: Annotated[float, Field(ge=0, le=365)] = 30.0
    max_entries: Annotated[int, Field(ge=1, le=100_000)] = 1000


class ServeConfig(Frozen):
    """Explore: temperature of the Plackett-Luce draw over scores, and the share of uniformly drawn guide steps. plan_beam: plans that
    beam search keeps while it looks for the likeliest one; 1 takes the likeliest step each time.

    score_exactly_up_to: products up to which retrieval scores the whole catalogue; above, what the vector index nominates.
    fuse_frames: frames of one session that show the same view answer together. read_barcodes: where products have some.
    turn_unsure_frames: one that the recognizer is not sure of is looked at again, turned by quarters, where the deadline allows.
    brighten_dark_frames: those taken in the dark are looked at as bright as photos are.
    find_regions: several products in a frame are told apart for requests that ask for it, where the deadline allows.
    read_text: "unsure" reads the texts in a frame that the recognizer is not sure of, where the deadline allows; it needs `guidelens[ocr]`.
    """

    num_candidates: Annotated[int, Field(ge=1)] = 100
    score_exactly_up_to: Annotated[int, Field(ge=0)] = 20_000
    explore_temperature: Annotated[float, Field(ge=0)] = 0.05
    explore_step_share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    plan_beam: Annotated[int, Field(ge=1, le=64)] = 1
    fuse_frames: bool = True
    read_barcodes: bool = True
    turn_unsure_frames: bool = True
    brighten_dark_frames: bool = True
    find_regions: bool = True
    read_text: Literal["off", "unsure"] = "off"
    review: ReviewConfig = ReviewConfig()
    rerank: RerankConfig = RerankConfig()
    search: SearchConfig = SearchConfig()
    max_ongoing_requests: Annotated[int, Field(ge=1)] = 16
    max_queued_requests: Annotated[int, Field(ge=1)] = 64
    min_replicas: Annotated[int, Field(ge=1)] = 1
    max_replicas: Annotated[int, Field(ge=1)] = 2


class WorldSize(Frozen):
    """How much of the simulated shop is drawn; its behaviour lies in world/parameters.py and is not set here."""

    num_products: Annotated[int, Field(ge=12)] = 240
    num_shoppers: Annotated[int, Field(ge=20)] = 1200
    num_sessions: Annotated[int, Field(ge=100)] = 21_000
    num_frames: Annotated[int, Field(ge=20, le=2000)] = 600
    views_per_product: Annotated[int, Field(ge=2)] = 4
    num_days: Annotated[int, Field(ge=7)] = 28
    reference_sessions: Annotated[int, Field(ge=1000)] = 1_000_000


class DemoConfig(Frozen):
    """tuning: in place of `train.recognizer.tuning`, which takes longer than all of a demo."""

    tuning: TuningConfig | None = None
    world: WorldSize = WorldSize()
    num_requests: Annotated[int, Field(ge=20)] = 60


class Config(Frozen):
    """A whole run. It goes to workers as an argument, to MLflow, into checkpoints and into the bundle."""

    preset: str
    seed: Annotated[int, Field(ge=0)] = 0
    ingest: IngestConfig = IngestConfig()
    features: FeatureConfig = FeatureConfig()
    retention: RetentionConfig = RetentionConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    gate: GateConfig = GateConfig()
    serve: ServeConfig = ServeConfig()
    demo: DemoConfig = DemoConfig()
