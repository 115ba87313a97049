from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit


class handler(BaseHTTPRequestHandler):
    def do_GET(self):
        path = urlsplit(self.path).path  # "/Ada"
        name = unquote(path[1:]) or "world"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.end_headers()
        self.wfile.write(f"Hello, {name}, from Python!\n".encode())
