import hashlib
import http.server
import threading

import pytest

from t2ilib.errors import InputError
from t2ilib.metrics import downloads
from t2ilib.metrics.downloads import released_file

CONTENT = b"weights" * 1000
DIGITS = hashlib.sha256(CONTENT).hexdigest()[:8]


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of one file, and a hub folder of one's own."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / f"net-{DIGITS}.pth").write_bytes(CONTENT)
    (tmp_path / "served" / "net-00000000.pth").write_bytes(CONTENT)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=tmp_path / "served")

        def log_message(self, *args):
            pass

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(downloads.constants, "HF_HUB_OFFLINE", False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()


def test_a_file_is_fetched_once(server, monkeypatch):
    path = released_file(f"{server}/net-{DIGITS}.pth", "a net")
    assert path.read_bytes() == CONTENT and path.parent.name == "checkpoints"
    monkeypatch.setattr(downloads, "reachable", lambda address: False)
    assert released_file(f"{server}/net-{DIGITS}.pth", "a net") == path


def test_a_file_with_other_digits_is_refused(server):
    with pytest.raises(InputError, match="could not be downloaded"):
        released_file(f"{server}/net-00000000.pth", "a net")
    path = released_file(f"{server}/net-{DIGITS}.pth", "a net")
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(InputError, match=f"net-{DIGITS}.pth: is damaged, or something else than a net; remove it"):
        released_file(f"{server}/net-{DIGITS}.pth", "a net")


def test_names_without_digits_are_taken_as_they_are(server, tmp_path):
    path = released_file(f"{server}/net-00000000.pth", "a net", tmp_path / "own", checked=False)
    assert path.read_bytes() == CONTENT and path.parent == tmp_path / "own"


def test_a_missing_page_is_an_input_error(server):
    with pytest.raises(InputError, match=r"could not be downloaded .*404"):
        released_file(f"{server}/absent-{DIGITS}.pth", "a net")


def test_without_a_server_the_error_says_what_to_fetch(server, monkeypatch, tmp_path):
    monkeypatch.setattr(downloads, "reachable", lambda address: False)
    with pytest.raises(InputError) as caught:
        released_file(f"{server}/net-{DIGITS}.pth", "a net")
    told = str(caught.value)
    assert "no internet" in told and f"fetch {server}/net-{DIGITS}.pth" in told and str(tmp_path) in told
