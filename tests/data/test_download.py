"""Downloads from a server on this machine that breaks off, lies, and serves what it should not."""

from __future__ import annotations

import errno
import gzip
import hashlib
import http.client
import io
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tarfile
import threading
import time
import tracemalloc
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mixcl.data import download, fetch
from mixcl.errors import InputError
from mixcl.lock import held

BODY = bytes(range(256)) * 4000  # 1 MB
MD5 = hashlib.md5(BODY).hexdigest()
Serve = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Serves whatever ``answer`` does and remembers the Range of each request."""

    def __init__(self) -> None:
        self.ranges: list[str | None] = []
        self.answer: Serve = whole
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.ranges.append(self.headers.get("Range"))
                server.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/file.bin"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


def begin(h: BaseHTTPRequestHandler) -> int:
    given = h.headers.get("Range")
    return int(given.removeprefix("bytes=").rstrip("-")) if given else 0


def head(h: BaseHTTPRequestHandler, start: int, length: int, total: int) -> None:
    h.send_response(206 if start else 200)
    h.send_header("Content-Length", str(length))
    h.send_header("ETag", '"v1"')
    if start:
        h.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
    h.end_headers()


def whole(h: BaseHTTPRequestHandler, body: bytes = BODY) -> None:
    start = begin(h)
    head(h, start, len(body) - start, len(body))
    h.wfile.write(body[start:])


def breaking(each: int) -> Serve:
    """Sends ``each`` bytes and hangs up."""

    def answer(h: BaseHTTPRequestHandler) -> None:
        start = begin(h)
        head(h, start, len(BODY) - start, len(BODY))
        h.wfile.write(BODY[start : start + each])
        h.close_connection = True

    return answer


def without_ranges(h: BaseHTTPRequestHandler) -> None:
    head(h, 0, len(BODY), len(BODY))
    h.wfile.write(BODY)


def status(code: int) -> Serve:
    return lambda h: h.send_error(code)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(fetch, "WAIT", 0.01)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = Server()
    yield made
    made.http.shutdown()


def test_a_file_comes_whole_under_its_name(server: Server, tmp_path: Path) -> None:
    to = fetch.fetch(server.url, tmp_path / "a" / "file.bin", MD5, progress=False)
    assert to.read_bytes() == BODY
    assert [path.name for path in to.parent.iterdir()] == ["file.bin"]


def test_a_server_that_breaks_off_is_asked_for_the_rest(server: Server, tmp_path: Path) -> None:
    server.answer = breaking(300_000)
    to = fetch.fetch(server.url, tmp_path / "file.bin", MD5, progress=False)
    assert to.read_bytes() == BODY
    assert server.ranges == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


@pytest.mark.parametrize(
    "error", [ssl.SSLError(1, "bad record"), ssl.SSLEOFError(8, "EOF"), OSError(errno.EHOSTUNREACH, "no route")]
)
def test_a_connection_that_fails_is_no_fault_of_the_disk(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    read, failures = http.client.HTTPResponse.read, [error]

    def broken(self: http.client.HTTPResponse, size: int | None = None) -> bytes:
        if failures and self.length and self.length < len(BODY) - 2000:
            raise failures.pop()
        return read(self, min(size or 1000, 5000))

    monkeypatch.setattr(http.client.HTTPResponse, "read", broken)
    assert fetch.fetch(server.url, tmp_path / "a.bin", MD5, progress=False).read_bytes() == BODY
    assert server.ranges == [None, "bytes=5000-"]


def test_an_answer_in_chunks_that_breaks_off_is_not_whole(server: Server, tmp_path: Path) -> None:
    """It tells no length, so that only the missing last chunk shows it."""

    def chunks(h: BaseHTTPRequestHandler) -> None:
        h.protocol_version = "HTTP/1.1"
        h.send_response(200)
        h.send_header("Transfer-Encoding", "chunked")
        h.end_headers()
        h.wfile.write(b"%x\r\n%s\r\n" % (len(BODY), BODY))
        if len(server.ranges) > 1:
            h.wfile.write(b"0\r\n\r\n")
        h.close_connection = True

    server.answer = chunks
    assert fetch.fetch(server.url, tmp_path / "a.bin", MD5, progress=False).read_bytes() == BODY
    assert len(server.ranges) == 2


def test_a_server_that_is_asked_too_often_is_asked_later(server: Server, tmp_path: Path) -> None:
    server.answer = lambda h: whole(h) if len(server.ranges) > 2 else h.send_error(429)
    assert fetch.fetch(server.url, tmp_path / "a.bin", MD5, progress=False).read_bytes() == BODY


def test_a_killed_download_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    def slow(h: BaseHTTPRequestHandler) -> None:
        start = begin(h)
        head(h, start, len(BODY) - start, len(BODY))
        h.wfile.write(BODY[start : start + 400_000])
        h.wfile.flush()
        time.sleep(0 if start else 60)
        h.wfile.write(BODY[start + 400_000 :])

    server.answer = slow
    to = tmp_path / "file.bin"
    code = f"from mixcl.data import fetch; fetch.CHUNK = 4096; fetch.fetch({server.url!r}, fetch.Path({str(to)!r}))"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    part = tmp_path / "file.bin.part"
    end = time.monotonic() + 60
    while time.monotonic() < end and not (part.is_file() and part.stat().st_size > 300_000):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    have = part.stat().st_size
    assert not to.exists()
    fetch.fetch(server.url, to, MD5, progress=False)
    assert to.read_bytes() == BODY
    assert server.ranges == [None, f"bytes={have}-"]


def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(b"x" * 500)
    server.answer = without_ranges
    assert fetch.fetch(server.url, tmp_path / "file.bin", MD5, progress=False).read_bytes() == BODY


@pytest.mark.parametrize("claimed", [len(BODY) + 1000, len(BODY) - 1000])
def test_a_server_that_lies_about_the_length_is_found_out(server: Server, tmp_path: Path, claimed: int) -> None:
    def lie(h: BaseHTTPRequestHandler) -> None:
        start = begin(h)
        head(h, start, claimed - start, claimed)
        h.wfile.write(BODY[start:claimed])
        h.close_connection = True

    server.answer = lie
    with pytest.raises(InputError, match=r"broke off at 1024000 of 1025000|MD5"):
        fetch.fetch(server.url, tmp_path / "file.bin", MD5, progress=False)
    assert not (tmp_path / "file.bin").exists()


@pytest.mark.parametrize(("code", "said"), [(404, "404"), (403, "by hand"), (500, "500, 5 times"), (503, "503")])
def test_a_server_that_refuses_is_one_sentence(server: Server, tmp_path: Path, code: int, said: str) -> None:
    server.answer = status(code)
    with pytest.raises(InputError, match=said) as raised:
        fetch.fetch(server.url, tmp_path / "file.bin", progress=False)
    assert "\n" not in str(raised.value)
    assert len(server.ranges) == (1 if code < 500 else fetch.TRIES)


def test_no_server_at_all_is_one_sentence(server: Server, tmp_path: Path) -> None:
    server.http.server_close()
    with pytest.raises(InputError, match="no connection"):
        fetch.fetch("http://127.0.0.1:9/file.bin", tmp_path / "file.bin", progress=False)


def test_a_dead_proxy_is_named_without_its_password(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:9/")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies of its first use
    with pytest.raises(InputError, match=r"no connection through the proxy 127.0.0.1:9 that http_proxy") as raised:
        fetch.fetch(server.url, tmp_path / "file.bin", progress=False)
    assert "secret" not in str(raised.value)
    server.answer = status(503)
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/file.bin"))
    monkeypatch.setattr(urllib.request, "_opener", None)
    with pytest.raises(InputError, match=r"answers 503 through the proxy 127.0.0.1"):
        fetch.fetch("http://example.invalid/file.bin", tmp_path / "file.bin", progress=False)


def test_a_corrupted_file_is_taken_away(server: Server, tmp_path: Path) -> None:
    server.answer = lambda h: whole(h, BODY[:-1] + b"!")
    with pytest.raises(InputError, match="MD5"):
        fetch.fetch(server.url, tmp_path / "file.bin", MD5, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_gz_without_a_checksum_is_read_through(server: Server, tmp_path: Path) -> None:
    packed = gzip.compress(os.urandom(5000))
    server.answer = lambda h: whole(h, packed)
    assert fetch.fetch(server.url, tmp_path / "a.nii.gz", progress=False).read_bytes() == packed
    server.answer = lambda h: whole(h, packed[:-200])
    with pytest.raises(InputError, match=r"whole \.gz"):
        fetch.fetch(server.url, tmp_path / "b.nii.gz", progress=False)


def test_a_file_that_changed_on_the_server_is_begun_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(b"x" * (len(BODY) + 5))

    def changed(h: BaseHTTPRequestHandler) -> None:
        if begin(h) > len(BODY):
            h.send_response(416)
            h.send_header("Content-Range", f"bytes */{len(BODY)}")
            h.end_headers()
        else:
            whole(h)

    server.answer = changed
    assert fetch.fetch(server.url, tmp_path / "file.bin", MD5, progress=False).read_bytes() == BODY


def test_a_full_disk_is_told_before_the_first_byte(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(InputError, match="make room"):
        fetch.fetch(server.url, tmp_path / "file.bin", MD5, progress=False)


def archive(to: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(to, "w") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return to


def seen(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def test_a_whole_collection_is_got_and_unpacked_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = archive(
        tmp_path / "made.tar", {"Task09_Spleen/dataset.json": b"{}", "Task09_Spleen/imagesTr/a.nii.gz": b"x"}
    )
    packed = made.read_bytes()
    server.answer = lambda h: whole(h, packed)
    one = download.File(server.url, "Task09_Spleen.tar", hashlib.md5(packed).hexdigest())
    monkeypatch.setattr(download, "files", lambda name: [one])
    root = tmp_path / "data"
    assert str(root / "Task09_Spleen") in download.get("msd_spleen", root, progress=False)
    assert (root / "Task09_Spleen/imagesTr/a.nii.gz").read_bytes() == b"x"
    assert seen(root) == ["Task09_Spleen"]
    download.get("msd_spleen", root, progress=False)
    assert len(server.ranges) == 1  # nothing was asked for a second time
    (root / ".msd_spleen.lock").unlink()
    download.get("msd_spleen", root, progress=False)
    assert not (root / ".msd_spleen.lock").exists()  # nor anything written
    (root / "Task09_Spleen").rename(root / "another")
    with held(root / ".msd_spleen.lock", "it"), pytest.raises(InputError, match=r"another mixcl .* is at work here"):
        download.get("msd_spleen", root, progress=False)


def test_what_could_not_be_unpacked_is_not_downloaded_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is an empty folder, which a user may have made, a collection."""
    packed = archive(tmp_path / "made.tar", {"Task09_Spleen/a": b"x"}).read_bytes()
    server.answer = lambda h: whole(h, packed)
    one = download.File(server.url, "Task09_Spleen.tar", hashlib.md5(packed).hexdigest())
    monkeypatch.setattr(download, "files", lambda name: [one])
    (tmp_path / "data/Task09_Spleen").mkdir(parents=True)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as crowded:
        crowded.setattr(download, "_write", full)
        with pytest.raises(InputError, match="the disk is full"):
            download.get("msd_spleen", tmp_path / "data", progress=False)
    assert seen(tmp_path / "data") == ["Task09_Spleen", "Task09_Spleen.tar"]  # of what was unpacked nothing is left
    download.get("msd_spleen", tmp_path / "data", progress=False)
    assert (tmp_path / "data/Task09_Spleen/a").read_bytes() == b"x"
    assert len(server.ranges) == 1
    assert seen(tmp_path / "data") == ["Task09_Spleen"]


@pytest.mark.parametrize(
    "members",
    [
        {"Task/a": b"fine", "../escaped": b"bad"},
        {"Task/a": b"fine", "/tmp/escaped": b"bad"},
        {"Task/a": b"fine", "Task/../../escaped": b"bad"},
        {"Other/a": b"bad"},
        {"Task/a": b"fine", "Task/link": link("Task/link", "../../escaped")},
        {"Task/a": b"fine", "Task/link": link("Task/link", "/etc/passwd")},
    ],
)
def test_an_archive_that_leaves_its_folder_is_refused_whole(
    tmp_path: Path, members: dict[str, bytes | tarfile.TarInfo]
) -> None:
    root = tmp_path / "deep" / "root"
    root.mkdir(parents=True)
    made = archive(root / "Task.tar", members)
    with pytest.raises(InputError, match="nothing was unpacked"):
        download.unpack(made, root / "Task")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["Task.tar", "deep", "root"]


def header(kind: bytes, size: int, name: str = "Task/a") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def sparse(size: int) -> bytes:
    """A member of many gigabytes in three blocks."""
    raw = bytearray(header(tarfile.GNUTYPE_SPARSE, 512))
    raw[483:495] = b"%011o\0" % size
    raw[148:156] = b"%06o\0 " % (sum(raw[:148]) + 8 * 32 + sum(raw[156:]))
    return bytes(raw) + bytes(512)


HUGE = 3 * 2**30  # bytes that a header claims; a file of as many takes no room, for it is never written
HOSTILE = {
    "a pax header of 3 GB": (lambda: header(b"x", HUGE), HUGE, "has more than 8.4 MB of names"),
    "a global header of 3 GB": (lambda: header(b"g", HUGE), HUGE, "has more than 8.4 MB of names"),
    "a name of 3 GB": (lambda: header(b"L", HUGE), HUGE, "has more than 8.4 MB of names"),
    "members without end": (lambda: header(b"0", 0) * 20_000, 0, "has more than 8.4 MB of names"),
    "names of names of names": (lambda: (header(b"L", 4) + b"abcd".ljust(512, b"\0")) * 5000, 0, "not a whole tar"),
    "a hole of 8 GB": (lambda: sparse(8 * 10**9), 0, "'Task/a' in it is outside Task/ or no plain file"),
    "a device": (lambda: header(tarfile.CHRTYPE, 0), 0, "no plain file"),
    "a pipe": (lambda: header(tarfile.FIFOTYPE, 0), 0, "no plain file"),
    "a hard link": (lambda: header(tarfile.LNKTYPE, 0), 0, "no plain file"),
    "a long name outside": (
        lambda: header(b"L", 2000) + b"../".ljust(2000, b"x").ljust(2048, b"\0") + header(b"0", 0), 0, "'../xxxx",
    ),
    "packed zeros": (lambda: gzip.compress(header(b"0", 2**24) + bytes(2**24)), 0, "not a whole tar"),
    "more than the disk": (lambda: header(b"0", 2**40), 2**40, "make room"),
    "a negative size": (lambda: header(b"0", -5), 0, "not a whole tar"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_in_little_time_and_memory(tmp_path: Path, kind: str) -> None:
    write, length, sentence = HOSTILE[kind]
    made = tmp_path / "Task.tar"
    made.write_bytes(write())
    if length:
        os.truncate(made, length + 4096)
    start = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=re.escape(sentence)) as told:
            download.unpack(made, tmp_path / "Task")
        assert tracemalloc.get_traced_memory()[1] < 2e8
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < 10
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 500 + len(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["Task.tar"]


def test_a_kill_at_the_end_of_unpacking_leaves_no_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has some 30 GB, and nobody would look at it again."""
    made = archive(tmp_path / "Task09_Spleen.tar", {"Task09_Spleen/a": b"fine"})

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(download, "_finish", die)
        with pytest.raises(KeyboardInterrupt):
            download.unpack(made, tmp_path / "Task09_Spleen")
    assert made.exists()
    download.get("msd_spleen", tmp_path, progress=False)
    assert seen(tmp_path) == ["Task09_Spleen"]
    archive(made, {"Task09_Spleen/a": b"somebody's own"})
    download.get("msd_spleen", tmp_path, progress=False)
    assert made.exists()


def test_a_gz_that_unpacks_without_end(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "LARGEST", 10**7)
    server.answer = lambda h: whole(h, gzip.compress(bytes(10**8), 1))
    with pytest.raises(InputError, match=r"not a whole \.gz file \(it unpacks to more than 10\.0 MB\)"):
        fetch.fetch(server.url, tmp_path / "a.nii.gz", progress=False)
    assert not (tmp_path / "a.nii.gz").exists()


def test_what_is_unpacked_is_the_users_whatever_the_archive_says(tmp_path: Path) -> None:
    member = tarfile.TarInfo("Task/a")
    member.mode, member.mtime, member.size = 0o4600, 1e9, 1
    with tarfile.open(tmp_path / "Task.tar", "w") as tar:
        tar.addfile(member, io.BytesIO(b"a"))
    (tmp_path / "b").touch()
    download.unpack(tmp_path / "Task.tar", tmp_path / "Task")
    ours, plain = (tmp_path / "Task/a").stat(), (tmp_path / "b").stat()
    assert (ours.st_mode, ours.st_mtime > 1.5e9) == (plain.st_mode, True)


def test_a_damaged_archive_leaves_no_folder(tmp_path: Path) -> None:
    made = archive(tmp_path / "Task.tar", {"Task/a": os.urandom(20_000), "Task/b": os.urandom(20_000)})
    made.write_bytes(made.read_bytes()[:25_000])
    with pytest.raises(InputError, match="not a whole tar"):
        download.unpack(made, tmp_path / "Task")
    assert [path.name for path in tmp_path.iterdir()] == ["Task.tar"]


@pytest.mark.parametrize("name", ["nih_pancreas", "btcv"])
def test_what_needs_an_account_gives_its_steps(name: str, tmp_path: Path) -> None:
    text = download.get(name, tmp_path)
    assert "https://" in text
    assert str(tmp_path) in text
    assert not list(tmp_path.iterdir())


def test_the_decathlon_is_got_from_where_monai_gets_it() -> None:
    from monai.apps import DecathlonDataset

    for name in download.MSD_MD5:
        (file,) = download.files(name)
        task = file.to.removesuffix(".tar")
        assert (file.url, file.md5) == (DecathlonDataset.resource[task], DecathlonDataset.md5[task])


def test_every_other_built_in_collection_has_addresses(tmp_path: Path) -> None:
    for name, number in {"msd_liver": 1, "msd_lung": 1, "msd_pancreas": 1, "msd_spleen": 1, "kits19": 420}.items():
        found = download.files(name)
        assert len(found) == number
        assert all(one.url.startswith("https://") for one in found)
    (tmp_path / "Task09_Spleen").mkdir()
    (tmp_path / "Task09_Spleen/phantom.json").touch()
    with pytest.raises(InputError, match="Task09_Spleen: holds phantoms"):
        download.get("msd_spleen", tmp_path)
    with pytest.raises(InputError, match="not a built-in collection"):
        download.get("kits21", Path("nowhere"))
