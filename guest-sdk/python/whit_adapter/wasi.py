"""The component's side: `wasi:http/incoming-handler` over an exchange.

The one module that imports bindings, so the only one that runs nowhere but in
a component.
"""

import sys

# What the standard library imports only when it is first used. In a component
# there is no file system to import from later, so it is done at build time.
import email.feedparser  # noqa: F401
import email.header  # noqa: F401
import encodings.ascii  # noqa: F401
import encodings.cp1252  # noqa: F401
import encodings.idna  # noqa: F401
import encodings.latin_1  # noqa: F401
import encodings.utf_16  # noqa: F401
import encodings.utf_8_sig  # noqa: F401
import html  # noqa: F401
import http.cookies  # noqa: F401
import json  # noqa: F401
import linecache  # noqa: F401
import mimetypes  # noqa: F401
import quopri  # noqa: F401
import stringprep  # noqa: F401
import tempfile  # noqa: F401
import traceback  # noqa: F401
import urllib.parse  # noqa: F401

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports import types
from wit_world.imports.streams import StreamError_Closed

from . import exchange, find

# The most that blocking-write-and-flush takes at once.
WRITE_BYTES_MAX = 4096


def incoming_handler(module):
    """The class that componentize-py exports, for what `module` defines."""
    serve = find.find(module)

    class IncomingHandler(exports.IncomingHandler):
        def handle(self, request: types.IncomingRequest, response_out: types.ResponseOutparam) -> None:
            # A print of the function should be in the log when it happens.
            sys.stdout.reconfigure(line_buffering=True)
            incoming = Incoming(request)
            outgoing = Outgoing(response_out)
            response = exchange.Response(incoming.request.method, outgoing.head, outgoing.body)
            try:
                exchange.run(serve, incoming.request, response)
            except exchange.Unfinished:
                # Its body is dropped without an end, so that the caller sees
                # that something is missing.
                outgoing.abandon()
            except ClientGone:
                outgoing.abandon()
            else:
                outgoing.finish()

    return IncomingHandler


class ClientGone(BaseException):
    """Nobody reads the response any more. No Exception, so that a function's
    own `except Exception` does not take it for one of its errors."""


class Incoming:
    """A request of the host as a plain one."""

    def __init__(self, incoming):
        self._incoming = incoming
        self._body = None
        self._stream = None
        fields = incoming.headers()
        headers = [(name, value.decode("latin-1")) for name, value in fields.entries()]
        self.request = exchange.Request(
            method=method_name(incoming.method()),
            target=incoming.path_with_query(),
            headers=headers,
            read_body=self._read,
            scheme="https" if isinstance(incoming.scheme(), types.Scheme_Https) else "http",
            authority=incoming.authority() or "",
        )

    def _read(self, size):
        if self._stream is None:
            self._body = self._incoming.consume()
            self._stream = self._body.stream()
        try:
            # May come back empty-handed before there is anything to read.
            while not (data := self._stream.blocking_read(size)):
                pass
            return data
        except Err as error:
            if isinstance(error.value, StreamError_Closed):
                return b""
            raise ConnectionError("the request body broke off") from None


def method_name(method):
    if isinstance(method, types.Method_Other):
        return method.value
    return type(method).__name__.removeprefix("Method_").upper()


class Outgoing:
    """The host's response, made as the plain one goes along."""

    def __init__(self, response_out):
        self._response_out = response_out
        self._body = None
        self._stream = None

    def head(self, status, headers, has_body):
        fields = types.Fields.from_list(
            [(name, value.encode("latin-1", "replace")) for name, value in headers]
        )
        response = types.OutgoingResponse(fields)
        response.set_status_code(status)
        # A response to HEAD may name the length of a body that it does not
        # have: for one without a body the host does not check it.
        if has_body:
            self._body = response.body()
        types.ResponseOutparam.set(self._response_out, Ok(response))
        if self._body is not None:
            self._stream = self._body.write()

    def body(self, data):
        view = memoryview(data)
        try:
            for start in range(0, len(view), WRITE_BYTES_MAX):
                self._stream.blocking_write_and_flush(bytes(view[start:start + WRITE_BYTES_MAX]))
        except Err:
            raise ClientGone from None

    def finish(self):
        if self._body is None:
            return
        self._close_stream()
        try:
            types.OutgoingBody.finish(self._body, None)
        except Err as error:
            print(f"the response did not end well: {error.value}", file=sys.stderr)

    def abandon(self):
        if self._body is not None:
            self._close_stream()
            self._body.__exit__(None, None, None)

    def _close_stream(self):
        # A stream has to be given back before the body that it belongs to.
        self._stream.__exit__(None, None, None)
        self._stream = None
