"""Who may ask: only pages of this server, by one of its own names."""

import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
EVERYWHERE = frozenset({"0.0.0.0", "::"})
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'; object-src 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """Refuses requests under foreign names and from other sites, and sets the headers of all responses.

    A page elsewhere can let its own name point to this machine (DNS rebinding); then the browser sends that
    name as Host. The name of the page that posts is Origin; programs other than browsers send none.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app, self._host = app, host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        reason = self._refusal(scope["method"], Headers(scope=scope))
        app = PlainTextResponse(f"{reason}\n", 403) if reason else self._app
        await app(scope, receive, send_with_headers)

    def _refusal(self, method: str, headers: Headers) -> str:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not is_own(host, self._host):
            return "refused: not a name of this server"
        if method not in ("GET", "HEAD") and origin not in (None, f"http://{host}"):
            return "refused: asked by a page of another site"
        return ""


def is_own(header: str, bound: str) -> bool:
    """Tell whether the header Host names the address that is bound; any port, for tunnels have others."""
    try:
        name = urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return False
    if name in LOOPBACK or name == bound.lower():
        return True
    return bound in EVERYWHERE and (_is_address(name) or name == socket.gethostname().lower())


def _is_address(name: str) -> bool:
    """Tell whether a name is a number, which no foreign page can have for its own."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
