"""How the page ends: at once, and nobody is left without an answer."""

from asyncio import CancelledError

from anyio import CancelScope
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from r2m.demo.worker import ENDED


class Ending:
    """Lets an application answer until `end` is called; from then on all requests get a 503."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._inside: set[CancelScope] = set()
        self._is_ended = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; a response that is being sent when the end comes is cut off."""
        is_begun = False

        async def send_unless_ended(message: Message) -> None:
            nonlocal is_begun
            if is_begun or not self._is_ended:
                is_begun = True
                await send(message)

        cancelling = CancelScope()
        self._inside.add(cancelling)
        if self._is_ended:
            cancelling.cancel()
        try:
            with cancelling:
                await self._app(scope, receive, send_unless_ended)
        except CancelledError:  # the server waits no longer for a process that is slow to end
            if not self._is_ended:
                raise
        finally:
            self._inside.discard(cancelling)
        if not is_begun:
            await JSONResponse({"reason": ENDED}, 503)(scope, receive, send)

    def end(self) -> None:
        """End all requests; called where they are answered, in the thread of the event loop."""
        self._is_ended = True
        for cancelling in list(self._inside):
            cancelling.cancel()
