"""The demo's last stage: real frames over HTTP to the served graph, answers as a person wants to read them, events back."""

import json
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np

from guidelens.errors import GuideLensError
from guidelens.evaluation.report import ServingReport
from guidelens.schemas.guide import GuideReply

NUM_PRINTED = 3
_CONTENT_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}


class Frame(NamedTuple):
    """A photo that no part of the model has seen, and the product it shows."""

    path: Path
    product_id: str


class Asked(NamedTuple):
    frame: Frame
    latency_ms: float
    reply: GuideReply | None
    problem: str | None


def spread(photos: Sequence[tuple[Path, str]], count: int) -> list[Frame]:
    """`count` of the photos, evenly over all of them; some twice where there are fewer."""
    stride = max(len(photos) / count, 1.0)
    return [Frame(*photos[int(number * stride) % len(photos)]) for number in range(count)]


def ask(url: str, frames: Sequence[Frame], shopper_ids: Sequence[str]) -> list[Asked]:
    """Sends each frame as multipart, one after another; a request that fails is kept with its reason."""
    asked = []
    with httpx.Client(base_url=url, timeout=30.0) as client:
        for number, frame in enumerate(frames):
            shopper_id = shopper_ids[number % len(shopper_ids)]
            asked.append(_ask_one(client, frame, {"shopper_id": shopper_id, "session_id": f"demo-{number}", "deadline_ms": 5000, "num_recommendations": 5}))
    return asked


def _ask_one(client: httpx.Client, frame: Frame, request: dict[str, object]) -> Asked:
    content_type = _CONTENT_TYPES.get(frame.path.suffix.lower(), "application/octet-stream")
    parts: dict[str, tuple[str | None, bytes | str, str]] = {
        "request": (None, json.dumps(request), "application/json"),
        "frame": (frame.path.name, frame.path.read_bytes(), content_type),
    }
    start = time.perf_counter()
    try:
        response = client.post("/v1/guide", files=parts)
    except httpx.HTTPError as error:
        return Asked(frame, (time.perf_counter() - start) * 1e3, None, repr(error))
    latency_ms = (time.perf_counter() - start) * 1e3
    if response.status_code != httpx.codes.OK:
        return Asked(frame, latency_ms, None, f"{response.status_code} {response.text[:200]}")
    return Asked(frame, latency_ms, GuideReply.model_validate_json(response.content), None)


def figures(asked: Sequence[Asked]) -> ServingReport:
    """What a client on this machine saw, one request at a time."""
    latencies = np.array([one.latency_ms for one in asked])
    replies = [one.reply for one in asked if one.reply is not None]
    stages = sorted({name for reply in replies for name in reply.timings_ms})
    return ServingReport(
        requests=len(asked),
        failed=len(asked) - len(replies),
        recognized_right=sum(
            one.reply is not None and bool(one.reply.recognized) and one.reply.recognized[0].product_id == one.frame.product_id for one in asked
        ),
        p50_ms=round(float(np.percentile(latencies, 50)), 2),
        p99_ms=round(float(np.percentile(latencies, 99)), 2),
        stages_p50_ms={name: round(float(np.median([reply.timings_ms[name] for reply in replies if name in reply.timings_ms])), 2) for name in stages},
    )


def as_text(one: Asked, titles: dict[str, str]) -> str:
    """An answer as a person would want to read it."""
    shows = titles.get(one.frame.product_id, one.frame.product_id)
    lines = [f"frame {one.frame.path.name} (it shows: {shows})"]
    if one.reply is None:
        return "\n".join([*lines, f"  failed      {one.problem}"])
    reply = one.reply
    if reply.in_catalogue:
        seen = ", ".join(f"{item.title} {item.confidence:.0%}" for item in reply.recognized[:2])
        facts = "; ".join(f"{name}: {value}" for name, value in list(reply.recognized[0].facts.items())[:3])
        lines.append(f"  recognized  {seen}" + (f"  [{facts[:100]}]" if facts else ""))
    else:
        lines.append("  recognized  nothing: not in the catalogue")
    for item in reply.slate[:3]:
        interest = "" if item.interest is None else f", interest {item.interest:.2f}"
        lines.append(f"  recommends  {item.position}. {item.title} (score {item.score:.2f}{interest}): {'; '.join(item.reasons[:2])}")
    lines.append("  the guide   " + " -> ".join(step.step for step in reply.plan))
    lines.append(f"  answered    by release {reply.release} in {one.latency_ms:.0f} ms" + (f", degraded: {reply.degraded}" if reply.degraded else ""))
    return "\n".join(lines)


def send_feedback(url: str, asked: Sequence[Asked], shopper_ids: Sequence[str]) -> int:
    """A click on each answer's first recommendation, and "engaged" with its first guide step; how many were taken in.

    Raises:
        GuideLensError: the served graph did not take the events.
    """
    now = datetime.now(UTC).isoformat()
    events: list[dict[str, object]] = []
    for number, one in enumerate(asked):
        if one.reply is None or not one.reply.slate:
            continue
        who = {"shopper_id": shopper_ids[number % len(shopper_ids)], "session_id": f"demo-{number}", "request_id": one.reply.request_id, "event_ts": now}
        first = one.reply.slate[0]
        events.append({**who, "event_id": uuid.uuid4().hex, "type": "click", "product_id": first.product_id, "position": first.position})
        if one.reply.plan:
            step = one.reply.plan[0]
            shown = {"product_id": step.product_id, "step": step.step, "step_index": 0, "step_propensity": step.propensity}
            events.append({**who, "event_id": uuid.uuid4().hex, "type": "guide_step", **shown})
            events.append({**who, "event_id": uuid.uuid4().hex, "type": "step_outcome", "product_id": step.product_id, "step_index": 0, "outcome": "engaged"})
    response = httpx.post(f"{url}/v1/events", json={"events": events}, timeout=30.0)
    taken: int = response.json().get("accepted", 0) if response.status_code == httpx.codes.ACCEPTED else 0
    if taken != len(events):
        raise GuideLensError(f"POST /v1/events must take {len(events)} events, took {taken}: {response.status_code} {response.text[:300]}")
    return taken
