"""Faults as answers: a page for whoever opened one, a sentence in JSON for a script; neither shows a path."""

from __future__ import annotations

import re
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.templating import Jinja2Templates
from starlette.exceptions import HTTPException

from nsclc_mtl.records import DataFault, Fault

QUOTED = re.compile(r"'(?:[A-Za-z]:)?[/\\][^'\n]*[/\\]([^'/\\]*)'")
BARE = re.compile(r"""(?<![^\s'"(=:,])(?:[A-Za-z]:)?[/\\](?:[^\s'"/\\]+[/\\])+""")


def install(app: FastAPI, pages: Jinja2Templates) -> None:
    """Makes `app` answer expected faults with 404 or 400, unknown pages with 404; its own errors the guard answers."""

    def answer(request: Request, sentence: str, status: int) -> Response:
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            told = {"sentence": sentence, "words": HTTPStatus(status).phrase.lower(), "status": status}
            return pages.TemplateResponse(request, "fault.html.j2", told, status)
        return JSONResponse({"fault": sentence}, status)

    async def expected(request: Request, fault: Exception) -> Response:
        return answer(request, without_paths(str(fault)), 404 if isinstance(fault, DataFault) else 400)

    async def unknown(request: Request, fault: Exception) -> Response:
        assert isinstance(fault, HTTPException)
        words = {404: "there is no such page", 405: "this address is not asked in this way"}
        answered = answer(request, words.get(fault.status_code, str(fault.detail)), fault.status_code)
        answered.headers.update(fault.headers or {})
        return answered

    async def malformed(request: Request, fault: Exception) -> Response:
        assert isinstance(fault, RequestValidationError)
        # what was sent is not repeated: only which field is wrong, and why
        wrong = [f"{' '.join(str(part) for part in one['loc'][1:])}: {one['msg'].lower()}" for one in fault.errors()]
        return answer(request, "; ".join(wrong), 422)

    app.add_exception_handler(Fault, expected)
    app.add_exception_handler(HTTPException, unknown)
    app.add_exception_handler(RequestValidationError, malformed)


def without_paths(sentence: str) -> str:
    """The sentence with the name of a file in place of its whole path.

    >>> without_paths("'/home/a b/S1.svs' is no slide (see /tmp/x/log.txt)")
    "'S1.svs' is no slide (see log.txt)"
    """
    return BARE.sub("", QUOTED.sub(r"'\1'", sentence))
