"""Downloads from local servers, good and odd; and a cache that is read-only."""

import contextlib
import hashlib
import itertools
import socket
import threading
import urllib.request

import pytest

from functional_lm.text import DownloadError, corpora, download, load_corpus
from functional_lm.text.download import fetch

DATA = b"First Citizen:\n" * 100
EXPECTED = {"size": len(DATA), "sha256": hashlib.sha256(DATA).hexdigest()}
GOOD = b"HTTP/1.0 200 OK\r\nContent-Length: 1500\r\n\r\n"


@pytest.fixture
def serve(monkeypatch):
    """Return a function that starts a server of some pieces of bytes and returns its URL."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # which remembers the proxies it met first
    with contextlib.ExitStack() as servers:

        def start(*pieces, pause=0.0):
            stopped = threading.Event()
            listener = socket.create_server(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/input.txt"
            thread = threading.Thread(target=answer, args=(listener, url, pieces, pause, stopped))
            thread.start()

            def stop():
                stopped.set()
                listener.shutdown(socket.SHUT_RDWR)
                listener.close()
                thread.join()

            servers.callback(stop)
            return url

        yield start


requests = []


def answer(listener, url, pieces, pause, stopped):
    """Send all pieces to each client; the last may be endless."""
    requests.clear()
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        with client, contextlib.suppress(OSError):
            requests.append(client.recv(65536))
            for piece in pieces:
                for part in piece if isinstance(piece, itertools.repeat) else [piece]:
                    if stopped.wait(pause):
                        return
                    client.sendall(part.replace(b"URL", url.encode()))


def refused_url():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/input.txt"


ODD = {
    "another content": ([GOOD, DATA[:-1] + b"?"], "its sha256 is"),
    "cut off": ([GOOD, DATA[:700]], "IncompleteRead|700 bytes long"),
    "shorter": ([b"HTTP/1.0 200 OK\r\n\r\n", DATA[:700]], "700 bytes long, not 1,500"),
    "longer": ([b"HTTP/1.0 200 OK\r\n\r\n", DATA, b"more"], "longer than 1,500 bytes"),
    "endless": ([b"HTTP/1.0 200 OK\r\n\r\n", itertools.repeat(b"x" * 1000)], "longer than 1,500"),
    "a page to log in": ([b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<html>"], "6 bytes"),
    "not found": ([b"HTTP/1.0 404 Not Found\r\n\r\ngone"], "HTTP Error 404"),
    "redirects for ever": ([b"HTTP/1.0 302 Found\r\nLocation: URL\r\n\r\n"], "HTTP Error 302"),
    "redirects to a file": ([b"HTTP/1.0 302 Found\r\nLocation: file:///a\r\n\r\n"], "not allowed"),
    "no HTTP": ([b"\x15\x03\x01\x00\x02\x02\x16"], "BadStatusLine"),
    "silence": ([], "RemoteDisconnected|ConnectionReset"),
    "bad length": ([b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", DATA[:9]], "9 bytes long"),
    "bad chunks": ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"], "Incomplete"),
    "long head": ([b"HTTP/1.0 200 OK\r\nA: ", b"a" * 70_000, b"\r\n\r\n"], "LineTooLong"),
    "endless head": ([b"HTTP/1.0 200 OK\r\n", itertools.repeat(b"A: b\r\n")], "HTTPException"),
    "a head that drips": ([b"HTTP/1.0 200 OK\r\n", itertools.repeat(b"A")], "more than 0.5 s"),
    "a body that drips": ([GOOD, itertools.repeat(b"x")], "more than 0.5 s"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_an_odd_server_is_one_error_and_nothing_is_kept(serve, tmp_path, monkeypatch, name):
    pieces, says = ODD[name]
    drips = name.endswith("drips")
    if drips:
        monkeypatch.setattr(download, "DEADLINE", 0.5)
    with pytest.raises(DownloadError, match=says) as caught:
        fetch(serve(*pieces, pause=0.1 if drips else 0.0), tmp_path / "text.txt", **EXPECTED)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there(tmp_path):
    with pytest.raises(DownloadError, match="cannot download http"):
        fetch(refused_url(), tmp_path / "text.txt", **EXPECTED)


@pytest.mark.parametrize("proxy", ["", "http://[", "http://proxy:port", "odd://a"])
def test_a_broken_proxy(serve, tmp_path, monkeypatch, proxy):
    url = serve(b"\0\0\0\0")
    monkeypatch.setenv("http_proxy", proxy or url)
    with pytest.raises(DownloadError, match="cannot download http"):
        fetch("http://example.invalid/a", tmp_path / "text.txt", **EXPECTED)


def test_a_good_file_is_returned_and_kept(serve, tmp_path):
    path = tmp_path / "new" / "folder" / "text.txt"
    assert fetch(serve(GOOD, DATA), path, **EXPECTED) == DATA
    assert path.read_bytes() == DATA
    assert [p.name for p in path.parent.iterdir()] == ["text.txt"]


def test_a_cache_that_cannot_be_written_is_no_fault(serve, tmp_path, monkeypatch):
    (tmp_path / "cache").touch()  # where its folder should be
    assert fetch(serve(GOOD, DATA), tmp_path / "cache" / "text.txt", **EXPECTED) == DATA


@pytest.fixture
def small_shakespeare(monkeypatch):
    monkeypatch.setattr(corpora, "SHAKESPEARE_SIZE", EXPECTED["size"])
    monkeypatch.setattr(corpora, "SHAKESPEARE_SHA256", EXPECTED["sha256"])


@pytest.mark.usefixtures("small_shakespeare")
def test_the_cache_answers_unless_it_is_damaged(serve, tmp_path):
    url, path = serve(GOOD, DATA), tmp_path / "tinyshakespeare.txt"
    first = load_corpus(environment={}, url=url, cache=tmp_path)
    again = load_corpus(environment={}, url=url, cache=tmp_path)
    assert first.text == again.text == DATA.decode()
    assert "downloaded (kept in" in first.source
    assert again.source == f"Tiny Shakespeare from {path}"
    assert len(requests) == 1
    path.write_bytes(DATA[:-1])
    assert load_corpus(environment={}, url=url, cache=tmp_path).text == DATA.decode()
    assert path.read_bytes() == DATA
    assert len(requests) == 2


@pytest.mark.usefixtures("small_shakespeare")
def test_the_folder_of_the_variable_comes_first(tmp_path):
    (tmp_path / "tinyshakespeare.txt").write_bytes(DATA)
    corpus = load_corpus(environment={"FUNCTIONAL_LM_DATA": str(tmp_path)}, url=refused_url())
    assert corpus.text == DATA.decode()


def test_without_a_network_the_standard_library_serves_and_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "stdlib_corpus", lambda: corpora.Corpus("text", "docstrings"))
    corpus = load_corpus(environment={}, url=refused_url(), cache=tmp_path)
    assert corpus.text == "text"
    assert corpus.source.startswith("docstrings (cannot download http://127.0.0.1")
