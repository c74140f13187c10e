"""A user who is not logged in anywhere, and servers on this machine that behave badly."""

import contextlib
import http.server
import os
import socket
import threading

import pytest
import wandb


@pytest.fixture(autouse=True)
def nobody(tmp_path_factory, monkeypatch):
    """No login, no settings, no proxy; what the code sets in the environment is undone."""
    home = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name.startswith("WANDB_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("WANDB_SILENT", "WANDB_ERROR_REPORTING"):
        monkeypatch.setenv(name, "")
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "NETRC", "APTLAB_RUN_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(home / "config"))
    monkeypatch.chdir(home)
    yield home
    wandb.teardown()  # settings and login are read once a process otherwise


@pytest.fixture
def closed():
    """An address on this machine where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def silent():
    """An address that takes connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(8)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextlib.contextmanager
def serve(hangs):
    """A web server that answers HEAD and moves /moved to nowhere; a login is refused, or hangs."""
    released = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(301 if self.path == "/moved" else 200)
            self.send_header("Location", "http://127.0.0.1:1/")
            self.end_headers()

        def do_POST(self):
            if hangs:
                released.wait(30)
            self.send_response(401)
            self.end_headers()

        def log_message(self, *unused):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    released.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def refusing_server():
    """A web server that answers and refuses every login."""
    with serve(hangs=False) as url:
        yield url


@pytest.fixture(params=["refuses", "hangs"])
def bad_server(request):
    """A web server that answers, but refuses every login or hangs at it."""
    with serve(hangs=request.param == "hangs") as url:
        yield url
