"""The routes of search: `POST /v1/search` and `GET /v1/suggest`."""

from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from starlette.responses import Response

from guidelens.schemas.guide import MAX_TEXT_CHARS
from guidelens.schemas.search import SearchReply, SearchRequest, SuggestReply
from serve import search
from serve.desk import Desk
from serve.hops import HopOverloadedError
from serve.problems import ApiError, overloaded
from serve.requests import checked_embedding, checked_fields, read_call

Problems = dict[int | str, dict[str, Any]]


def add_search(app: FastAPI, desk: Desk, problems: Problems, body: dict[str, Any]) -> None:
    """Args:
    problems, body: what openapi.json says of errors and of the request.
    """

    @app.post("/v1/search", response_model=SearchReply, responses=problems, openapi_extra=body, summary="Products that words, a photo or both ask for")
    async def find(request: Request) -> Response:
        with desk.admission():
            asked = await _read(request)
            request_id = asked.fields.request_id or request.state.request_id
            request.state.request_id = request_id
            try:
                reply = await search.answer(desk.graph, request_id, asked, desk.readable_key(asked.fields))
            except HopOverloadedError as error:
                raise overloaded(str(error)) from error
            desk.exposures.put(search.impressions(asked.fields, reply))
        desk.metrics.searches.labels(str(reply.answered).lower()).inc()
        for stage, milliseconds in reply.timings_ms.items():
            desk.metrics.stage_seconds.labels(f"search_{stage}").observe(milliseconds / 1000)
        return Response(reply.model_dump_json(), media_type="application/json")

    @app.get("/v1/suggest", response_model=SuggestReply, responses=problems, summary="What may be meant by what was typed so far")
    async def suggest(q: Annotated[str, Query(min_length=1, max_length=MAX_TEXT_CHARS)], num: Annotated[int, Query(ge=1, le=20)] = 8) -> Response:
        with desk.admission():
            try:
                reply = await search.suggest(desk.graph, q, num)
            except HopOverloadedError as error:
                raise overloaded(str(error)) from error
        return Response(reply.model_dump_json(), media_type="application/json")


async def _read(request: Request) -> search.AskedSearch:
    body, frame = await read_call(request)
    fields = checked_fields(body, frame, SearchRequest)
    embedding = checked_embedding(fields.image_embedding)
    if frame is None and embedding is None and not (fields.text or "").strip() and fields.filters.is_empty:
        raise ApiError("empty_request", "at least one of text, frame, image_embedding and filters must be there, got none of them")
    return search.AskedSearch.of(fields, frame, embedding)
