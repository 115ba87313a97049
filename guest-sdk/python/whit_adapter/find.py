"""Which kind of handler a module holds."""

import inspect
from http.server import BaseHTTPRequestHandler

from . import http_server, wsgi


class NoHandler(Exception):
    """The module holds nothing that can be served."""


def find(module):
    """The function that serves an exchange with what `module` defines."""
    for name in ("handler", "Handler"):
        candidate = getattr(module, name, None)
        if is_handler_class(candidate):
            return http_server.serve(candidate)
    for name in ("app", "application"):
        candidate = getattr(module, name, None)
        if inspect.iscoroutinefunction(candidate) or inspect.iscoroutinefunction(
            getattr(type(candidate), "__call__", None)
        ):
            # Only now: a function that needs no event loop does without one.
            from . import asgi

            return asgi.serve(candidate)
        if callable(candidate):
            return wsgi.serve(candidate)
    own = [
        value for value in vars(module).values()
        if is_handler_class(value) and value.__module__ == module.__name__
    ]
    if len(own) == 1:
        return http_server.serve(own[0])
    raise NoHandler(
        f"{module.__name__} has neither `class handler(BaseHTTPRequestHandler)`"
        " nor a WSGI or ASGI `app`"
    )


def is_handler_class(value):
    return inspect.isclass(value) and issubclass(value, BaseHTTPRequestHandler)
