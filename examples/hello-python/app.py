"""A greeter that is an ordinary http.server handler: nothing in it knows of WebAssembly."""

import json
import os
import time
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit


class handler(BaseHTTPRequestHandler):
    def do_GET(self):
        url = urlsplit(self.path)
        if url.path == "/":
            greeting = os.environ.get("GREETING", "Hello")
            name = parse_qs(url.query).get("name", ["world"])[0]
            self.send_text(f"{greeting}, {name}, from Python!\n")
        elif url.path == "/count":
            self.count(5)
        else:
            self.send_text(f"nothing at {url.path}\n", status=404)

    def do_POST(self):
        """Answers JSON with what it was sent, and what that is."""
        body = self.rfile.read(int(self.headers.get("Content-Length", -1)))
        try:
            value = json.loads(body)
        except ValueError as error:
            self.send_text(f"that is not JSON: {error}\n", status=400)
            return
        self.send_text(
            json.dumps({"received": value, "type": type(value).__name__}) + "\n",
            content_type="application/json",
        )

    def count(self, last):
        """Writes a line every 200 ms; each is on its way at once."""
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.end_headers()
        for number in range(1, last + 1):
            self.wfile.write(f"{number}\n".encode())
            time.sleep(0.2)

    def send_text(self, text, status=200, content_type="text/plain; charset=utf-8"):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
