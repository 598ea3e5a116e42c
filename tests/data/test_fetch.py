"""Downloads against a local server: whole, resumed, cut, changed, wrong; unpacked or refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner

from segbench.cards import load_dataset_card
from segbench.cards.dataset_card import DatasetCard, Download
from segbench.core.archive import safe_extract
from segbench.core.errors import SegbenchError
from segbench.data import fetch as fetch_module
from segbench.data.fetch import download, fetch

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
NO_PAUSE = (0.0, 0.0, 0.0, 0.0)


@dataclass
class Behaviour:
    """What the server does; changed by each test."""

    content: bytes = CONTENT
    etag: str | None = '"one"'
    modified: str | None = None
    ranges: bool = True
    cut_after: list[int] = field(default_factory=list)
    """Bytes after which successive answers are cut off."""
    statuses: list[int] = field(default_factory=list)
    """Error answers that come first."""
    redirect: str | None = None
    length: bool = True
    requests: list[dict[str, str]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    behaviour: Behaviour
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        b = self.behaviour
        b.requests.append({k.lower(): v for k, v in self.headers.items()} | {"path": self.path})
        if b.redirect and self.path != "/moved":
            self.send_response(302)
            self.send_header("Location", b.redirect)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if b.statuses:
            self.send_response(b.statuses.pop(0))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        asked = self.headers.get("Range")
        same = self.headers.get("If-Range") in {b.etag, b.modified} - {None}
        if asked and b.ranges and same:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(b.content):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(b.content) - 1}/{len(b.content)}")
        else:
            self.send_response(200)
        body = b.content[start:]
        if b.length:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
        if b.etag:
            self.send_header("ETag", b.etag)
        if b.modified:
            self.send_header("Last-Modified", b.modified)
        self.end_headers()
        if b.cut_after:
            body = body[: b.cut_after.pop(0)]
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, format, *args):
        return


@pytest.fixture
def server() -> Iterator[tuple[str, Behaviour]]:
    behaviour = Behaviour()
    handler = type("Once", (Handler,), {"behaviour": behaviour})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", behaviour
        running.shutdown()
        thread.join()


def get(server, target: Path, **options) -> Path:
    options.setdefault("pauses", NO_PAUSE)
    return download(f"{server[0]}/file.bin", target, **options)


def error_of(server, target: Path, **options) -> SegbenchError:
    with pytest.raises(SegbenchError) as caught:
        get(server, target, **options)
    assert not target.exists()
    return caught.value


def test_whole(server, tmp_path):
    told: list[tuple[int, int | None]] = []
    path = get(
        server,
        tmp_path / "deep" / "x",
        sha256=SHA256,
        md5=MD5,
        bytes=len(CONTENT),
        progress=lambda *a: told.append(a),
    )
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["x"]
    assert told[-1] == (len(CONTENT), len(CONTENT))


def test_what_is_there_and_right_is_not_fetched_again(server, tmp_path):
    (tmp_path / "x").write_bytes(CONTENT)
    get(server, tmp_path / "x", sha256=SHA256)
    assert not server[1].requests


def test_cut_connection_is_resumed(server, tmp_path):
    server[1].cut_after = [100_000, 200_000]
    assert get(server, tmp_path / "x", sha256=SHA256).read_bytes() == CONTENT
    asked = [request.get("range") for request in server[1].requests]
    assert asked == [None, "bytes=100000-", "bytes=300000-"]
    assert server[1].requests[1]["if-range"] == '"one"'


def test_the_next_call_resumes(server, tmp_path):
    server[1].cut_after = [1000] * 5
    error = error_of(server, tmp_path / "x", sha256=SHA256)
    assert error.code == "SB506" and error.exit_code == 5
    assert f"{server[0]}/file.bin" in error.mend
    assert (tmp_path / "x.part").stat().st_size == 5000
    assert get(server, tmp_path / "x", sha256=SHA256).read_bytes() == CONTENT
    assert server[1].requests[-1]["range"] == "bytes=5000-"


def test_last_modified_serves_where_there_is_no_etag(server, tmp_path):
    server[1].etag, server[1].modified = None, "Mon, 02 Jan 2023 00:00:00 GMT"
    server[1].cut_after = [70_000]
    assert get(server, tmp_path / "x", sha256=SHA256).read_bytes() == CONTENT
    assert server[1].requests[1]["range"] == "bytes=70000-"


@pytest.mark.parametrize(("etag", "ranges"), [(None, True), ('W/"weak"', True), ('"one"', False)])
def test_without_a_validator_or_ranges_it_starts_over(server, tmp_path, etag, ranges):
    server[1].etag, server[1].ranges = etag, ranges
    server[1].cut_after = [70_000]
    assert get(server, tmp_path / "x", sha256=SHA256).read_bytes() == CONTENT
    assert len(server[1].requests) == 2


def test_changed_file_starts_over(server, tmp_path):
    server[1].cut_after = [70_000] * 5
    error_of(server, tmp_path / "x")
    other = CONTENT[::-1]
    server[1].content, server[1].etag = other, '"two"'
    assert get(server, tmp_path / "x").read_bytes() == other


def test_part_of_another_address_is_not_continued(server, tmp_path):
    server[1].cut_after = [70_000] * 5
    error_of(server, tmp_path / "x")
    download(f"{server[0]}/other.bin", tmp_path / "x", pauses=NO_PAUSE)
    assert "range" not in server[1].requests[-1]


def test_part_that_is_too_long_starts_over(server, tmp_path):
    (tmp_path / "x.part").write_bytes(CONTENT + b"more")
    (tmp_path / "x.part.json").write_text(json.dumps({"url": f"{server[0]}/file.bin", "validator": '"one"'}))
    assert get(server, tmp_path / "x", sha256=SHA256).read_bytes() == CONTENT


@pytest.mark.parametrize("state", ["{", "[]", '{"url": 3}', '{"url": "x", "validator": null}'])
def test_damaged_state_of_a_part_starts_over(server, tmp_path, state):
    (tmp_path / "x.part").write_bytes(b"junk")
    (tmp_path / "x.part.json").write_text(state)
    assert get(server, tmp_path / "x", sha256=SHA256).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "wrong", [{"sha256": "0" * 64}, {"md5": "0" * 32}, {"bytes": 5}, {"bytes": len(CONTENT) + 1}]
)
@pytest.mark.parametrize("length", [True, False])
def test_wrong_digest_or_size(server, tmp_path, wrong, length):
    server[1].length = length
    error = error_of(server, tmp_path / "x", **wrong)
    assert error.code == "SB333" and error.exit_code == 4
    assert error.expected != error.found
    assert not list(tmp_path.iterdir()), "the part must be deleted"


def test_an_endless_answer_is_stopped(server, tmp_path):
    server[1].content, server[1].length = bytes(20_000_000), False
    told: list[int] = []
    error = error_of(server, tmp_path / "x", bytes=1000, progress=lambda have, _: told.append(have))
    assert error.code == "SB333"
    assert told[-1] < 10_000_000


@pytest.mark.parametrize("status", [500, 503, 429])
def test_errors_that_pass_are_tried_again(server, tmp_path, status):
    server[1].statuses = [status] * 4
    assert get(server, tmp_path / "x", sha256=SHA256).read_bytes() == CONTENT


@pytest.mark.parametrize("status", [401, 403, 404])
def test_errors_that_stay_are_told_at_once(server, tmp_path, status):
    server[1].statuses = [status] * 9
    error = error_of(server, tmp_path / "x")
    assert error.code == "SB506" and str(status) in error.message
    assert len(server[1].requests) == 1


def test_no_server(tmp_path):
    with pytest.raises(SegbenchError) as caught:
        download("http://127.0.0.1:9/x.tar", tmp_path / "x", pauses=(0.0,))
    assert caught.value.code == "SB506" and caught.value.exit_code == 5
    assert "http://127.0.0.1:9/x.tar" in caught.value.mend


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/x",
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "http://127.0.0.1.example.org/x",
        "x",
    ],
)
def test_only_https(tmp_path, url):
    with pytest.raises(SegbenchError) as caught:
        download(url, tmp_path / "x", pauses=())
    assert caught.value.code == "SB104"


def test_redirect_on_the_same_scheme(server, tmp_path):
    server[1].redirect = f"{server[0]}/moved"
    assert get(server, tmp_path / "x", sha256=SHA256).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "goal", ["https://127.0.0.1/x", "file:///etc/passwd", "ftp://127.0.0.1/x", "http://example.org/x"]
)
def test_redirect_elsewhere(server, tmp_path, goal):
    server[1].redirect = goal
    assert error_of(server, tmp_path / "x").code == "SB506"
    assert len(server[1].requests) <= 5


def test_the_extractor_is_the_one_of_core():
    assert fetch_module.safe_extract is safe_extract


# ---- fetch: card to folder


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def card_for(url: str, **more) -> DatasetCard:
    # https is the rule of cards; the local server speaks http, so the check of the card is stepped over
    item = Download.model_construct(
        url=url, sha256=None, md5=None, bytes=None, unpacks_to="Task04_Hippocampus"
    )
    item = item.model_copy(update=more)
    card = load_dataset_card("msd-hippocampus")
    return card.model_copy(
        update={"availability": card.availability.model_copy(update={"download": (item,)})}
    )


MEMBERS = {"Task04_Hippocampus/dataset.json": b"{}", "Task04_Hippocampus/imagesTr/._x": b"junk"}


@pytest.mark.parametrize("name", ["Task04.tar", "Task04.tar.gz"])
def test_fetch_unpacks_without_the_wrapping_folder(server, tmp_path, name):
    data = archive(MEMBERS)
    server[1].content = gzip.compress(data) if name.endswith("gz") else data
    fetched = fetch(card_for(f"{server[0]}/{name}"), tmp_path / "data", pauses=NO_PAUSE)
    assert fetched.root == tmp_path / "data" / "Task04_Hippocampus"
    assert [p.relative_to(fetched.root).as_posix() for p in fetched.root.rglob("*") if p.is_file()] == [
        "dataset.json"
    ]
    digest = hashlib.sha256(server[1].content).hexdigest()
    assert fetched.files == ((name, digest, len(server[1].content)),)
    lock = json.loads((tmp_path / "data" / "msd-hippocampus.lock.json").read_text())
    assert lock["sha256"] == {f"{server[0]}/{name}": digest}
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == [
        "Task04_Hippocampus",
        "msd-hippocampus.lock.json",
    ]


def test_fetch_again_does_nothing(server, tmp_path):
    server[1].content = archive(MEMBERS)
    card = card_for(f"{server[0]}/Task04.tar")
    fetch(card, tmp_path, pauses=NO_PAUSE)
    count = len(server[1].requests)
    again = fetch(card, tmp_path, pauses=NO_PAUSE)
    assert again.already_here and len(server[1].requests) == count


def test_an_empty_folder_of_the_name_is_not_the_dataset(server, tmp_path):
    server[1].content = archive(MEMBERS)
    (tmp_path / "Task04_Hippocampus").mkdir()
    fetched = fetch(card_for(f"{server[0]}/Task04.tar"), tmp_path, pauses=NO_PAUSE)
    assert not fetched.already_here
    assert (fetched.root / "dataset.json").is_file()


def test_fetch_compares_with_the_first_download(server, tmp_path):
    server[1].content = archive(MEMBERS)
    card = card_for(f"{server[0]}/Task04.tar")
    root = fetch(card, tmp_path, pauses=NO_PAUSE).root
    root.rename(tmp_path / "elsewhere")
    server[1].content = archive(MEMBERS | {"Task04_Hippocampus/new": b"1"})
    with pytest.raises(SegbenchError) as caught:
        fetch(card, tmp_path, pauses=NO_PAUSE)
    assert caught.value.code == "SB333"
    assert not root.exists()


@pytest.mark.parametrize("members", [{"../evil": b"1"}, {"a/b": b"1", "A/c": b"2"}])
def test_fetch_of_an_unsafe_archive_leaves_no_dataset(server, tmp_path, members):
    server[1].content = archive(members)
    with pytest.raises(SegbenchError) as caught:
        fetch(card_for(f"{server[0]}/Task04.tar"), tmp_path / "data", pauses=NO_PAUSE)
    assert caught.value.code == "SB334"
    assert not (tmp_path / "data" / "Task04_Hippocampus").exists()
    assert not (tmp_path / "evil").exists()
    assert not list((tmp_path / "data").iterdir()), "neither archive nor lock"


def test_fetch_of_several_folders_at_the_top(server, tmp_path):
    server[1].content = archive({"dataset.json": b"{}", "imagesTr/a": b"1"})
    root = fetch(card_for(f"{server[0]}/Task04.tar"), tmp_path, pauses=NO_PAUSE).root
    assert sorted(p.name for p in root.iterdir()) == ["dataset.json", "imagesTr"]


@pytest.mark.parametrize("slug", ["brats2023-gli", "crc-2000", "phantom-crc"])
def test_what_cannot_be_fetched_says_how_to_come_by_it(tmp_path, slug):
    with pytest.raises(SegbenchError) as caught:
        fetch(load_dataset_card(slug), tmp_path)
    assert caught.value.code == "SB301" and caught.value.exit_code == 4
    assert not list(tmp_path.iterdir())


def test_command(server, tmp_path, monkeypatch):
    from segbench.cli.main import build_app

    server[1].content = archive(MEMBERS)
    monkeypatch.setattr("segbench.cards.load_dataset_card", lambda slug: card_for(f"{server[0]}/Task04.tar"))
    run = CliRunner().invoke(
        build_app(), ["data", "fetch", "msd-hippocampus", "--data-dir", str(tmp_path), "--json"]
    )
    assert run.exit_code == 0, run.output
    result = json.loads(run.stdout)
    schema = json.loads((files("segbench.cli") / "schema" / "data-fetch.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(result)
    assert result["dataset"] == "msd-hippocampus"
    assert result["files"][0]["bytes"] == len(server[1].content)
    assert Path(result["root"]).is_dir()


def test_command_for_what_cannot_be_fetched(tmp_path):
    from segbench.cli.main import build_app

    run = CliRunner().invoke(build_app(), ["data", "fetch", "brats2023-gli", "--data-dir", str(tmp_path)])
    assert run.exit_code == 4
    assert "SB301" in run.stderr and "synapse" in run.stderr


@pytest.mark.parametrize(
    ("length", "total"),
    [
        ("12", 12),
        ("\u00b2", None),
        ("\u0663", None),
        ("-1", None),
        ("1e3", None),
        ("9" * 5000, None),
        (None, None),
    ],
)
def test_a_length_that_is_not_a_plain_number_is_unknown(length: str | None, total: int | None) -> None:
    from types import SimpleNamespace

    headers = {} if length is None else {"Content-Length": length}
    assert fetch_module._total(SimpleNamespace(headers=headers), 0) == total
