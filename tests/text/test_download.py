"""Downloads from a local server: good, wrong, truncated, refused; and a cache that is read-only."""

import hashlib
import http.server
import os
import socket
import threading

import pytest

from functional_lm.text import DownloadError, corpora, load_corpus
from functional_lm.text.download import fetch

DATA = b"First Citizen:\n" * 100
EXPECTED = {"size": len(DATA), "sha256": hashlib.sha256(DATA).hexdigest()}


@pytest.fixture
def serve():
    """Return a function that serves some bytes and returns their URL; requests are counted."""
    servers = []

    def start(body, status=200, length=None):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                server.requests += 1
                self.send_response(status)
                self.send_header("Content-Length", str(len(body) if length is None else length))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.requests = 0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server, f"http://127.0.0.1:{server.server_port}/input.txt"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def refused_url():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/input.txt"


def test_a_good_file_is_returned_and_kept(serve, tmp_path):
    _, url = serve(DATA)
    path = tmp_path / "new" / "folder" / "text.txt"
    assert fetch(url, path, **EXPECTED) == DATA
    assert path.read_bytes() == DATA
    assert [p.name for p in path.parent.iterdir()] == ["text.txt"]


@pytest.mark.parametrize(
    ("body", "settings", "says"),
    [
        (DATA[:-1] + b"?", {}, "its sha256 is"),
        (DATA[:700], {}, "700 bytes long, not 1,500"),
        (DATA[:700], {"length": len(DATA)}, "700 bytes long|IncompleteRead|cannot download"),
        (DATA + b"more", {}, "longer than 1,500 bytes"),
        (b"gone", {"status": 404}, "HTTP Error 404"),
    ],
)
def test_anything_else_is_refused_and_not_kept(serve, tmp_path, body, settings, says):
    _, url = serve(body, **settings)
    with pytest.raises(DownloadError, match=says):
        fetch(url, tmp_path / "text.txt", **EXPECTED)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there(tmp_path):
    with pytest.raises(DownloadError, match="cannot download http"):
        fetch(refused_url(), tmp_path / "text.txt", **EXPECTED)


def test_a_cache_that_cannot_be_written_is_no_fault(serve, tmp_path, monkeypatch):
    _, url = serve(DATA)

    def read_only(path, data):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("functional_lm.text.download.write_atomic", read_only)
    assert fetch(url, tmp_path / "text.txt", **EXPECTED) == DATA
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write to a read-only folder")
def test_a_folder_that_is_read_only_is_no_fault(serve, tmp_path):
    _, url = serve(DATA)
    tmp_path.chmod(0o500)
    assert fetch(url, tmp_path / "text.txt", **EXPECTED) == DATA


@pytest.fixture
def small_shakespeare(monkeypatch):
    monkeypatch.setattr(corpora, "SHAKESPEARE_SIZE", EXPECTED["size"])
    monkeypatch.setattr(corpora, "SHAKESPEARE_SHA256", EXPECTED["sha256"])


@pytest.mark.usefixtures("small_shakespeare")
def test_the_second_time_the_cache_answers(serve, tmp_path):
    server, url = serve(DATA)
    first = load_corpus(environment={}, url=url, cache=tmp_path)
    again = load_corpus(environment={}, url=url, cache=tmp_path)
    assert first.text == again.text == DATA.decode()
    assert "downloaded (kept in" in first.source
    assert again.source == f"Tiny Shakespeare from {tmp_path / 'tinyshakespeare.txt'}"
    assert server.requests == 1


@pytest.mark.usefixtures("small_shakespeare")
def test_a_damaged_cache_is_downloaded_again(serve, tmp_path):
    server, url = serve(DATA)
    (tmp_path / "tinyshakespeare.txt").write_bytes(DATA[:-1])
    assert load_corpus(environment={}, url=url, cache=tmp_path).text == DATA.decode()
    assert (tmp_path / "tinyshakespeare.txt").read_bytes() == DATA
    assert server.requests == 1


@pytest.mark.usefixtures("small_shakespeare")
def test_the_folder_of_the_variable_comes_first(serve, tmp_path):
    server, url = serve(DATA)
    (tmp_path / "tinyshakespeare.txt").write_bytes(DATA)
    corpus = load_corpus(environment={"FUNCTIONAL_LM_DATA": str(tmp_path)}, url=url)
    assert corpus.text == DATA.decode()
    assert server.requests == 0


def test_without_a_network_the_standard_library_serves_and_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "stdlib_corpus", lambda: corpora.Corpus("text", "docstrings"))
    corpus = load_corpus(environment={}, url=refused_url(), cache=tmp_path)
    assert corpus.text == "text"
    assert corpus.source.startswith("docstrings, since cannot download http://127.0.0.1")
