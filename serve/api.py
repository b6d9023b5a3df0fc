"""The HTTP API: routes, the error envelope, the page. Holds no model and knows nothing of Ray."""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from guidelens.errors import GuideLensError
from guidelens.schemas.base import Frozen
from guidelens.schemas.events import Event, clock_problem
from guidelens.schemas.guide import ErrorReply, EventsReply, EventsRequest, GuideReply, GuideRequest, RejectedEvent
from guidelens.schemas.search import SearchRequest
from serve.catalogue import ProductView
from serve.desk import Desk
from serve.exposures import Shown, impressions
from serve.graph import device_name
from serve.hops import HopOverloadedError
from serve.problems import ApiError, field_problem, of_status, overloaded, problem_response
from serve.requests import Asked, read_events_request, read_guide_request
from serve.search_api import add_search

log = logging.getLogger(__name__)
WEB = Path(__file__).parent / "web"
DEVICE_ENCODER_PATH = "/v1/encoder.onnx"
_SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; "
        "connect-src 'self' blob: data:; worker-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), xr-spatial-tracking=(self), microphone=(), geolocation=()",
}


class Health(Frozen):
    status: str


class CurrentRelease(Frozen):
    """What is being served. `missing` names the inputs that the release was trained without; `baseline` the recommender behind the rung
    of that name, and `device_encoder` the address of the image encoder for shoppers' devices, null where the release carries none."""

    release: str
    run_id: str | None
    num_products: int
    missing: tuple[str, ...]
    baseline: str | None
    device_encoder: str | None


def build_api(desk: Desk) -> FastAPI:
    """The whole HTTP surface around one `Desk`."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        desk.start()
        yield
        await desk.stop()

    app = FastAPI(title="GuideLens", version="1", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.middleware("http")(_observed(desk))
    _add_problem_replies(app)
    _add_guide(app, desk)
    add_search(app, desk, _PROBLEMS, _body_of("SearchRequest", with_frame=True))
    _add_products(app, desk)
    _add_operations(app, desk)
    _add_page(app, desk)
    _add_openapi(app)
    _answer_head(app)
    return app


def _observed(desk: Desk) -> Callable[[Request, Callable[[Request], Awaitable[Response]]], Awaitable[Response]]:
    """Gives each request its id, counts it, and answers what nothing else caught."""

    async def observe(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        request.state.request_id = uuid.uuid4().hex
        try:
            response = await call_next(request)
        except Exception:
            log.exception("request %s failed", request.state.request_id)
            response = problem_response(ApiError("internal", "something of ours broke; the log knows it by this request_id"), request.state.request_id)
        route = request.scope.get("route")
        desk.metrics.requests.labels(getattr(route, "path", "unknown"), str(response.status_code)).inc()
        return response

    return observe


def _add_problem_replies(app: FastAPI) -> None:
    async def on_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return problem_response(error, request.state.request_id)

    async def on_status(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        detail = f"{request.method} {request.url.path}: {error.detail}"
        return problem_response(of_status(error.status_code, detail, error.headers), request.state.request_id)

    async def on_fields(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem_response(field_problem([dict(each) for each in error.errors()]), request.state.request_id)

    app.add_exception_handler(ApiError, on_problem)
    app.add_exception_handler(HTTPException, on_status)
    app.add_exception_handler(RequestValidationError, on_fields)


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorReply, "description": what}
    for status, what in {
        400: "The request or its frame cannot be read",
        404: "No such thing",
        405: "The route takes another method",
        408: "The body came too slowly",
        413: "The frame or the body is too large",
        415: "The frame or the body is of another type",
        422: "A field is outside its limits",
        500: "Something of ours broke",
        503: "Too many requests, or not ready; see Retry-After",
        504: "No answer within deadline_ms",
    }.items()
}


def _body_of(model: str, with_frame: bool = False) -> dict[str, Any]:
    reference = {"$ref": f"#/components/schemas/{model}"}
    content: dict[str, Any] = {"application/json": {"schema": reference}}
    if with_frame:
        parts = {"request": reference, "frame": {"type": "string", "format": "binary", "description": "JPEG, PNG or WebP"}}
        content["multipart/form-data"] = {"schema": {"type": "object", "properties": parts}, "encoding": {"request": {"contentType": "application/json"}}}
    return {"requestBody": {"required": True, "content": content}}


def _add_guide(app: FastAPI, desk: Desk) -> None:
    @app.post(
        "/v1/guide", response_model=GuideReply, responses=_PROBLEMS, openapi_extra=_body_of("GuideRequest", with_frame=True), summary="What to show and do next"
    )
    async def guide(request: Request) -> Response:
        with desk.admission():
            asked = await read_guide_request(request)
            request_id = asked.fields.request_id or request.state.request_id
            request.state.request_id = request_id
            reply = await _answer(desk, request_id, asked)
        return Response(reply.model_dump_json(), media_type="application/json")

    @app.post("/v1/events", status_code=202, response_model=EventsReply, responses=_PROBLEMS, openapi_extra=_body_of("EventsRequest"), summary="What happened")
    async def events(request: Request) -> Response:
        reply = await take_events(desk, await read_events_request(request))
        return Response(reply.model_dump_json(), status_code=202, media_type="application/json")


async def _answer(desk: Desk, request_id: str, asked: Asked) -> GuideReply:
    try:
        reply = await desk.graph.answer(request_id, asked, desk.readable_key(asked.fields), desk.session(asked.fields.session_id))
    except HopOverloadedError as error:
        raise overloaded(str(error)) from error
    shown = (Shown(item.product_id, item.position, item.propensity) for item in reply.slate)
    desk.exposures.put(impressions(asked.fields, request_id, reply.release, shown, device_name(asked.fields)))
    return reply


async def take_events(desk: Desk, request: EventsRequest) -> EventsReply:
    """Checks each event by itself and appends the good ones durably.

    Raises:
        ApiError: the inbox cannot be written.
    """
    good: list[Event] = []
    rejected: list[RejectedEvent] = []
    for index, raw in enumerate(request.events):
        try:
            event = Event.model_validate(raw)
        except ValidationError as error:
            problem = field_problem([dict(each) for each in error.errors(include_url=False)])
            rejected.append(RejectedEvent(index=index, code="invalid_field", message=problem.message))
            continue
        late = clock_problem(event, desk.now())
        if late is None:
            good.append(event)
        else:
            rejected.append(RejectedEvent(index=index, code="future_event", message=late[1]))
    try:
        accepted, duplicate = await asyncio.to_thread(desk.append, good) if good else (0, 0)
    except (GuideLensError, OSError) as error:
        log.error("events could not be written: %s", error)
        raise ApiError("unavailable", "the events could not be stored; send them again", {"Retry-After": "1"}) from error
    desk.remember(good)
    for result, number in (("accepted", accepted), ("duplicate", duplicate), ("rejected", len(rejected))):
        desk.metrics.events.labels(result).inc(number)
    return EventsReply(accepted=accepted, duplicate=duplicate, rejected=tuple(rejected))


def _add_products(app: FastAPI, desk: Desk) -> None:
    """A product id may hold slashes, so the longer routes come first."""
    missing: dict[int | str, dict[str, Any]] = {404: _PROBLEMS[404]}

    def row_of(product_id: str) -> int:
        row = desk.graph.catalogue.row_of.get(product_id)
        if row is None:
            raise ApiError("not_found", f"release {desk.graph.release} holds no product {product_id[:80]!r}")
        return row

    @app.get("/v1/products/{product_id:path}/image", response_class=FileResponse, responses=missing, summary="The product's picture")
    async def image(product_id: str) -> Response:
        path = desk.graph.catalogue.image_path(row_of(product_id))
        if path is None:
            raise ApiError("not_found", f"product {product_id[:80]!r} has no picture in release {desk.graph.release}")
        return FileResponse(path, media_type="image/jpeg", headers={"Cache-Control": "max-age=300"})

    @app.get("/v1/products/{product_id:path}/model.glb", responses=missing, response_class=Response, summary="The product in metres, as binary glTF")
    async def model(product_id: str) -> Response:
        row = row_of(product_id)
        own = desk.graph.catalogue.model_path(row)
        if own is not None:
            return FileResponse(own, media_type="model/gltf-binary", headers={"Cache-Control": "max-age=300"})
        view = desk.graph.catalogue.items[row].view
        data = await asyncio.to_thread(desk.model, view)
        if data is None:
            raise ApiError(
                "not_found", f"product {product_id[:80]!r} has no model of its own, and its dimensions are not known, so there is none in true metres"
            )
        return Response(data, media_type="model/gltf-binary", headers={"Cache-Control": "max-age=300"})

    @app.get("/v1/products/{product_id:path}", response_model=ProductView, responses=missing, summary="Facts, size, picture and 3-D model of a product")
    async def product(product_id: str) -> Response:
        return Response(desk.graph.catalogue.items[row_of(product_id)].view.model_dump_json(), media_type="application/json")


def _add_operations(app: FastAPI, desk: Desk) -> None:
    @app.get("/healthz", response_model=Health, summary="The process is up")
    async def health() -> Health:
        return Health(status="ok")

    @app.get("/readyz", response_model=Health, responses={503: _PROBLEMS[503]}, summary="A release is loaded and every hop has answered")
    async def ready() -> Health:
        await desk.check_ready()
        return Health(status="ready")

    @app.get("/v1/releases/current", response_model=CurrentRelease, summary="What is being served")
    async def current() -> CurrentRelease:
        graph = desk.graph
        return CurrentRelease(
            release=graph.release,
            run_id=desk.run_id,
            num_products=len(graph.catalogue.items),
            missing=graph.missing,
            baseline=None if graph.baseline is None else graph.baseline.header.baseline,
            device_encoder=None if graph.catalogue.device_encoder is None else DEVICE_ENCODER_PATH,
        )

    @app.get(
        DEVICE_ENCODER_PATH, response_class=FileResponse, responses={404: _PROBLEMS[404]}, summary="The release's image encoder for a shopper's device, as ONNX"
    )
    async def encoder() -> Response:
        found = desk.graph.catalogue.device_encoder
        if found is None:
            raise ApiError("not_found", f"release {desk.graph.release} carries no encoder for devices; send frames, or release again")
        return FileResponse(found.path, media_type="application/octet-stream", headers={"Cache-Control": "no-cache", "ETag": f'"{found.id}"'})

    @app.get("/metrics", response_class=Response, summary="Counters and latencies of this replica, as Prometheus reads them")
    async def metrics() -> Response:
        return Response(desk.metrics.text(), media_type="text/plain; version=0.0.4")


def _add_page(app: FastAPI, desk: Desk) -> None:
    has_viewer = (WEB / "vendor" / "model-viewer.min.js").is_file()
    has_runtime = (WEB / "vendor" / "ort.wasm.min.mjs").is_file()
    html = (WEB / "index.html").read_text().replace("{{viewer}}", "yes" if has_viewer else "no")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        embeds = has_runtime and desk.graph.catalogue.device_encoder is not None
        return HTMLResponse(html.replace("{{embedder}}", "yes" if embeds else "no"), headers=_SECURITY_HEADERS | {"Cache-Control": "no-cache"})

    app.mount("/page", StaticFiles(directory=WEB / "page"), name="page")
    app.mount("/vendor", StaticFiles(directory=WEB / "vendor", check_dir=False), name="vendor")


def _add_openapi(app: FastAPI) -> None:
    def describe() -> dict[str, Any]:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes, description="Point a camera, get a guide.")
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for model in (GuideRequest, SearchRequest, EventsRequest, Event):
            found = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(found.pop("$defs", {}))
            schemas[model.__name__] = found
        return document

    document = describe()

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return JSONResponse(document)


def _answer_head(app: FastAPI) -> None:
    """Whatever answers GET answers HEAD too; called once the routes are described, which would name each of them twice."""
    for route in app.routes:
        if isinstance(route, APIRoute) and route.methods and "GET" in route.methods:
            route.methods.add("HEAD")
