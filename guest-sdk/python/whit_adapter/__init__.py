"""Makes an ordinary Python web handler a `wasi:http` component.

What can be served, unmodified:

- `class handler(BaseHTTPRequestHandler)`, as `http.server` and Vercel have it
- `app` or `application`, a WSGI callable (PEP 3333): Flask, Bottle, Django
- `app` or `application`, an ASGI 3 callable: Starlette, Quart

Nothing here is specific to a host: the component runs on any `wasi:http` one.

The modules, in the order in which a request passes through them:

- `wasi`         the only one that knows the component's bindings
- `exchange`     one request and its response, as plain Python
- `http_server`  runs a `BaseHTTPRequestHandler` over an exchange
- `wsgi`         runs a WSGI application over an exchange
- `asgi`         runs an ASGI application over an exchange
- `find`         which of the three a module holds
- `warm`         at build time: serves a request to itself, so that instances need not warm up
- `packages`     at build time: installs requirements.txt, without native code
- `native`       names the package whose native code is missing
- `entry`        at build time: writes the module that a component starts from
"""
