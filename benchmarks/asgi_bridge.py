"""What `BENCHMARK_APP` names, behind a2wsgi's threads, for a server that speaks ASGI only."""

import os
from importlib import import_module

from a2wsgi import WSGIMiddleware

module, _, name = os.environ["BENCHMARK_APP"].partition(":")
threads = int(os.environ["BENCHMARK_THREADS"])
application = WSGIMiddleware(getattr(import_module(module), name), workers=threads)
