"""The page, and what it asks: one file a request, which is scored and forgotten."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

import anyio
from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from r2m.data.listing import SUFFIXES, VIDEO_SUFFIXES
from r2m.demo.answer import Answer
from r2m.demo.ending import Ending
from r2m.demo.guard import Guard
from r2m.demo.worker import Worker
from r2m.errors import R2MError

PAGE = Path(__file__).with_name("page")
MEGABYTE = 10**6
# Files that are sent, wait or are scored at a time; each takes room on the disk.
MOST_AT_ONCE = 8
GONE = 499  # nobody reads it
FLAGS = {"": False, "false": False, "true": True}


@dataclass(frozen=True)
class Limits:
    """How large a file may be, and how long it may be decoded and scored."""

    megabytes: float
    seconds: float


class Desk:
    """Takes files in, has them scored one after another, and answers in JSON."""

    def __init__(self, worker: Worker, limits: Limits, model: str) -> None:
        self._worker, self._limits, self._model = worker, limits, model
        self._inside = 0
        self._turn = anyio.Lock()

    async def about(self, request: Request) -> JSONResponse:
        """Tell which detector it is, where it decides, and what may be sent."""
        async with self._turn:
            real_below, fake_from = await to_thread.run_sync(self._worker.start)
        return JSONResponse(
            {
                "model": self._model,
                "real_below": real_below,
                "fake_from": fake_from,
                "megabytes": self._limits.megabytes,
                "suffixes": sorted(SUFFIXES | VIDEO_SUFFIXES),
            }
        )

    async def detect(self, request: Request) -> Response:
        """Score the file that the request's body is.

        Of its `name` in the query only the suffix matters; with `explain=true` there are maps of relevance.
        """
        suffix = PurePosixPath(request.query_params.get("name", "")).suffix.lower()
        if suffix not in SUFFIXES | VIDEO_SUFFIXES:
            raise HTTPException(415, f"neither a photograph nor a video: a name that ends in {suffix!r}")
        explain = request.query_params.get("explain", "")
        if explain not in FLAGS:
            raise HTTPException(400, f"explain is {explain!r}; expected true or false")
        if self._inside >= MOST_AT_ONCE:
            raise HTTPException(503, f"{MOST_AT_ONCE} files are being scored or wait; try again later")
        self._inside += 1
        try:
            with TemporaryDirectory(prefix="r2m-demo-") as folder:
                path = Path(folder) / f"file{suffix}"
                await self._save(request, path)
                return JSONResponse(await self._scored(request, path, FLAGS[explain]))
        except ClientDisconnect:
            return Response(status_code=GONE)
        finally:
            self._inside -= 1

    async def _save(self, request: Request, path: Path) -> None:
        """Write the body to a file as it comes."""
        most = round(self._limits.megabytes * MEGABYTE)
        too_large = HTTPException(413, f"too large: more than {self._limits.megabytes:g} MB")
        stated = request.headers.get("content-length", "")
        if stated.isdecimal() and int(stated) > most:
            raise too_large
        size = 0
        with path.open("wb") as file:
            async for chunk in request.stream():
                size += len(chunk)
                if size > most:
                    raise too_large
                file.write(chunk)

    async def _scored(self, request: Request, path: Path, explain: bool) -> dict[str, Any]:
        """Return the answer when it is the file's turn; raises ClientDisconnect if nobody waits for it."""
        answer: dict[str, Any] | None = None
        is_running = False
        is_left = Event()

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            is_left.set()
            if is_running:
                self._worker.interrupt()
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            async with self._turn:
                is_running = True
                try:
                    answer = await to_thread.run_sync(
                        self._worker.score, path, self._limits.seconds, explain, is_left
                    )
                except R2MError as error:
                    answer = Answer(reason=str(error)).model_dump(mode="json")
            tasks.cancel_scope.cancel()
        if answer is None:
            raise ClientDisconnect
        return answer


class App:
    """The application of a server that is bound to `host`."""

    def __init__(self, worker: Worker, limits: Limits, model: str, host: str) -> None:
        desk = Desk(worker, limits, model)
        routes = [
            Route("/about", desk.about),
            Route("/detect", desk.detect, methods=["POST"]),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ]
        handlers = {HTTPException: _told, R2MError: _told}
        self._worker = worker
        self._ending = Ending(Starlette(routes=routes, exception_handlers=handlers))
        self._guarded = Guard(self._ending, host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self._guarded(scope, receive, send)

    def end(self) -> None:
        """End what is scored and the requests, which get a 503; nothing is scored any more."""
        self._worker.close()
        self._ending.end()


async def _told(request: Request, error: Exception) -> JSONResponse:
    """Return what is wrong with a request, as JSON."""
    if isinstance(error, HTTPException):
        return JSONResponse({"reason": error.detail}, error.status_code)
    return JSONResponse({"reason": str(error)}, 503)
