"""Runs a `BaseHTTPRequestHandler`, as `http.server` has it, over an exchange.

The handler believes that it has a connection: it is given the request as the
bytes of an HTTP/1.0 message, and what it writes is parsed as one. HTTP/1.0,
because that tells it to answer once and then close.
"""

import io
from http.server import BaseHTTPRequestHandler


def serve(handler_class):
    """A function that serves an exchange through a handler class."""
    if handler_class.handle is BaseHTTPRequestHandler.handle:
        handler_class = answering_once(handler_class)

    def serve_exchange(request, response):
        connection = Connection(request, response)
        handler_class(connection, (client_host(request), 0), Server(request))
        connection.finish()

    return serve_exchange


def answering_once(handler_class):
    """Without this a handler that sends `Connection: keep-alive` would read on,
    and take the rest of its request's body for the next request."""

    class AnsweringOnce(handler_class):
        def handle(self):
            self.handle_one_request()

        if handler_class.parse_request is BaseHTTPRequestHandler.parse_request:
            parse_request = take_request

    AnsweringOnce.__name__ = handler_class.__name__
    AnsweringOnce.__qualname__ = handler_class.__qualname__
    return AnsweringOnce


def take_request(handler):
    """`BaseHTTPRequestHandler.parse_request` without its parsing, which takes
    longer than all the rest of a short request: the host has done it."""
    request = handler.request.exchange
    line = handler.raw_requestline.decode("latin-1").rstrip("\r\n")
    handler.requestline = line
    handler.command = request.method
    handler.request_version = "HTTP/1.0"
    # As there: a path with two slashes would be taken for a host's name.
    handler.path = "/" + request.target.lstrip("/") if request.target.startswith("//") else request.target
    handler.close_connection = True
    handler.headers = handler.MessageClass()
    for name, value in request.headers:
        handler.headers[name] = value
    # The rest of the head is in front of the body.
    while handler.rfile.readline(65537) not in (b"\r\n", b"\n", b""):
        pass
    return True


class Connection:
    """What a handler uses of a socket."""

    def __init__(self, request, response):
        self.exchange = request
        self._input = request.body.after(request_head(request))
        self._output = ResponseParser(response)

    def makefile(self, mode="r", buffering=-1, **_):
        if "w" in mode:
            return io.BufferedWriter(RawOutput(self._output), max(buffering, 0) or io.DEFAULT_BUFFER_SIZE)
        if buffering == 0:
            return self._input
        return io.BufferedReader(self._input, buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE)

    def sendall(self, data):
        self._output.feed(bytes(data))

    def finish(self):
        self._output.finish()

    def fileno(self):
        return -1

    def getpeername(self):
        return ("", 0)

    def settimeout(self, _seconds):
        """Time limits are the host's."""

    def setsockopt(self, *_arguments):
        """There is no socket to tune."""

    def shutdown(self, _how):
        """The host closes the connection."""

    def close(self):
        """The host closes the connection."""


class RawOutput(io.RawIOBase):
    def __init__(self, parser):
        self._parser = parser

    def writable(self):
        return True

    def write(self, data):
        self._parser.feed(bytes(data))
        return len(data)


class Server:
    """What a handler may ask of `self.server`."""

    def __init__(self, request):
        name, _, port = request.authority.rpartition(":")
        if not port.isdigit():
            name, port = request.authority, "443" if request.scheme == "https" else "80"
        self.server_name = name
        self.server_port = int(port)
        self.server_address = (name, self.server_port)


def client_host(request):
    """The caller's address, as far as a proxy in front has told it."""
    return request.header("x-forwarded-for", "").split(",")[0].strip() or "-"


def request_head(request):
    lines = [f"{request.method} {request.target} HTTP/1.0"]
    lines += (f"{name}: {value}" for name, value in request.headers)
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class ResponseParser:
    """Turns the bytes of an HTTP/1 response into calls of a response."""

    # More than this before the first empty line is no header block.
    HEAD_BYTES_MAX = 256 * 1024

    def __init__(self, response):
        self._response = response
        self._head = b""
        self._chunks = None

    def feed(self, data):
        if self._response.started:
            self._feed_body(data)
            return
        self._head += data
        while (end := head_end(self._head)) is not None:
            head, rest = self._head[:end], self._head[end:]
            status, headers = parse_head(head)
            if status >= 200:
                self._head = b""
                self._start(status, headers)
                self._feed_body(rest)
                return
            # An interim response, "100 Continue": the final one follows.
            self._head = rest
        if len(self._head) > self.HEAD_BYTES_MAX:
            raise ValueError("the function wrote no end of its response headers")

    def finish(self):
        if not self._response.started and self._head.strip():
            raise ValueError("the function wrote no complete response; is end_headers() missing?")
        if self._chunks is not None and not self._chunks.ended:
            raise ValueError("the function did not end its chunked response")

    def _start(self, status, headers):
        chunked = any(
            name.lower() == "transfer-encoding" and "chunked" in value.lower()
            for name, value in headers
        )
        self._chunks = Chunks() if chunked else None
        self._response.start(status, headers)

    def _feed_body(self, data):
        if self._chunks is None:
            self._response.write(data)
        else:
            for piece in self._chunks.feed(data):
                self._response.write(piece)


def head_end(data):
    """The index after the empty line, whichever line ends were used."""
    ends = [data.find(mark) + len(mark) for mark in (b"\r\n\r\n", b"\n\n") if mark in data]
    return min(ends, default=None)


def parse_head(head):
    status_line, _, fields = head.partition(b"\n")
    version, _, rest = status_line.decode("latin-1").strip().partition(" ")
    code = rest.partition(" ")[0]
    if not version.startswith("HTTP/") or not code.isdigit():
        raise ValueError("the function wrote a body before a status; is send_response() missing?")
    headers = []
    for line in fields.decode("latin-1").splitlines():
        if line[:1] in (" ", "\t") and headers:
            # A line that goes on with the one before (obs-fold).
            name, value = headers.pop()
            headers.append((name, f"{value} {line.strip()}"))
            continue
        name, found, value = line.partition(":")
        if found:
            headers.append((name.strip(), value.strip()))
    return int(code), headers


class Chunks:
    """Decodes the chunked transfer coding, for handlers that apply it themselves."""

    def __init__(self):
        self._data = b""
        self._left = 0
        self.ended = False

    def feed(self, data):
        """The pieces of body that are complete now."""
        self._data += data
        pieces = []
        while self._data and not self.ended:
            if self._left > 0:
                piece, self._data = self._data[:self._left], self._data[self._left:]
                self._left -= len(piece)
                pieces.append(piece)
                continue
            # The line end after a chunk's data is the empty start of the next line.
            line, found, rest = self._data.lstrip(b"\r\n").partition(b"\n")
            if not found:
                break
            self._left = int(line.split(b";")[0].strip(), 16)
            self._data = rest
            self.ended = self._left == 0
        return pieces
