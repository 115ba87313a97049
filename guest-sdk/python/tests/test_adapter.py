"""What the adapter promises, under an ordinary Python."""

import contextlib
import gc
import io
import json
import pathlib
import struct
import sys
import tempfile
import traceback
import types
import unittest
import zlib
from http.server import BaseHTTPRequestHandler

from whit_adapter import componentize, entry, exchange, find, http_server, immortal, library, native, packages, warm


class Recorder:
    """A host's side of a response: everything that reached it, in order."""

    def __init__(self, method):
        self.status = None
        self.headers = None
        self.pieces = []
        self.response = exchange.Response(method, self._head, self.pieces.append)

    def _head(self, status, headers, has_body):
        self.status, self.headers, self.has_body = status, headers, has_body

    @property
    def body(self):
        return b"".join(self.pieces)

    def values(self, name):
        return [value for own, value in self.headers if own.lower() == name]


def call(target, path="/", method="GET", headers=(), body=b"", read=None):
    """Serves one request with a handler class or a WSGI application."""
    module = types.ModuleType("function")
    if isinstance(target, type):
        module.handler = target
    else:
        module.app = target
    request = exchange.Request(
        method, path, headers, read or io.BytesIO(body).read, authority="example.com:8080"
    )
    recorder = Recorder(method)
    recorder.log = io.StringIO()
    with contextlib.redirect_stderr(recorder.log):
        exchange.run(find.find(module), request, recorder.response)
    return recorder


def handler(**methods):
    """A handler class with these methods and no access log."""
    return type("handler", (BaseHTTPRequestHandler,), {"log_message": lambda *_: None, **methods})


def answer(self, body=b"", status=200, headers=()):
    self.send_response(status)
    for name, value in headers:
        self.send_header(name, value)
    self.end_headers()
    self.wfile.write(body)


class HandlerClass(unittest.TestCase):
    def test_sees_the_request_as_http_server_shows_it(self):
        def do_GET(self):
            answer(self, json.dumps([
                self.command, self.path, self.headers["X-One"], self.headers["host"],
                self.headers.get_all("x-many"), self.server.server_port, self.address_string(),
            ]).encode())

        got = call(handler(do_GET=do_GET), "/a%20b?c=d", headers=[
            ("X-One", "1"), ("x-many", "a"), ("x-many", "b"), ("x-forwarded-for", "10.0.0.9, 10.0.0.1"),
        ])
        self.assertEqual(
            json.loads(got.body),
            ["GET", "/a%20b?c=d", "1", "example.com:8080", ["a", "b"], 8080, "10.0.0.9"],
        )

    def test_reads_a_body_by_its_length(self):
        def do_POST(self):
            answer(self, self.rfile.read(int(self.headers["Content-Length"])))

        body = bytes(range(256)) * 100
        got = call(handler(do_POST=do_POST), method="POST", body=body,
                   headers=[("Content-Length", str(len(body)))])
        self.assertEqual(got.body, body)

    def test_reads_a_body_without_a_length_to_its_end(self):
        def do_PUT(self):
            answer(self, b"%d" % len(self.rfile.read()))

        got = call(handler(do_PUT=do_PUT), method="PUT", body=b"x" * 100_000,
                   headers=[("Transfer-Encoding", "chunked")])
        self.assertEqual(got.body, b"100000")

    def test_a_body_is_read_only_as_far_as_it_is_wanted(self):
        read = []

        def endless(size):
            read.append(size)
            return b"y" * size

        def do_POST(self):
            answer(self, self.rfile.read(10))

        got = call(handler(do_POST=do_POST), method="POST", read=endless)
        self.assertEqual(got.body, b"y" * 10)
        self.assertLess(sum(read), 20_000)

    def test_each_write_reaches_the_caller_at_once(self):
        seen = []
        recorders = []

        def do_GET(self):
            answer(self)
            for number in range(3):
                self.wfile.write(b"%d\n" % number)
                seen.append(recorders[0].body)

        module = types.SimpleNamespace(__name__="function", handler=handler(do_GET=do_GET))
        recorders.append(Recorder("GET"))
        request = exchange.Request("GET", "/", [], io.BytesIO().read)
        exchange.run(find.find(module), request, recorders[0].response)
        self.assertEqual(seen, [b"0\n", b"0\n1\n", b"0\n1\n2\n"])

    def test_several_cookies_stay_several(self):
        def do_GET(self):
            answer(self, headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])

        self.assertEqual(call(handler(do_GET=do_GET)).values("set-cookie"), ["a=1", "b=2"])

    def test_head_has_headers_and_no_body(self):
        def do_HEAD(self):
            answer(self, b"not for you", headers=[("Content-Length", "11")])

        got = call(handler(do_HEAD=do_HEAD), method="HEAD")
        self.assertEqual((got.status, got.body, got.has_body), (200, b"", False))
        self.assertEqual(got.values("content-length"), ["11"])

    def test_a_status_without_a_body_has_none(self):
        def do_GET(self):
            answer(self, b"ignored", status=304)

        got = call(handler(do_GET=do_GET))
        self.assertEqual((got.status, got.body), (304, b""))

    def test_an_exception_becomes_a_500_and_a_traceback(self):
        def do_GET(self):
            raise KeyError("the reason")

        got = call(handler(do_GET=do_GET))
        self.assertEqual(got.status, 500)
        self.assertNotIn(b"reason", got.body)
        self.assertIn("KeyError: 'the reason'", got.log.getvalue())
        self.assertIn("do_GET", got.log.getvalue())

    def test_an_exception_after_the_head_breaks_the_response_off(self):
        def do_GET(self):
            answer(self, b"half")
            raise OSError("no more")

        with self.assertRaises(exchange.Unfinished):
            call(handler(do_GET=do_GET))

    def test_no_response_at_all_is_a_500(self):
        got = call(handler(do_GET=lambda self: None))
        self.assertEqual(got.status, 500)
        self.assertIn("without a response", got.log.getvalue())

    def test_a_body_without_a_status_is_a_500(self):
        got = call(handler(do_GET=lambda self: self.wfile.write(b"hello\n\n")))
        self.assertEqual(got.status, 500)
        self.assertIn("send_response() missing", got.log.getvalue())

    def test_headers_without_an_end_are_a_500(self):
        got = call(handler(do_GET=lambda self: self.wfile.write(b"HTTP/1.1 200 OK\r\nA: b\r\n")))
        self.assertEqual(got.status, 500)
        self.assertIn("end_headers() missing", got.log.getvalue())

    def test_an_unknown_method_is_a_501(self):
        self.assertEqual(call(handler(), method="BREW").status, 501)

    def test_a_keep_alive_handler_answers_once(self):
        def do_POST(self):
            answer(self, b"done", headers=[("Content-Length", "4"), ("Connection", "keep-alive")])

        # The body that it leaves unread must not be taken for a next request.
        got = call(handler(do_POST=do_POST, protocol_version="HTTP/1.1"), method="POST",
                   headers=[("Connection", "keep-alive"), ("Content-Length", "18")],
                   body=b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual(got.body, b"done")
        self.assertEqual(got.values("connection"), [])

    def test_a_chunked_response_is_decoded(self):
        def do_GET(self):
            answer(self, headers=[("Transfer-Encoding", "chunked")])
            for data in (b"5\r\nhel", b"lo\r\n", b"A;x=y\r\n0123456789\r\n", b"0\r\n\r\n"):
                self.wfile.write(data)

        got = call(handler(do_GET=do_GET))
        self.assertEqual(got.body, b"hello0123456789")
        self.assertEqual(got.values("transfer-encoding"), [])

    def test_a_buffered_handler_is_flushed_at_its_end(self):
        got = call(handler(do_GET=lambda self: answer(self, b"late"), wbufsize=65536))
        self.assertEqual((got.status, got.body), (200, b"late"))

    def test_a_handler_that_parses_for_itself_gets_the_bytes(self):
        def parse_request(self):
            self.lines = [self.raw_requestline, self.rfile.readline(), self.rfile.readline()]
            return BaseHTTPRequestHandler.parse_request(self)

        def do_POST(self):
            answer(self, b"".join(self.lines) + self.rfile.read(4))

        got = call(
            handler(parse_request=parse_request, do_POST=do_POST), "/p", "POST",
            headers=[("Content-Length", "4")], body=b"body",
        )
        self.assertTrue(got.body.startswith(b"POST /p HTTP/1.0\r\nHost: example.com:8080\r\n"), got.body)
        self.assertTrue(got.body.endswith(b"body"))

    def test_a_path_that_begins_with_two_slashes_is_no_host(self):
        got = call(handler(do_GET=lambda self: answer(self, self.path.encode())), "//evil/a")
        self.assertEqual(got.body, b"/evil/a")

    def test_a_header_may_go_on_in_the_next_line(self):
        def do_GET(self):
            self.wfile.write(b"HTTP/1.0 200 OK\nX-Long: one\n  two\nX-Empty:\n\nbody")

        got = call(handler(do_GET=do_GET))
        self.assertEqual(got.headers, [("X-Long", "one two"), ("X-Empty", "")])

    def test_interim_responses_are_left_out(self):
        def do_GET(self):
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\nA: b\n\nbody")

        got = call(handler(do_GET=do_GET))
        self.assertEqual((got.status, got.body, got.values("a")), (201, b"body", ["b"]))


class Wsgi(unittest.TestCase):
    def test_environ_and_response(self):
        def app(environ, start_response):
            start_response("200 OK", [("Set-Cookie", "a"), ("Set-Cookie", "b")])
            names = ("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING",
                     "CONTENT_TYPE", "SERVER_PORT", "HTTP_X_A", "wsgi.url_scheme")
            yield json.dumps([environ.get(name) for name in names]).encode()
            yield environ["wsgi.input"].read()

        got = call(app, "/users/%C3%A9?q=1", "POST", body=b"body", headers=[
            ("content-type", "text/plain"), ("x-a", "1"), ("x-a", "2"), ("x-forwarded-prefix", "/shop/"),
        ])
        head, body = got.pieces
        self.assertEqual(json.loads(head), [
            "POST", "/shop", "/users/é".encode().decode("latin-1"), "q=1", "text/plain", "8080", "1,2", "http",
        ])
        self.assertEqual(body, b"body")
        self.assertEqual(got.values("set-cookie"), ["a", "b"])

    def test_an_iterable_is_closed_and_streamed(self):
        closed = []

        class Chunks(list):
            def close(self):
                closed.append(True)

        def app(environ, start_response):
            start_response("202 Accepted", [])
            return Chunks([b"a", b"", b"b"])

        got = call(app)
        self.assertEqual((got.status, got.pieces, closed), (202, [b"a", b"b"], [True]))

    def test_an_empty_body_still_has_a_head(self):
        def app(environ, start_response):
            start_response("204 No Content", [])
            return []

        self.assertEqual(call(app).status, 204)

    def test_headers_may_change_until_the_first_byte(self):
        def app(environ, start_response):
            start_response("200 OK", [])
            try:
                raise ValueError
            except ValueError as error:
                start_response("503 Busy", [], (type(error), error, None))
            return [b"x"]

        self.assertEqual(call(app).status, 503)

    def test_an_exception_is_a_500(self):
        def app(environ, start_response):
            raise ZeroDivisionError

        got = call(app)
        self.assertEqual(got.status, 500)
        self.assertIn("ZeroDivisionError", got.log.getvalue())


class Find(unittest.TestCase):
    def test_a_module_with_one_handler_of_any_name(self):
        module = types.ModuleType("function")
        module.Greeter = handler(do_GET=lambda self: answer(self, b"hi"))
        module.Greeter.__module__ = "function"
        self.assertTrue(callable(find.find(module)))

    def test_a_module_without_any_says_what_is_needed(self):
        with self.assertRaisesRegex(find.NoHandler, "class handler"):
            find.find(types.ModuleType("empty"))


class Parsing(unittest.TestCase):
    def test_a_head_may_come_in_any_pieces(self):
        wire = b"HTTP/1.1 200 OK\r\nA: 1\r\nB: 2\r\n\r\nbody"
        for cut in range(len(wire)):
            recorder = Recorder("GET")
            parser = http_server.ResponseParser(recorder.response)
            parser.feed(wire[:cut])
            parser.feed(wire[cut:])
            parser.finish()
            self.assertEqual(recorder.headers, [("A", "1"), ("B", "2")])
            self.assertEqual(recorder.body, b"body")

    def test_chunks_may_come_in_any_pieces(self):
        wire = b"3\r\nabc\r\n1a\r\n" + b"z" * 26 + b"\r\n0\r\n\r\n"
        for cut in range(len(wire)):
            chunks = http_server.Chunks()
            pieces = chunks.feed(wire[:cut]) + chunks.feed(wire[cut:])
            self.assertEqual(b"".join(pieces), b"abc" + b"z" * 26)
            self.assertTrue(chunks.ended)

    def test_an_endless_head_is_refused(self):
        parser = http_server.ResponseParser(Recorder("GET").response)
        with self.assertRaisesRegex(ValueError, "no end"):
            parser.feed(b"x" * (http_server.ResponseParser.HEAD_BYTES_MAX + 1))


class Entry(unittest.TestCase):
    def test_imports_behind_calls_are_found(self):
        source = "from datetime import datetime\ndef handler(text):\n    return datetime.strptime(text, '%Y')\n"
        self.assertEqual(entry.called_imports(entry.ast.parse(source)), {"_strptime"})
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "app.py").write_text(source)
            self.assertIn("['_strptime']", entry.entry(pathlib.Path(folder), "app"))

    def test_imports_inside_functions_are_found(self):
        source = "import os\ndef f():\n  import a.b\n  from c import d\n  from . import e\n"
        self.assertEqual(entry.lazy_imports(entry.ast.parse(source)), {"a.b", "c", "c.d"})


class ImmortalTest(unittest.TestCase):
    # Addresses of `None`, an object, one that was freed, what is no count, what is of
    # another type by now, and one that is partly where there is nothing.
    NONE, OBJECT, FREED, NO_COUNT, OTHER, SPLIT = 0x100, 0x110, 0x118, 0x120, 0x128, 0x13C
    NOTE, MARK = 0x200, 0x300
    TYPE = 0x12345678

    def memory(self, places):
        noted = b"".join(struct.pack("<II", place, self.TYPE) for place in places)
        memory = bytearray(0x400)
        counts = {self.NONE: 7 << 28, self.OBJECT: 3, self.FREED: 0, self.NO_COUNT: 5 << 20, self.OTHER: 1, self.SPLIT: 1}
        for place, count in counts.items():
            struct.pack_into("<II", memory, place, count, self.TYPE + (place == self.OTHER))
        # What was left over when the mark was made is none.
        memory[0x180 : 0x180 + len(immortal.MARK)] = immortal.mark()
        struct.pack_into("<I", memory, 0x180 + len(immortal.MARK), 0xFFFFFFFF)
        head = immortal.mark() + immortal.HEAD.pack(self.NOTE, len(noted), zlib.crc32(noted), self.NONE)
        memory[self.MARK : self.MARK + len(head)] = head
        memory[self.NOTE : self.NOTE + len(noted)] = noted
        return memory

    def component(self, memory):
        def section(number, data):
            return bytes([number]) + leb(len(data)) + data

        def segment(begin, end):
            return b"\x00\x41" + leb(begin) + b"\x0b" + leb(end - begin) + memory[begin:end]

        # The memory in two pieces, one with zeros between them left out, and others.
        pieces = [segment(0x100, 0x140), b"\x01\x02ab", segment(0x180, 0x400), b"\x00\x23\x00\x0b\x01c"]
        module = b"\x00asm\x01\x00\x00\x00" + section(11, leb(len(pieces)) + b"".join(pieces))
        inner = b"\x00asm\x0d\x00\x01\x00" + section(0, b"\x01x") + section(1, module)
        return bytearray(b"\x00asm\x0d\x00\x01\x00" + section(4, inner) + section(1, module[:8]))

    def test_counts_are_set_where_objects_are(self):
        places = [self.OBJECT, self.FREED, self.NO_COUNT, self.OTHER, self.SPLIT, 0x10, 0x7FFFFFFF]
        before = self.memory(places)
        component = self.component(before)
        self.assertEqual(immortal.apply(component), 1)
        expected = bytearray(before)
        struct.pack_into("<I", expected, self.OBJECT, immortal.IMMORTAL)
        expected[self.NOTE : self.NOTE + 8 * len(places)] = bytes(8 * len(places))
        self.assertEqual(component, self.component(expected))

    def test_without_a_note_that_is_whole_nothing_is_changed(self):
        def refused(memory):
            component = self.component(memory)
            self.assertEqual(immortal.apply(component), 0)
            self.assertEqual(component, self.component(memory))

        refused(bytearray(0x400))
        broken = self.memory([self.OBJECT])
        broken[self.NOTE] ^= 1
        refused(broken)
        other = self.memory([self.OBJECT])
        struct.pack_into("<I", other, self.NONE, 2)
        refused(other)
        self.assertEqual(immortal.apply(bytearray(b"\x00asm\x0d\x00\x01\x00")), 0)

    def test_what_can_be_reached_is_found(self):
        noted = immortal.walk()
        pairs = set(zip(noted[::2], noted[1::2]))
        code = immortal.walk.__code__
        for one in (immortal, immortal.walk, code, code.co_consts, code.co_linetable, immortal.MARK, type, None):
            self.assertIn((id(one) & immortal.ADDRESS, id(type(one)) & immortal.ADDRESS), pairs)


def leb(number):
    low, number = number & 0x7F, number >> 7
    return bytes([low]) if not number else bytes([low | 0x80]) + leb(number)


class LibraryTest(unittest.TestCase):
    FILES = {
        "whit_early.py": "raise AssertionError('it is there already')",
        "whit_late.py": "from whit_parts import half\nTHERE = __file__\ndef fail():\n    half.broken()\n",
        "whit_parts/__init__.py": "NAME = __name__\n",
        "whit_parts/half.py": "from . import NAME\ndef broken():\n    raise ValueError(NAME)\n",
        "test/whit_left_out.py": "",
        "no-module/whit_hidden.py": "",
    }

    def test_what_was_not_imported_can_be_later(self):
        sys.modules["whit_early"] = types.ModuleType("whit_early")
        with tempfile.TemporaryDirectory() as folder:
            for name, text in self.FILES.items():
                path = pathlib.Path(folder, name)
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
            library.keep(folder)
        kept = sys.meta_path[-1]
        try:
            import whit_early
            import whit_late

            self.assertIsNot(whit_early.__loader__, kept)
            self.assertEqual(whit_late.THERE, str(pathlib.Path(folder, "whit_late.py")))
            try:
                whit_late.fail()
            except ValueError:
                trace = traceback.format_exc()
            # The files are gone, the lines are not.
            self.assertIn("raise ValueError(NAME)\nValueError: whit_parts", trace)
            for module in ("whit_left_out", "test.whit_left_out", "whit_hidden", "whit_parts.other"):
                with self.assertRaises(ModuleNotFoundError):
                    __import__(module)
        finally:
            sys.meta_path.remove(kept)
            for module in [name for name in sys.modules if name.startswith("whit_") and name.split("_")[1] in ("early", "late", "parts")]:
                del sys.modules[module]


class Native(unittest.TestCase):
    MODULES = {"quick._speed": ["quick/_speed.cpython-311-x86_64-linux-gnu.so", "quick"]}

    def test_a_package_is_known_by_the_files_that_came_with_it(self):
        with tempfile.TemporaryDirectory() as folder:
            files = {
                "quick/__init__.py": "",
                "quick/_speed.cpython-311-x86_64-linux-gnu.so": "",
                "quick.libs/libfast-1a2b.so.3": "",
                "lone.abi3.so": "",
                "Quick_Thing-1.0.dist-info/RECORD": "quick/_speed.cpython-311-x86_64-linux-gnu.so,sha256=x,0\n",
            }
            for name, text in files.items():
                path = pathlib.Path(folder, name)
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
            removed = packages.remove_native_code(pathlib.Path(folder))
            self.assertEqual(
                removed["quick._speed"],
                ("quick/_speed.cpython-311-x86_64-linux-gnu.so", "Quick_Thing"),
            )
            self.assertEqual(removed["lone"], ("lone.abi3.so", "lone.abi3.so"))
            left = [path.name for path in pathlib.Path(folder).rglob("*") if path.is_file()]
            self.assertEqual(sorted(left), ["RECORD", "__init__.py"])

    def test_what_pip_could_not_build_is_named(self):
        self.assertEqual(packages.failed_package("ERROR: Failed building wheel for thing\nno"), "thing")
        self.assertEqual(packages.failed_package("Collecting a\nCollecting b (from a)\n  error"), "b")
        self.assertIsNone(packages.failed_package("no such host"))

    def test_an_import_that_nobody_can_do_without_is_refused(self):
        tree = entry.ast.parse("import os\nfrom quick import _speed\n")
        with self.assertRaisesRegex(SystemExit, "quick._speed is native code .*, of the package quick"):
            entry.refuse_native(tree, self.MODULES)
        # Whoever guards it can do without.
        guarded = "try:\n  from quick import _speed\nexcept ImportError:\n  pass\n"
        entry.refuse_native(entry.ast.parse(guarded), self.MODULES)

    def test_an_import_that_fails_says_why(self):
        native.refuse({"absent_thing": ["absent_thing.so", "absent"]})
        try:
            with self.assertRaises(ImportError) as failed:
                import absent_thing  # noqa: F401
            # As packages do that think they know better.
            text = f"Traceback\nImportError: please reinstall\n{failed.exception}\nGoodbye"
            self.assertEqual(native.refusal(text), str(failed.exception))
            self.assertEqual(componentize.explain(text, []), str(failed.exception))
            self.assertIsNone(native.refusal("ModuleNotFoundError: No module named 'x'"))
        finally:
            sys.meta_path.pop()


class Componentize(unittest.TestCase):
    def test_errors_name_the_files_of_this_machine(self):
        arguments = ["componentize-py", "-q", "-p", "work", "-p", "my/function", "-o", "out"]
        text = 'Traceback:\n  File "/1/app.py", line 1\nE: no\n\n\nCaused by:\n    E: no'
        self.assertEqual(
            componentize.explain(text, componentize.values(arguments, "-p")),
            'Traceback:\n  File "my/function/app.py", line 1\nE: no',
        )


class Asgi(unittest.TestCase):
    def test_a_request_reaches_the_application_and_its_answer_the_host(self):
        seen = {}

        async def app(scope, receive, send):
            seen.update(scope)
            body = b""
            while True:
                event = await receive()
                body += event["body"]
                if not event["more_body"]:
                    break
            await send({"type": "http.response.start", "status": 201, "headers": [(b"x-a", b"1")]})
            await send({"type": "http.response.body", "body": body.upper(), "more_body": True})
            await send({"type": "http.response.body", "body": b"!"})

        headers = [("X-Forwarded-Prefix", "/fn"), ("X-B", "2")]
        answer = call(app, "/a%20b?q=1", "POST", headers, b"body")
        self.assertEqual((answer.status, answer.values("x-a")), (201, ["1"]))
        self.assertEqual(answer.pieces, [b"BODY", b"!"])
        self.assertEqual((seen["type"], seen["method"], seen["path"]), ("http", "POST", "/fn/a b"))
        self.assertEqual((seen["root_path"], seen["query_string"]), ("/fn", b"q=1"))
        self.assertEqual(seen["server"], ("example.com", 8080))
        self.assertIn((b"x-b", b"2"), seen["headers"])

    def test_an_instance_with_an_async_call_is_one(self):
        class App:
            async def __call__(self, scope, receive, send):
                await send({"type": "http.response.start", "status": 204, "headers": []})
                await send({"type": "http.response.body"})

        self.assertEqual(call(App()).status, 204)

    def test_one_that_fails_or_stops_early_is_answered_for(self):
        async def fails(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise ValueError("mine")

        async def stops(scope, receive, send):
            pass

        async def waits(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})

        for app, word in ((fails, "mine"), (stops, "before the end"), (waits, "not supported")):
            answer = call(app)
            self.assertEqual(answer.status, 500)
            self.assertIn(word, answer.log.getvalue())

    def test_tasks_and_timers_run(self):
        async def app(scope, receive, send):
            import asyncio

            first, second = await asyncio.gather(asyncio.sleep(0.01, 1), asyncio.sleep(0, 2))
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": f"{first}{second}".encode()})

        self.assertEqual(call(app).body, b"12")


class WarmUp(unittest.TestCase):
    def test_it_leaves_nothing_behind_but_what_stays(self):
        output = io.StringIO()
        before = gc.get_freeze_count()
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
            warm.warm_up()
        try:
            self.assertEqual(output.getvalue(), "")
            self.assertGreater(gc.get_freeze_count(), before)
        finally:
            gc.unfreeze()


class OddNames(unittest.TestCase):
    def test_a_file_that_is_no_module_name_is_loaded_by_path(self):
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "[id].py").write_text("value = 7\n")
            text = entry.entry(pathlib.Path(folder), "[id]")
            start, end = text.index("import importlib"), text.index("for name in")
            scope = {}
            sys.path.insert(0, folder)
            try:
                exec(text[start:end], scope)
            finally:
                sys.path.remove(folder)
                sys.modules.pop("function", None)
            self.assertEqual(scope["function"].value, 7)


if __name__ == "__main__":
    unittest.main()
