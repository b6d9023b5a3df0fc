"""From an HTTP request to a checked GuideRequest: caps before parsing, multipart or JSON, one clear problem for each fault.

Knows nothing of what the answer will be.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from guidelens.schemas.guide import MAX_FRAME_BYTES, EventsRequest, GuideRequest
from guidelens.schemas.tables import IMAGE_DIM
from serve.problems import ApiError, field_problem

Fields = TypeVar("Fields", bound=BaseModel)

MAX_JSON_BYTES = 256 * 1024
MAX_EVENTS_BYTES = 2 * 1024 * 1024
BODY_SECONDS = 10.0
MAX_EMBEDDING_VALUE = 1e4
"""Far above what the encoder yields (its channels stay below 100), far below where float32 sums overflow."""
_SLACK_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Asked:
    """A guide request as it came: the checked fields, and the frame's bytes or the device's embedding, if any."""

    fields: GuideRequest
    frame: bytes | None
    embedding: NDArray[np.float32] | None


async def read_guide_request(request: Request) -> Asked:
    """The request of `POST /v1/guide`.

    Raises:
        ApiError: of a code of STATUS_OF, whatever the caller sent.
    """
    return _checked(*await read_call(request))


async def read_call(request: Request) -> tuple[bytes, bytes | None]:
    """The JSON and the frame of a call that may hold one.

    Raises:
        ApiError: neither JSON nor multipart, too large, or broken.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return await read_body(request, MAX_JSON_BYTES), None
    if kind == "multipart/form-data":
        body = await read_body(request, MAX_FRAME_BYTES + MAX_JSON_BYTES + _SLACK_BYTES, holds_frame=True)
        return await _parts(request.headers, body)
    raise ApiError("content_type", f"content-type must be application/json or multipart/form-data, got {kind or 'none'!r}")


async def read_events_request(request: Request) -> EventsRequest:
    """The request of `POST /v1/events`; single events are not checked yet.

    Raises:
        ApiError: of a code of STATUS_OF.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in {"application/json", "text/plain"}:
        raise ApiError("content_type", f"content-type must be application/json, got {kind or 'none'!r}")
    body = await read_body(request, MAX_EVENTS_BYTES)
    tree = _json(body, "the body")
    try:
        return EventsRequest.model_validate(tree)
    except ValidationError as error:
        raise field_problem([dict(each) for each in error.errors(include_url=False)]) from error


async def read_body(request: Request, limit: int, holds_frame: bool = False) -> bytes:
    """At most `limit` bytes, within BODY_SECONDS; what is larger is refused before it is read, where its length is known."""
    claimed = request.headers.get("content-length", "")
    if claimed.isdigit() and int(claimed) > limit:
        raise _too_large(int(claimed), limit, holds_frame)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise _too_large(size, limit, holds_frame)
                chunks.append(chunk)
    except TimeoutError as error:
        raise ApiError("slow_body", f"the body must arrive within {BODY_SECONDS:.0f} s, got {size} bytes in that time") from error
    except ClientDisconnect as error:
        raise ApiError("invalid_body", f"the connection closed after {size} bytes of the body") from error
    return b"".join(chunks)


def _too_large(size: int, limit: int, holds_frame: bool) -> ApiError:
    if holds_frame:
        return _frame_too_large(size)
    return ApiError("body_too_large", f"the body has {_amount(size)}; the limit is {_amount(limit)}")


def _frame_too_large(size: int) -> ApiError:
    return ApiError("frame_too_large", f"frame has {_amount(size)}; the limit is {_amount(MAX_FRAME_BYTES)}")


def _amount(size: int) -> str:
    mega = size / 2**20
    return f"{mega:.1f} MB".replace(".0 MB", " MB") if mega >= 1 else f"{size / 2**10:.0f} KB"


class _WholeParser(MultiPartParser):
    """Remembers whether the closing boundary came, and keeps a part without a filename as the bytes it is: one latin-1 character a byte."""

    is_whole = False

    def on_headers_finished(self) -> None:
        self._charset = "latin-1"
        super().on_headers_finished()

    def on_end(self) -> None:
        self.is_whole = True

    def close_files(self) -> None:
        """Closes the file of a part that never ended, which the form does not hold."""
        for file in self._files_to_close_on_error:
            file.close()


async def _parts(headers: Headers, body: bytes) -> tuple[bytes, bytes | None]:
    async def stream() -> AsyncIterator[bytes]:
        yield body

    parser = _WholeParser(headers, stream(), max_files=2, max_fields=4, max_part_size=MAX_FRAME_BYTES + _SLACK_BYTES)  # type: ignore[arg-type]
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        raise ApiError("invalid_body", f"the multipart body cannot be read: {getattr(error, 'message', error)}") from error
    try:
        if not parser.is_whole:
            parser.close_files()
            raise ApiError("invalid_body", f"the multipart body must end with its closing boundary, got {len(body)} bytes without it; send all of it")
        unknown = sorted(set(form) - {"request", "frame"})
        if unknown:
            raise ApiError("invalid_field", f"a multipart body may hold the parts request and frame, got also {', '.join(unknown)[:80]}")
        twice = next((name for name in form if len(form.getlist(name)) > 1), None)
        if twice is not None:
            raise ApiError("invalid_field", f"{twice}: a multipart body may hold the part once, got it {len(form.getlist(twice))} times")
        fields = await _bytes_of(form.get("request"))
        if isinstance(form.get("frame"), str):
            raise ApiError("invalid_body", "the part frame must be sent as a file: give it a filename")
        frame = await _bytes_of(form.get("frame"))
    finally:
        await form.close()
    return fields or b"{}", frame


async def _bytes_of(part: UploadFile | str | None) -> bytes | None:
    if isinstance(part, UploadFile):
        return await part.read()
    return None if part is None else part.encode("latin-1")


def _json(body: bytes, what: str) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError("invalid_body", f"{what} must be JSON: {error}") from error


def _checked(body: bytes, frame: bytes | None) -> Asked:
    fields = checked_fields(body, frame, GuideRequest)
    embedding = checked_embedding(fields.image_embedding)
    if frame is None and embedding is None and not (fields.text or fields.shopper_id or fields.session_id):
        raise ApiError("empty_request", "at least one of frame, image_embedding, text, shopper_id and session_id must be there, got none of them")
    return Asked(fields, frame, embedding)


def checked_fields(body: bytes, frame: bytes | None, schema: type[Fields]) -> Fields:
    """The JSON of a call as `schema` has it, and the frame within its limits.

    Raises:
        ApiError: the first thing that is wrong.
    """
    if len(body) > MAX_JSON_BYTES:
        raise _too_large(len(body), MAX_JSON_BYTES, holds_frame=False)
    if frame is not None and len(frame) > MAX_FRAME_BYTES:
        raise _frame_too_large(len(frame))
    if frame == b"":
        raise ApiError("frame_unreadable", "the part frame must hold a JPEG, PNG or WebP image, got 0 bytes")
    tree = _json(body, "the request")
    if not isinstance(tree, dict):
        raise ApiError("invalid_body", f"the request must be a JSON object, got {type(tree).__name__}")
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        raise field_problem([dict(each) for each in error.errors(include_url=False)]) from error


def checked_embedding(values: tuple[float, ...] | None) -> NDArray[np.float32] | None:
    if values is None:
        return None
    if len(values) not in (IMAGE_DIM, 2 * IMAGE_DIM):
        raise ApiError("invalid_field", f"image_embedding: must be {IMAGE_DIM} numbers, or {2 * IMAGE_DIM} of the release's encoder, got {len(values)}")
    embedding = np.array(values)
    wrong = np.flatnonzero(~(np.abs(embedding) <= MAX_EMBEDDING_VALUE))
    if len(wrong):
        where = int(wrong[0])
        raise ApiError("invalid_field", f"image_embedding.{where}: must lie within +-{MAX_EMBEDDING_VALUE:g}, got {values[where]}")
    return embedding.astype(np.float32)
