"""Runs an ASGI application (version 3) over an exchange, with an event loop of
its own for the one request.
"""

import asyncio
import sys
from urllib.parse import unquote

# What an application is given of a body at once.
READ_BYTES_MAX = 64 * 1024


def serve(application):
    """A function that serves an exchange through an ASGI application."""

    def serve_exchange(request, response):
        asyncio.run(answer(application, request, response))

    return serve_exchange


async def answer(application, request, response):
    head = None
    ended = False
    body_read = False

    async def receive():
        nonlocal body_read
        if body_read:
            # The client is there until the response is complete: nothing more
            # comes, and who waits for it here waits for what never happens.
            await asyncio.Event().wait()
        data = bytearray(READ_BYTES_MAX)
        size = request.body.readinto(data)
        body_read = size == 0
        return {"type": "http.request", "body": bytes(data[:size]), "more_body": not body_read}

    async def send(event):
        nonlocal head, ended
        kind = event["type"]
        if kind == "http.response.start":
            if head is not None:
                raise RuntimeError("http.response.start was sent twice")
            head = (event["status"], decoded(event.get("headers", ())))
        elif kind == "http.response.body":
            if head is None:
                raise RuntimeError("a body before http.response.start")
            if ended:
                raise RuntimeError("a body after the end of the response")
            # The head goes with the first byte, so that an application that
            # fails before it can still be answered for.
            if not response.started:
                response.start(*head)
            response.write(bytes(event.get("body", b"")))
            ended = not event.get("more_body", False)
        else:
            raise RuntimeError(f"{kind} is not supported")

    await application(scope(request), receive, send)
    if not ended:
        raise RuntimeError("the application returned before the end of its response")


def decoded(headers):
    return [(bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in headers]


def scope(request):
    path, _, query = request.target.partition("?")
    name, _, port = request.authority.rpartition(":")
    if not port.isdigit():
        name, port = request.authority, "443" if request.scheme == "https" else "80"
    # The part of the URL's path that a host has cut off in front of ours; it
    # belongs to `path` (ASGI since 2023).
    prefix = request.header("x-forwarded-prefix", "").rstrip("/")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.scheme,
        "path": unquote(prefix + path),
        "raw_path": (prefix + path).encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "root_path": prefix,
        "headers": [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in request.headers
        ],
        "client": None,
        "server": (name or "localhost", int(port)),
        "extensions": {},
    }


if sys.platform == "wasi":
    # There are no sockets for the loop to wake itself with, and nothing that
    # could wake it: it runs until nothing is left to do.
    import selectors

    class Loop(asyncio.SelectorEventLoop):
        def __init__(self):
            super().__init__(NothingToSelect())

        def _make_self_pipe(self):
            """Nobody calls from another thread: there is none."""
            self._ssock = self._csock = None
            self._internal_fds = 0

        def _close_self_pipe(self):
            """See above."""

    class NothingToSelect(selectors.BaseSelector):
        def register(self, fileobj, events, data=None):
            raise OSError("there are no sockets here")

        unregister = register

        def select(self, timeout=None):
            import time

            if timeout is None:
                raise RuntimeError("the application waits for what can not happen")
            if timeout > 0:
                time.sleep(timeout)
            return []

        def get_map(self):
            return {}

    class Policy(asyncio.DefaultEventLoopPolicy):
        _loop_factory = Loop

    asyncio.set_event_loop_policy(Policy())
