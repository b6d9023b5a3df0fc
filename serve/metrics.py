"""Counters and latencies of one ingress replica, in Prometheus' text format at /metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)


class ServeMetrics:
    """A registry of its own, so that several can live in one process (tests)."""

    def __init__(self, release: str) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter("guidelens_requests", "HTTP requests answered", ["route", "status"], registry=self._registry)
        self.guide_replies = Counter("guidelens_guide_replies", "Guide replies by rung of the fallback ladder", ["degraded"], registry=self._registry)
        self.searches = Counter("guidelens_searches", "Searches by whether the shop had what was meant", ["answered"], registry=self._registry)
        self.stage_seconds = Histogram("guidelens_stage_seconds", "Seconds spent in a stage", ["stage"], buckets=_SECONDS, registry=self._registry)
        self.hop_failures = Counter("guidelens_hop_failures", "Hops that gave no answer in time", ["hop"], registry=self._registry)
        self.rule_effects = Counter("guidelens_rule_effects", "Products that a rule of the shop moved, by rule", ["rule", "kind"], registry=self._registry)
        self.rules_refused = Gauge("guidelens_rules_refused", "1 where the home's rules cannot be used and older ones are in force", registry=self._registry)
        self.feature_reads = Counter("guidelens_shopper_feature_reads", "Shopper rows asked of the online store", registry=self._registry)
        self.events = Counter("guidelens_events", "Events posted, by what became of them", ["result"], registry=self._registry)
        self.online_updates = Counter("guidelens_online_updates", "Events counted into online features, by result", ["result"], registry=self._registry)
        self.exposures = Counter("guidelens_exposures", "Exposure events, by what became of them", ["result"], registry=self._registry)
        self.in_flight = Gauge("guidelens_guide_in_flight", "Guide requests being answered", registry=self._registry)
        Gauge("guidelens_release", "The release this replica serves", ["release"], registry=self._registry).labels(release).set(1)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def observed(self, went_well: bool, num_events: int) -> None:
        """What became of events that were to be counted into online features."""
        self.online_updates.labels("done" if went_well else "failed").inc(num_events)
