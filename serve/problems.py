"""What a caller is told when there is no answer: one envelope for every error of the API."""

from collections.abc import Mapping

from starlette.responses import Response

from guidelens.errors import GuideLensError
from guidelens.schemas.guide import ErrorBody, ErrorReply

STATUS_OF = {
    "empty_request": 400,
    "frame_unreadable": 400,
    "frame_too_large": 413,
    "body_too_large": 413,
    "frame_type": 415,
    "content_type": 415,
    "invalid_field": 422,
    "invalid_body": 400,
    "not_found": 404,
    "method_not_allowed": 405,
    "slow_body": 408,
    "overloaded": 503,
    "not_ready": 503,
    "unavailable": 503,
    "deadline_exceeded": 504,
    "internal": 500,
}


class ApiError(GuideLensError):
    """Ends a request with `{"error": {code, message, request_id}}` and the code's HTTP status."""

    def __init__(self, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.headers = dict(headers or {})

    @property
    def status(self) -> int:
        return STATUS_OF[self.code]


def overloaded(what: str) -> ApiError:
    return ApiError("overloaded", f"{what}; try again in a second", {"Retry-After": "1"})


def problem_response(problem: ApiError, request_id: str) -> Response:
    body = ErrorReply(error=ErrorBody(code=problem.code, message=problem.message, request_id=request_id))
    return Response(body.model_dump_json(), status_code=problem.status, media_type="application/json", headers=problem.headers)


def of_status(status: int, detail: str, headers: Mapping[str, str] | None = None) -> ApiError:
    """The problem behind a bare HTTP status of the framework (no such route, wrong method, …)."""
    named = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large", 415: "content_type"}
    code = named.get(status, "invalid_body" if status < 500 else "internal")
    return ApiError(code, detail, headers)


def field_problem(errors: list[dict[str, object]], where: str = "") -> ApiError:
    """The first of pydantic's complaints as subject, rule and value."""
    first = errors[0]
    location = first.get("loc")
    parts = location if isinstance(location, tuple | list) else ()
    name = ".".join([where, *(str(part) for part in parts)] if where else [str(part) for part in parts]) or "request"
    got = repr(first.get("input"))
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return ApiError("invalid_field", f"{name}: {first.get('msg')}, got {got if len(got) <= 80 else got[:77] + '...'}{more}")
