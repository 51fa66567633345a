"""Serving the page: to this machine alone, with uploads in a private folder that goes with it."""

import asyncio
import logging
import math
import os
import signal
import socket
import tempfile
import threading
import time
import webbrowser
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mgca.model import Model

HOST = "127.0.0.1"
_NAMES = (HOST, "localhost")
# Said to the browser, which enforces it: the page loads nothing of another host, and no other page
# frames it. gradio has scripts in the page, and makes functions of its templates.
_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]
_MOMENT = 0.1  # seconds in which the page has read what it was sent
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Message = MutableMapping[str, Any]
Application = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]


def check_installed() -> None:
    """Refuse to serve without gradio.

    Raises:
        ImportError: If gradio is not installed.
    """
    if find_spec("gradio") is None:
        raise ImportError("the page needs gradio: pip install 'mgca[app]'")


def listen(port: int) -> socket.socket:
    """A socket on this machine's own address, which no other machine reaches.

    Args:
        port: Number of the port; 0 for any that is free.

    Raises:
        OSError: If the port cannot be had.
    """
    try:
        return socket.create_server((HOST, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(
            f"port {port} of {HOST} cannot be had ({reason}): name another with --port, or 0 for "
            "any that is free"
        ) from error


def address(listener: socket.socket) -> str:
    """The address of the page, to be typed into the browser."""
    return f"http://{HOST}:{listener.getsockname()[1]}/"


def serve(
    model: Model, name: str, listener: socket.socket, *, largest: int, browse: bool = False
) -> None:
    """Serve the page until the process is told to end, by Ctrl-C or a signal.

    Once in a process, because gradio keeps the folder it begins with; and in its main thread.

    Args:
        model: The model.
        name: Name of the model, for people.
        listener: Socket of :func:`listen`; closed at the end.
        largest: Largest size of an upload, in bytes.
        browse: Whether the page is opened in the browser.

    Raises:
        ImportError: If gradio is not installed.
    """
    check_installed()
    with _private_folder() as folder:
        import gradio
        import uvicorn
        from fastapi import FastAPI

        from mgca.cli.app.page import CSS, THEME, build_page

        closed: dict[str, Any] = {"docs_url": None, "redoc_url": None, "openapi_url": None}
        app = gradio.mount_gradio_app(
            FastAPI(**closed),
            build_page(model, name, folder),
            path="/",
            server_name=HOST,
            server_port=listener.getsockname()[1],
            app_kwargs=dict(closed),
            theme=THEME,
            css=CSS,
            max_file_size=largest,
            footer_links=[],
            # What happened is written where the command runs; the page has its own messages.
            show_error=False,
            # What gradio serves besides a page, by default or somewhere else than here.
            run_history=False,
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            pwa=False,
        )
        config = uvicorn.Config(
            Guard(Unhurried(app)),
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        logging.getLogger("uvicorn.error").addFilter(_worth_saying)
        if browse:  # some browsers keep the one who opens them waiting
            threading.Thread(target=webbrowser.open, args=[address(listener)], daemon=True).start()
        with _ended_by_signals(server):
            server.run(sockets=[listener])


class Guard:
    """An ASGI application that answers this machine's own page alone.

    A page of another host that is open in the same browser may send requests here, under its own
    name or, where its name server says so, under the name of this machine. Both are refused, and
    so is what the browser says another page asks for.
    """

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan" and not _ours(scope):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b"for pages of this machine only"})
            return

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        await self._app(scope, receive, marked)


class Unhurried:
    """An ASGI application before gradio's, so that no event falls between two streams of answers.

    The page reads the answers from a stream that the server ends with the last one awaited. Told
    that an event was received, the page opens the next stream, unless it takes the one before for
    open; then the answer is not read before another event. So the page is not told that an event
    was received until it has had a moment to read of the end. Meanwhile the answer is computed.
    """

    def __init__(self, app: Application) -> None:
        self._app = app
        self._streamed = -math.inf

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        path = scope.get("path", "")

        async def unhurried(message: Message) -> None:
            if path.endswith("/queue/join") and message["type"] == "http.response.start":
                await asyncio.sleep(max(0.0, self._streamed + _MOMENT - time.monotonic()))
            await send(message)
            if path.endswith("/queue/data"):
                self._streamed = time.monotonic()

        await self._app(scope, receive, unhurried)


def _ours(scope: Message) -> bool:
    """Whether a request names this machine as its host, and its page as where it comes from."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    port = scope["server"][1]
    hosts = [f"{name}:{port}".encode() for name in _NAMES]
    if port == 80:  # browsers leave it out
        hosts += [name.encode() for name in _NAMES]
    if headers.get(b"host") not in hosts:
        return False
    if b"origin" in headers and headers[b"origin"] not in [b"http://" + host for host in hosts]:
        return False
    # Not all requests have an origin: those for images and scripts of another page have none.
    asking = headers.get(b"sec-fetch-site", b"none")
    return asking in (b"none", b"same-origin") or _follows_a_link(scope, headers)


def _follows_a_link(scope: Message, headers: dict[bytes, bytes]) -> bool:
    """Whether a request opens the page itself in a window, from a link on another page.

    The terminal that shows the address may be such a page. To open it changes nothing, and what has
    the link can neither read nor frame it, nor has a hold of its window.
    """
    return (
        (scope["type"], scope.get("method"), scope["path"]) == ("http", "GET", "/")
        and headers.get(b"sec-fetch-mode") == b"navigate"
        and headers.get(b"sec-fetch-dest") == b"document"
    )


def _worth_saying(record: logging.LogRecord) -> bool:
    """All that the server logs, but not that it broke off requests at its end.

    Each window with the page holds one as long as it is open.
    """
    return not (
        (record.exc_info and record.exc_info[0] is asyncio.CancelledError)
        or "graceful shutdown exceeded" in record.getMessage()
    )


@contextmanager
def _private_folder() -> Iterator[Path]:
    """A folder that only this user can read, where gradio keeps uploads, deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="mgca-app-", ignore_cleanup_errors=True) as folder:
        # Read when gradio is imported, and some when a page is built. Its other switches open more
        # than this page, so what the environment says of them does not count.
        for name in [name for name in os.environ if name.startswith("GRADIO_")]:
            del os.environ[name]
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        yield Path(folder)


@contextmanager
def _ended_by_signals(server: Any) -> Iterator[None]:
    """End the server, and not the process, so that the folder is deleted."""

    def end(number: int, frame: Any) -> None:
        server.should_exit = True

    # Those that the shell has set aside, as nohup does, remain so.
    taken = [number for number in _ENDINGS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
