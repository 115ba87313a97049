"""Runs a WSGI application (PEP 3333) over an exchange."""

import io
import sys
from urllib.parse import unquote_to_bytes


def serve(application):
    """A function that serves an exchange through a WSGI application."""

    def serve_exchange(request, response):
        pending = None

        def start_response(status, headers, exc_info=None):
            nonlocal pending
            if exc_info is not None and response.started:
                raise exc_info[1].with_traceback(exc_info[2])
            if pending is not None and exc_info is None:
                raise RuntimeError("start_response was called twice")
            pending = (int(status.split(" ", 1)[0]), list(headers))
            return write

        def write(data):
            if pending is None:
                raise RuntimeError("a body before start_response")
            if not response.started:
                response.start(*pending)
            response.write(data)

        chunks = application(environ(request), start_response)
        try:
            for chunk in chunks:
                # Headers go with the first byte: until then an application may
                # still change them.
                if chunk:
                    write(chunk)
            if not response.started:
                write(b"")
        finally:
            if hasattr(chunks, "close"):
                chunks.close()

    return serve_exchange


def environ(request):
    path, _, query = request.target.partition("?")
    name, _, port = request.authority.rpartition(":")
    if not port.isdigit():
        name, port = request.authority, "443" if request.scheme == "https" else "80"
    variables = {
        "REQUEST_METHOD": request.method,
        # The part of the URL's path that a host has cut off in front of ours.
        "SCRIPT_NAME": request.header("x-forwarded-prefix", "").rstrip("/"),
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "REQUEST_URI": request.target,
        "SERVER_NAME": name or "localhost",
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.scheme,
        "wsgi.input": io.BufferedReader(request.body),
        # The body ends where the stream does, also without a Content-Length.
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in request.headers:
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        variables[key] = f"{variables[key]},{value}" if key in variables else value
    return variables
