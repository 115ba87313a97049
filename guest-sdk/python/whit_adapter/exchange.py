"""One request and its response, without any binding to a host."""

import io
import sys
import traceback

# Fields that concern one connection, not the message; HTTP hosts refuse them.
HOP_BY_HOP = frozenset((
    "connection", "keep-alive", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
))

BODYLESS_STATUSES = frozenset((204, 205, 304))


class Request:
    """A request whose body is read only when it is asked for.

    `read_body(size)` returns at most `size` bytes, b"" at the end.
    """

    def __init__(self, method, target, headers, read_body, scheme="http", authority=""):
        self.method = method
        self.target = target or "/"
        self.scheme = scheme
        self.authority = authority
        self.headers = [
            (name, value) for name, value in headers
            # The host has answered `Expect: 100-continue` already.
            if name.lower() not in HOP_BY_HOP and name.lower() != "expect"
        ]
        if authority and self.header("host") is None:
            self.headers.insert(0, ("Host", authority))
        self.body = Body(read_body)

    def header(self, name, default=None):
        """The first value of a header field."""
        name = name.lower()
        return next((value for own, value in self.headers if own.lower() == name), default)


class Body(io.RawIOBase):
    """A raw stream over a function that reads; wrap it in a BufferedReader."""

    def __init__(self, read, before=b""):
        self._read = read
        self._before = memoryview(before)

    def readable(self):
        return True

    def readinto(self, buffer):
        size = len(buffer)
        if self._before:
            chunk, self._before = self._before[:size], self._before[size:]
        else:
            chunk = self._read(size)
        buffer[:len(chunk)] = chunk
        return len(chunk)

    def after(self, before):
        """The same body with some bytes in front of it."""
        return Body(self._read, before)


class Response:
    """A response that goes out as it is made.

    `send_head(status, headers, has_body)` is called once, `send_body(data)`
    for each piece afterwards, never with an empty one.
    """

    def __init__(self, method, send_head, send_body):
        self._method = method
        self._send_head = send_head
        self._send_body = send_body
        self._has_body = True
        self.started = False

    def start(self, status, headers):
        if self.started:
            raise RuntimeError("the response has been started already")
        self.started = True
        self._has_body = self._method != "HEAD" and status not in BODYLESS_STATUSES
        headers = [(name, value) for name, value in headers if name.lower() not in HOP_BY_HOP]
        self._send_head(status, headers, self._has_body)

    def write(self, data):
        if data and self._has_body:
            self._send_body(data)


class Unfinished(Exception):
    """The function failed after its response had begun."""


def run(serve, request, response):
    """Serves one request; whatever goes wrong in the function becomes a 500
    for the caller and a traceback for the log."""
    try:
        serve(request, response)
        if not response.started:
            raise RuntimeError("the function returned without a response")
    except (Exception, SystemExit) as error:
        traceback.print_exc(file=sys.stderr)
        if response.started:
            raise Unfinished from error
        response.start(500, [("Content-Type", "text/plain; charset=utf-8")])
        response.write(b"the function failed\n")
    finally:
        # The instance may be gone after this request, and what it printed with it.
        sys.stdout.flush()
        sys.stderr.flush()
