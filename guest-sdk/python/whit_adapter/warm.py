"""Serves a request to itself at build time. What the standard library makes
when it is first used is then in the component, and is not made anew by every
instance: a component that has served one starts in a fraction of the time.
"""

import gc
import io
import json
import sys
from contextlib import redirect_stderr
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

from . import exchange, http_server, immortal, wsgi


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        parse_qs(urlsplit(self.path).query)
        body = json.dumps(json.loads(self.rfile.read(2))).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["wsgi.input"].read()]


def warm_up():
    with redirect_stderr(io.StringIO()):
        for serve in (http_server.serve(Handler), wsgi.serve(application)):
            # More than once: the interpreter specialises code that it has seen.
            for _ in range(16):
                serve_once(serve)
    # What is there now stays: looking through it for garbage, or only moving
    # it from one generation to the next, would write to all of it.
    gc.collect()
    if sys.platform == "wasi":
        immortal.find()
        make_room()
    gc.freeze()


def make_room():
    """Fills what is free between other objects, so that what a request makes lies
    together: what it writes to has to be made new after it. Some is left behind
    them all. Only where memory is one piece that grows upwards is there an end to it."""
    room = bytes(ROOM_BYTES)
    for size in (4096, 2048, *range(1024, 0, -8)):
        while id(filler := bytes(size)) < id(room):
            fillers.append(filler)


ROOM_BYTES = 1 << 20
fillers = []


def serve_once(serve):
    body = io.BytesIO(b"{}")
    headers = [("Host", "localhost"), ("Content-Length", "2"), ("User-Agent", "-")]
    request = exchange.Request("POST", "/?a=b", headers, body.read, authority="localhost")
    response = exchange.Response("POST", lambda *head: None, lambda data: None)
    exchange.run(serve, request, response)
