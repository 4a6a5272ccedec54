"""Errors as responses: problem details, as RFC 9457 describes them. All errors of the service come through here."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException

from app.logs import request_id


class Problem(BaseModel):
    """`errors` says for each wrong field of the request what is wrong. It is empty if no field is the reason.

    With `request_id`, support finds the lines of the request in the log.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: dict[str, str] = {}
    request_id: str | None = None


MEDIA_TYPE = "application/problem+json"

DOCUMENTED: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "A problem",
        "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema(mode="serialization")}},
    }
}
"""For the OpenAPI document: every status that an endpoint does not list by itself comes with a Problem."""

STATUSES = {"23502": 422, "23503": 422, "23505": 409, "23514": 422}
"""For a column that is NOT NULL, a foreign key, a unique constraint, and a CHECK that a client has violated."""

CONSTRAINTS = {
    "uq_books_isbn": (409, "this ISBN is taken"),
    "uq_customers_email": (409, "this e-mail is registered"),
    "uq_reviews_book_id_customer_id": (409, "this customer has reviewed the book"),
    "fk_books_author_id_authors": (422, "there is no such author"),
    "fk_reviews_customer_id_customers": (422, "there is no such customer"),
    "fk_order_lines_book_id_books": (409, "the book is in orders"),
    "orders_within_credit": (409, "the customer's credit is not enough"),
}
"""Constraints for which there is something better to say. The text of the error itself holds SQL and what was sent."""


def problem(
    status: int, detail: str, headers: dict[str, str] | None = None, errors: dict[str, str] | None = None
) -> JSONResponse:
    said = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        errors=errors or {},
        request_id=request_id.get(),
    )
    return JSONResponse(said.model_dump(), status, headers=headers, media_type=MEDIA_TYPE)


def answer_problems(app: FastAPI) -> None:
    app.add_exception_handler(HTTPException, refused)  # Starlette's: an unknown path raises it, not FastAPI's subclass
    app.add_exception_handler(RequestValidationError, rejected)
    app.add_exception_handler(DBAPIError, violated)
    app.add_exception_handler(Exception, failed)


async def refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, error.detail, headers=dict(error.headers or {}))


async def rejected(request: Request, error: Exception) -> JSONResponse:
    """Says what is wrong with a request, and never repeats it: it may hold a password."""
    assert isinstance(error, RequestValidationError)
    errors = {".".join(map(str, one["loc"])): one["msg"] for one in error.errors()}
    return problem(422, "the request is not valid", errors=errors)


async def violated(request: Request, error: Exception) -> JSONResponse:
    """Translates what PostgreSQL refuses because of the client's values. Other errors of the database are ours: 500."""
    assert isinstance(error, DBAPIError)
    sqlstate = str(getattr(error.orig, "sqlstate", ""))
    constraint = getattr(error.orig.__cause__ if error.orig else None, "constraint_name", None)
    if constraint in CONSTRAINTS:
        return problem(*CONSTRAINTS[constraint])
    if sqlstate == "23503" and request.method == "DELETE":
        return problem(409, "something refers to this")
    if sqlstate in STATUSES:
        return problem(STATUSES[sqlstate], "a value is not allowed")
    if sqlstate.startswith("22"):
        return problem(422, "a value is out of range")
    raise error


async def failed(request: Request, error: Exception) -> JSONResponse:
    """Starlette raises the error again after this response, so the server logs it.

    This response passes none of our middleware, so it gets its header here.
    """
    headers = {"X-Request-ID": request_id.get() or ""}
    return problem(500, "the service has failed, and its log says why", headers=headers)
