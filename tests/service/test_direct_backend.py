"""``direct://``: every size comes back exactly, past the page cache, and through it where a file system refuses."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import logging
import mmap
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from fsdriver.backends import aligned, direct, open_backend, weakness
from fsdriver.backends.direct_calls import PAGE
from fsdriver.backends.local_attributes import TEMPORARY
from fsdriver.config import Config
from fsdriver.config.models import BackendConfig
from fsdriver.engine import open_engine
from fsdriver.errors import ConfigError, NoSpace, Unsupported
from fsdriver.routes.caching import warm
from tests.crash.disk import Disk, can_cut_power
from tests.service.backend_suite import run
from tests.service.routes import Tree, update, write
from tests.waiting import wait_for

pytestmark = pytest.mark.feature("S4-20")

BLOCK = aligned.BLOCK
SIZES = sorted(
    {0, 1, 511, 512, 513, PAGE - 1, PAGE, PAGE + 1, (1 << 20) + 3}
    | {blocks * BLOCK + more for blocks in (1, 2, 5) for more in (-PAGE, -1, 0, 1, 511, PAGE, PAGE + 1)}
)


def opened(root, **options):
    backend, prefix = open_backend("test", BackendConfig(url=f"direct://{root}", storage_options=options))
    return backend, f"{prefix}/"


@pytest.fixture
def root(tmp_path):
    if direct.refusal(str(tmp_path)):
        pytest.skip("the file system of temporary files has no direct I/O")
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def store(root):
    backend, prefix = opened(root)
    yield backend, prefix
    run(backend.close())
    assert backend.counters.buffered == 0


@pytest.fixture
def mounted(tmp_path):
    """Mounts a small file system without a disk on a new directory."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount")
    made = []

    def mount(kind: str) -> Path:
        point = tmp_path / kind
        point.mkdir()
        done = subprocess.run(["mount", "-t", kind, "none", point], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"this machine mounts no {kind}: {done.stderr.strip()}")
        made.append(point)
        return point

    yield mount
    for point in made:
        subprocess.run(["umount", "--lazy", point], check=True)


def resident(path: Path) -> float:
    """Part of a file that the page cache has (mincore(2))."""
    size = path.stat().st_size
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), size) as mapping:
        pages = (ctypes.c_ubyte * -(-size // PAGE))()
        start = ctypes.c_char.from_buffer(mapping)
        assert ctypes.CDLL(None).mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size), pages) == 0
        del start
        return sum(page & 1 for page in pages) / len(pages)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def all_buffers_are_back() -> bool:
    shared = aligned._shared
    return shared.free._value == aligned.BUFFERS and len(shared.idle) <= aligned.BUFFERS


@pytest.mark.parametrize("kind", ["bytes", "cached file", "cold file"])
def test_every_size_comes_back(root, store, tmp_path, kind):
    backend, prefix = store
    data = os.urandom(max(SIZES))
    source = tmp_path / "source"
    run(backend.check())
    before = descriptors()
    for size in SIZES:
        given = data[:size]
        if kind != "bytes":
            source.write_bytes(given)
            if kind == "cold file":
                drop(source)
        run(backend.put(f"{prefix}f", given if kind == "bytes" else source))
        assert (root / "f").read_bytes() == given
        assert bytes(run(backend.get(f"{prefix}f"))) == given
    assert descriptors() == before
    assert all_buffers_are_back()


def drop(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def test_every_range_is_that_range(store):
    backend, prefix = store
    data = os.urandom(2 * BLOCK + 777)
    run(backend.put(f"{prefix}f", data))
    edges = [0, 1, 511, 512, PAGE - 1, PAGE, PAGE + 1, BLOCK - 1, BLOCK, BLOCK + 1, len(data) - 1, len(data), 3 * BLOCK]
    for start in edges:
        for end in edges:
            got = run(backend.get(f"{prefix}f", start, end))
            assert got.readonly
            assert bytes(got) == data[start:end], (start, end)


def test_whole_pages_go_past_the_page_cache(store, monkeypatch):
    backend, prefix = store
    written, read = [], []
    pwritev, preadv = os.pwritev, os.preadv

    def is_direct(descriptor):
        return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT)

    def writes(descriptor, views, offset):
        written.append((is_direct(descriptor), offset % PAGE, len(views[0]) % PAGE))
        return pwritev(descriptor, views, offset)

    def reads(descriptor, views, offset):
        read.append((is_direct(descriptor), len(views[0])))
        return preadv(descriptor, views, offset)

    monkeypatch.setattr(os, "pwritev", writes)
    monkeypatch.setattr(os, "preadv", reads)
    run(backend.put(f"{prefix}f", os.urandom(3 * BLOCK + 5)))
    assert set(written) == {(True, 0, 0)}
    run(backend.get(f"{prefix}f", BLOCK + 10, BLOCK + 20))
    assert read == [(True, PAGE)]


def test_little_stays_in_the_page_cache(root, store, tmp_path):
    backend, prefix = store
    size = 16 * BLOCK + 100
    source = tmp_path / "source"
    source.write_bytes(os.urandom(size))
    drop(source)
    before = resident(source)
    run(backend.put(f"{prefix}f", source))
    assert resident(root / "f") < 0.05
    assert resident(source) <= before + 0.05
    run(backend.get(f"{prefix}f"))
    for start in range(0, size, 3 * BLOCK):
        run(backend.get(f"{prefix}f", start, start + 3 * BLOCK))
    assert resident(root / "f") < 0.05


def test_pages_that_others_use_stay(root, store, tmp_path):
    backend, prefix = store
    source = tmp_path / "source"
    source.write_bytes(os.urandom(4 * BLOCK))
    with open(source, "rb") as file:
        os.fsync(file.fileno())
    before = resident(source)
    run(backend.put(f"{prefix}f", source))
    assert resident(source) >= before - 0.05


def test_many_at_a_time(store):
    backend, prefix = store
    contents = {f"{prefix}f{number}": os.urandom(BLOCK // 3 * number + number) for number in range(24)}

    async def all_at_once():
        await asyncio.gather(*(backend.put(key, data) for key, data in contents.items()))
        return await asyncio.gather(*(backend.get(key) for key in contents))

    got = run(all_at_once())
    assert [bytes(one) for one in got] == list(contents.values())
    wait_for(all_buffers_are_back)


def test_a_cancelled_put_leaves_neither_file_nor_buffer(root, store):
    backend, prefix = store
    data = bytes(64 * BLOCK)

    async def cancelled():
        put = asyncio.get_running_loop().create_task(backend.put(f"{prefix}f", data))
        while not any(name.startswith(TEMPORARY) for name in os.listdir(root)):
            assert not put.done()
            await asyncio.sleep(0)
        put.cancel()
        await asyncio.wait([put])
        return put

    assert run(cancelled()).cancelled() or (root / "f").stat().st_size == len(data)
    wait_for(all_buffers_are_back)
    run(backend.close())
    backend._executor.shutdown(wait=True)
    assert not any(name.startswith(TEMPORARY) for name in os.listdir(root))


@pytest.mark.parametrize("kind", ["tmpfs", "ramfs"])
def test_a_file_system_that_refuses_is_used_through_the_page_cache(mounted, kind, caplog):
    root = mounted(kind)
    backend, prefix = opened(root)
    data = os.urandom(BLOCK + 1)
    run(backend.put(f"{prefix}f", data))
    assert bytes(run(backend.get(f"{prefix}f", 1, BLOCK))) == data[1:BLOCK]
    assert backend.counters.buffered == 2
    assert kind in weakness(BackendConfig(url=f"direct://{root}"))
    assert weakness(BackendConfig(url=f"file://{root}")) == ""
    assert [one for one in caplog.records if one.name == direct.__name__] == []  # who opens backends tells the weakness
    with pytest.raises(ConfigError, match="strict"):
        opened(root, strict=True)
    run(backend.close())


def test_one_that_refuses_below_the_root_is_told_once(tmp_path, mounted, caplog):
    point = mounted("ramfs")
    backend, prefix = opened(tmp_path)
    with caplog.at_level(logging.WARNING):
        for name in ("a", "b"):
            run(backend.put(f"{prefix}{point.name}/{name}", b"content"))
    assert backend.counters.buffered == 2
    assert len([one for one in caplog.records if "direct I/O" in one.message]) == 1
    strict, _ = opened(tmp_path, strict=True)
    with pytest.raises(Unsupported, match="strict"):
        run(strict.put(f"{prefix}{point.name}/c", b"x"))
    assert sorted(os.listdir(point)) == ["a", "b"]
    for one in (backend, strict):
        run(one.close())


@pytest.fixture
def small_disk(tmp_path):
    if not can_cut_power():
        pytest.skip("needs root, loop devices and mkfs.ext4")
    disk = Disk(tmp_path, 5, size=48 << 20)
    disk.make()
    yield disk.root
    disk.end()


def test_a_full_disk_is_told_and_left_as_it_was(small_disk):
    backend, prefix = opened(small_disk)
    run(backend.put(f"{prefix}kept", b"kept"))
    free = shutil.disk_usage(small_disk).free
    with pytest.raises(NoSpace):
        run(backend.put(f"{prefix}large", bytes(96 << 20)))
    assert sorted(os.listdir(small_disk)) == ["kept", "lost+found"]
    assert shutil.disk_usage(small_disk).free >= free - (1 << 20)
    run(backend.put(f"{prefix}kept", bytes(BLOCK + 1)))
    assert bytes(run(backend.get(f"{prefix}kept"))) == bytes(BLOCK + 1)
    run(backend.close())


@pytest.mark.parametrize("tool", ["mkfs.xfs", "mkfs.btrfs"])
def test_a_file_of_the_same_file_system_shares_its_blocks(tmp_path, tool):
    """Where the file system can."""
    if not can_cut_power() or shutil.which(tool) is None:
        pytest.skip(f"needs root, loop devices and {tool}")
    disk = Disk(tmp_path, 5, size=512 << 20, make=(tool, "-q", "-f"), options="loop")
    disk.make()
    try:
        data = os.urandom(64 << 20)
        source = disk.root / "source"
        source.write_bytes(data)
        os.sync()
        free = shutil.disk_usage(disk.root).free
        backend, prefix = opened(disk.root)
        run(backend.put(f"{prefix}f", source))
        os.sync()
        assert shutil.disk_usage(disk.root).free > free - len(data) // 2
        with open(source, "r+b") as file:
            file.write(b"changed afterwards")
        assert bytes(run(backend.get(f"{prefix}f"))) == data
        run(backend.close())
    finally:
        disk.end()


_WRITER = """
import sys
from fsdriver.backends import open_backend
from fsdriver.config.models import BackendConfig
from tests.service.backend_suite import run
backend, prefix = open_backend("writer", BackendConfig(url=f"direct://{sys.argv[1]}"))
contents = [bytes([number]) * (24 << 20) for number in range(2)]
while True:
    for content in contents:
        run(backend.put(f"{prefix}/f", content))
"""


def test_killed_in_the_middle_it_leaves_no_half_file(root):
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, root], env={**os.environ, "PYTHONPATH": os.getcwd()}
    ) as writer:
        wait_for(lambda: (root / "f").exists() or writer.poll() is not None)
        wait_for(lambda: any(name.startswith(TEMPORARY) for name in os.listdir(root)) or writer.poll() is not None)
        writer.send_signal(signal.SIGKILL)
        assert writer.wait() == -signal.SIGKILL
    found = (root / "f").read_bytes()
    assert found in (bytes(24 << 20), b"\1" * (24 << 20))
    backend, prefix = opened(root)
    run(backend.put(f"{prefix}other", b""))
    assert sorted(os.listdir(root)) == ["f", "other"]
    run(backend.close())


def _in_child(backend, prefix, data):
    run(backend.put(f"{prefix}child", data))
    os._exit(0 if bytes(run(backend.get(f"{prefix}f"))) == data else 1)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_goes_on_by_itself(root, store):
    backend, prefix = store
    data = os.urandom(6 * BLOCK + 9)
    run(backend.put(f"{prefix}f", data))
    child = multiprocessing.get_context("fork").Process(target=_in_child, args=(backend, prefix, data))
    child.start()
    for _ in range(5):
        assert bytes(run(backend.get(f"{prefix}f"))) == data
    child.join()
    assert child.exitcode == 0
    assert (root / "child").read_bytes() == data


@pytest.mark.parametrize("url", ["tier::direct://{}/f", "direct://{}/f"])
def test_urls(root, tier_places, url):
    with fsspec.open(url.format(root), "wb") as file:
        file.write(b"content")
    assert (root / "f").read_bytes() == b"content"
    with fsspec.open(url.format(root), "rb") as file:
        assert file.read() == b"content"


@pytest.mark.parametrize("url", ["direct://host/data", "direct://"])
def test_a_url_without_an_absolute_path_is_refused(url):
    with pytest.raises(ConfigError, match="direct:///data"):
        open_backend("test", BackendConfig(url=url))


def test_there_is_one_engine(root):
    with pytest.raises(ConfigError, match="engine"):
        open_backend("test", BackendConfig(url=f"direct://{root}", engine="fsspec"))


def test_a_source_that_loses_bytes_is_no_success(root, store, tmp_path, monkeypatch):
    backend, prefix = store
    source = tmp_path / "source"
    source.write_bytes(bytes(3 * BLOCK))
    load = direct.opened

    @contextlib.contextmanager
    def truncating(given):
        with load(given) as origin:
            os.truncate(source, BLOCK)
            yield origin

    monkeypatch.setattr(direct, "opened", truncating)
    with pytest.raises(OSError, match="lost bytes"):
        run(backend.put(f"{prefix}f", source))
    assert os.listdir(root) == []


@pytest.fixture
def tree(root, tier_places):
    """A route of ``direct://`` as a Python process has it."""
    config = {"backend": {"disk": {"url": f"direct://{root}"}}, "route": [{"path": "/", "tiers": ["disk"]}]}
    tree = Tree(config, tier_places, "through", open_engine(Config.model_validate(config), write="through"))
    yield tree
    tree.engine.close()


@pytest.mark.parametrize("size", [1000, BLOCK * 3 + 5])
def test_the_cache_keeps_no_copy(root, tree, size):
    data = os.urandom(size)
    write(tree.route, "f", data)
    assert (root / "f").read_bytes() == data
    assert bytes(run(tree.route.read("f"))) == data
    assert tree.engine.cache.stats().bytes == 0
    assert os.listdir(tree.engine.cache.staging) == []


@pytest.mark.parametrize("size", [1000, BLOCK * 3 + 5])
def test_what_is_warmed_or_changed_in_place_is_brought_whole(root, tree, size):
    data = os.urandom(size)
    (root / "f").write_bytes(data)
    reader = run(tree.route.open("f"))
    assert bytes(run(reader.read(0, 10))) == data[:10]
    assert run(warm(tree.route, "f")) == size
    assert tree.engine.cache.stats().bytes >= size
    assert bytes(run(reader.read(0, size))) == data
    reader.close()
    update(tree.route, "f", 3, b"changed")
    assert (root / "f").read_bytes() == data[:3] + b"changed" + data[10:]


def test_an_open_file_is_read_to_its_end_after_it_was_replaced(root, tree):
    data = os.urandom(BLOCK * 3 + 5)
    write(tree.route, "f", data)
    with run(tree.route.open("f")) as reader:
        assert bytes(run(reader.read(0, 10))) == data[:10]
        write(tree.route, "f", b"new")
        assert bytes(run(reader.read(0, len(data)))) == data
    assert bytes(run(tree.route.read("f"))) == b"new"
