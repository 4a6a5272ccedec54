"""Errors as responses: problem details, as RFC 9457 describes them. All errors of the service come through here."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError


class Problem(BaseModel):
    """`errors` says for each wrong field of the request what is wrong. It is empty if no field is the reason."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: dict[str, str] = {}


MEDIA_TYPE = "application/problem+json"

DOCUMENTED: dict[int | str, dict[str, Any]] = {404: {"description": "Not found"}}
"""For the OpenAPI document."""


def problem(
    status: int, detail: str, headers: dict[str, str] | None = None, errors: dict[str, str] | None = None
) -> JSONResponse:
    said = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, errors=errors or {})
    return JSONResponse(said.model_dump(), status, headers=headers, media_type=MEDIA_TYPE)


def answer_problems(app: FastAPI) -> None:
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RequestValidationError, rejected)
    app.add_exception_handler(IntegrityError, violated)


async def refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, error.detail)


async def rejected(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = {".".join(map(str, one["loc"])): f"{one['msg']}: {one['input']!r}" for one in error.errors()}
    return problem(422, "the request is not valid", errors=errors)


async def violated(request: Request, error: Exception) -> JSONResponse:
    """What PostgreSQL refuses."""
    assert isinstance(error, IntegrityError)
    return problem(409, str(error))
