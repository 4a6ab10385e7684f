"""``file://`` and ``direct://``: bounded by its root, native attributes, atomic among programs."""

from __future__ import annotations

import asyncio
import os
import stat
from urllib.parse import unquote

import pytest

from fsdriver.backends import ABSENT, open_backend
from fsdriver.backends.local_attributes import TEMPORARY
from fsdriver.config.models import BackendConfig
from fsdriver.errors import AccessDenied, ContainerMissing, InvalidName, NotDirectory, NotFound, Stale
from tests.service.backend_suite import files, listing, run


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture(params=["file", "direct"])
def scheme(request):
    return request.param


@pytest.fixture
def backend(root, scheme):
    backend, _ = open_backend("test", BackendConfig(url=f"{scheme}://{root}"))
    yield backend
    run(backend.close())


@pytest.fixture
def prefix(root):
    return f"{str(root).strip('/')}/"


def test_two_roots_agree_on_identity_and_keys(root, backend, prefix, scheme):
    (root / "sub").mkdir()
    inner, inner_prefix = open_backend("inner", BackendConfig(url=f"{scheme}://{root}/sub"))
    run(inner.put(f"{inner_prefix}/x", b"1"))
    assert inner.identity == backend.identity
    assert run(inner.head(f"{inner_prefix}/x")) == run(backend.head(f"{prefix}sub/x"))
    run(inner.close())


def test_nothing_outside_the_root_is_reached(root, backend, prefix, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (root / "link").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")
    for key in (f"{prefix}link/secret", f"{prefix}file"):
        with pytest.raises(NotFound):
            run(backend.get(key))
        with pytest.raises(NotFound):
            run(backend.head(key))
    with pytest.raises(AccessDenied):
        run(backend.put(f"{prefix}link/new", b"x"))
    for key in (f"{prefix}../outside/secret", str(outside / "secret").strip("/"), f"{prefix}a//b", f"{prefix}./a"):
        with pytest.raises(InvalidName):
            run(backend.get(key))
        with pytest.raises(InvalidName):
            run(backend.put(key, b"x"))
    assert files(backend, prefix, delimiter=False) == []
    assert backend.counters.hidden == 2
    run(backend.put(f"{prefix}file", b"mine"))
    assert (outside / "secret").read_bytes() == b"secret"


def test_links_inside_are_shown_and_read(root, backend, prefix):
    run(backend.put(f"{prefix}dir/data", b"content"))
    (root / "link").symlink_to("dir/data")
    info = run(backend.head(f"{prefix}link"))
    assert info.metadata["fsdriver-kind"] == "symlink"
    assert unquote(info.metadata["fsdriver-target"]) == "dir/data"
    assert bytes(run(backend.get(f"{prefix}link"))) == b"content"


def test_attributes_are_native_and_come_with_a_listing(root, backend, prefix):
    metadata = {"fsdriver-mode": "2750", "fsdriver-mtime": "1500000000123456789", "fsdriver-ino": "77", "note": "x"}
    run(backend.put(f"{prefix}f", b"x", metadata=metadata))
    status = (root / "f").stat()
    assert stat.S_IMODE(status.st_mode) == 0o2750
    assert status.st_mtime_ns == 1500000000123456789
    listed = next(one for one in listing(backend, prefix)[0] if one.key == f"{prefix}f")
    assert metadata.items() <= listed.metadata.items()
    assert listed.metadata["fsdriver-uid"] == str(status.st_uid)
    (root / "f").chmod(0o600)
    assert run(backend.head(f"{prefix}f")).metadata["fsdriver-mode"] == "0600"


def test_special_files_are_described_but_not_read(root, backend, prefix):
    os.mkfifo(root / "pipe")
    assert run(backend.head(f"{prefix}pipe")).metadata["fsdriver-kind"] == "fifo"
    with pytest.raises(NotFound):
        run(backend.get(f"{prefix}pipe"))


def test_a_file_is_no_directory(backend, prefix):
    run(backend.put(f"{prefix}a", b"x"))
    with pytest.raises(NotDirectory):
        run(backend.put(f"{prefix}a/b", b"x"))
    with pytest.raises(NotFound):
        run(backend.get(f"{prefix}a/b"))


def test_a_missing_root_is_no_empty_tree(root, backend, prefix):
    root.rmdir()
    for operation in (
        backend.check(),
        backend.head(f"{prefix}a"),
        backend.get(f"{prefix}a"),
        backend.put(f"{prefix}a", b""),
        backend.delete(f"{prefix}a"),
    ):
        with pytest.raises(ContainerMissing):
            run(operation)
    with pytest.raises(ContainerMissing):
        listing(backend, prefix)
    assert not root.exists()


def test_of_many_creators_one_wins(backend, prefix):
    async def race():
        puts = (backend.put(f"{prefix}lock", b"%d" % number, if_version=ABSENT) for number in range(20))
        return await asyncio.gather(*puts, return_exceptions=True)

    results = run(race())
    assert sum(not isinstance(one, Exception) for one in results) == 1
    assert all(isinstance(one, Stale) for one in results if isinstance(one, Exception))


def test_of_many_conditional_writers_one_wins(backend, prefix):
    base = run(backend.put(f"{prefix}f", b"base")).version

    async def race():
        puts = (backend.put(f"{prefix}f", b"writer%d" % number, if_version=base) for number in range(20))
        return await asyncio.gather(*puts, return_exceptions=True)

    assert sum(not isinstance(one, Exception) for one in run(race())) == 1


def test_unfinished_files_are_hidden_and_swept(root, backend, prefix):
    (root / "d").mkdir()
    (root / "d" / f"{TEMPORARY}dead").write_bytes(b"half")
    assert files(backend, f"{prefix}d/") == []
    with pytest.raises(InvalidName):
        run(backend.get(f"{prefix}d/{TEMPORARY}dead"))
    run(backend.delete(f"{prefix}d/"))
    assert not (root / "d").exists()


def test_a_failed_put_leaves_nothing(root, backend, prefix, tmp_path):
    with pytest.raises(OSError, match="No such file"):
        run(backend.put(f"{prefix}x", tmp_path / "missing"))
    assert list(root.iterdir()) == []


def test_names_that_are_not_utf8_are_listed(root, backend, prefix):
    with open(os.fsencode(root) + b"/\xff", "wb") as file:
        file.write(b"x")
    (key,) = [one.key for one in listing(backend, prefix)[0] if one.key != prefix]
    assert bytes(run(backend.get(key))) == b"x"


def test_a_put_that_is_cancelled_stores_nothing(root, backend, prefix, tmp_path):
    """Its thread is still writing then; the file never gets its name."""
    fifo = tmp_path / "source"
    os.mkfifo(fifo)

    async def cancel_in_the_middle():
        loop = asyncio.get_running_loop()
        put = loop.create_task(backend.put(f"{prefix}f", fifo))
        with await loop.run_in_executor(None, fifo.open, "wb", 0) as source:
            await loop.run_in_executor(None, source.write, b"x" * 1_000_000)
            put.cancel()
            await asyncio.wait([put])
        return put

    assert backend.stops_when_cancelled(1)
    assert run(cancel_in_the_middle()).cancelled()
    run(backend.put(f"{prefix}other", b""))
    run(backend.close())
    backend._executor.shutdown(wait=True)
    assert os.listdir(root) == ["other"]
