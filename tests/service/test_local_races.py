"""``file://``: another user of the directory exchanges folders for links while they are used; nothing outside is touched."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from fsdriver.backends import Backend, RetryPolicy
from fsdriver.backends.local import LocalBackend
from fsdriver.errors import FsdriverError
from fsdriver.runtime import on_loop, run

ROUNDS = 60


async def _use(backend: Backend, key: str, directory: str) -> list[bytes]:
    """Every kind of request on one key; returns what was read."""
    await on_loop()
    read = []
    for number in range(ROUNDS):
        try:
            await backend.put(f"{key}{number % 3}", b"inside")
            read.append(bytes(await backend.get(key)))
            await backend.head(key)
            async for page in backend.list(directory, delimiter=False):
                read += [info.key.encode() for info in page.objects if "secret" in info.key]
            await backend.copy(key, f"{key}.copy")
            await backend.delete(f"{key}.copy")
            await backend.put(f"{directory}made{number % 3}/", b"")
            await backend.delete(f"{directory}made{number % 3}/")
        except FsdriverError:
            continue  # it is somebody's turn to be in the way
    return read


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_link_put_in_place_meanwhile_leads_nowhere(tmp_path: Path, what: str) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "d", root / "real", outside):
        folder.mkdir(parents=True)
    (outside / "f").write_bytes(b"secret")
    (outside / "secret").write_bytes(b"secret")
    (root / "d" / "f").write_bytes(b"inside")
    (root / "real" / "f").write_bytes(b"inside")
    before = sorted((one.name, one.stat().st_mtime_ns) for one in outside.iterdir())
    place, other = (root / "d", root / "other") if what == "folder" else (root / "d" / "f", root / "other")
    other.symlink_to(outside if what == "folder" else outside / "f")
    stop = threading.Event()

    def exchange() -> None:
        spare = root / "spare"
        while not stop.is_set():
            os.rename(place, spare)
            os.rename(other, place)
            os.rename(place, other)
            if place.exists():
                continue  # the backend made it meanwhile
            os.rename(spare, place)

    def keep_on() -> None:
        while not stop.is_set():
            try:
                exchange()
            except OSError:
                continue

    thread = threading.Thread(target=keep_on)
    thread.start()
    backend = LocalBackend(str(root), RetryPolicy(attempts=1))
    try:
        read = run(_use(backend, f"{str(root).lstrip('/')}/d/f", f"{str(root).lstrip('/')}/d/"))
    finally:
        stop.set()
        thread.join()
        run(_close(backend))
    assert set(read) <= {b"inside"}
    assert sorted((one.name, one.stat().st_mtime_ns) for one in outside.iterdir()) == before


async def _close(backend: Backend) -> None:
    await on_loop()
    await backend.close()
