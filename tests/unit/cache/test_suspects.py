"""What was sealed shortly before the machine went down is compared with its checksum before it is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fsdriver.cache import DiskCache, ObjectKey
from fsdriver.cache import suspects as suspects_module
from fsdriver.runtime import run
from tests.waiting import wait_for

MIB = 1 << 20


@pytest.fixture
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that says which boot this is."""
    path = tmp_path / "boot_id"
    path.write_text("first")
    monkeypatch.setattr(suspects_module, "_BOOT_ID", path)
    return path


def fill(cache: DiskCache, source: Any) -> Path:
    """The path of its sealed file."""
    run(cache.fill(source.key, source.fetch)).close()
    wait_for(lambda: cache.contains(source.key))
    return cache.objects / source.key.place


def content(cache: DiskCache, source: Any) -> bytes:
    with cache.reader(source.key, source.fetch) as reader:
        return bytes(run(reader.read(0, source.key.size)))


@pytest.mark.parametrize("size", [1000, 3 * MIB + 5], ids=["small", "large"])
@pytest.mark.parametrize("damage", [b"", b"\0\0\0\0"], ids=["whole", "zeros"])
def test_after_a_boot(
    make_cache: Callable[..., DiskCache], make_source: Any, boot: Path, size: int, damage: bytes
) -> None:
    source = make_source(size)
    first = make_cache()
    path = fill(first, source)
    first.close()
    if damage:
        with path.open("r+b") as file:
            file.seek(500)
            file.write(damage)
    boot.write_text("second")
    second = make_cache()
    assert content(second, source) == source.data
    assert source.asked == (2 * size if damage else size)
    assert second.stats().corrupt == bool(damage)
    wait_for(lambda: second.contains(source.key))
    assert path.read_bytes() == source.data
    with second.reader(source.key, source.fetch) as reader:
        run(reader.wait_complete())
        assert second.unseal(source.key, second.staging / "t", reader=reader)


def test_a_file_that_may_be_damaged_is_not_written_to(
    make_cache: Callable[..., DiskCache], make_source: Any, boot: Path
) -> None:
    source = make_source(2 * MIB)
    first = make_cache()
    fill(first, source)
    first.close()
    boot.write_text("second")
    second = make_cache()
    assert not second.unseal(source.key, second.staging / "t")


def test_within_one_boot_and_long_after_nothing_is_compared(
    make_cache: Callable[..., DiskCache], make_source: Any, boot: Path
) -> None:
    old, new = make_source(1000, key="old"), make_source(1000, key="new")
    now = 1e9
    first = make_cache(clock=lambda: now)
    path = fill(first, old)
    first.close()
    now += 3600
    second = make_cache(clock=lambda: now)
    fill(second, new)
    second.close()
    path.write_bytes(b"x" * 1000)
    boot.write_text("second")
    third = make_cache(clock=lambda: now)
    assert content(third, old) == b"x" * 1000
    assert third.stats().corrupt == 0


def test_what_was_uploaded_from_here_is_fetched_anew(make_cache: Callable[..., DiskCache], boot: Path) -> None:
    """Nobody has read it for a checksum, and nobody need have synced it."""
    first = make_cache()
    key = ObjectKey("s3|test|bucket", "k", "v", 3)
    (first.staging / "k").write_bytes(b"abc")
    first.seal(key, first.staging / "k")
    first.close()
    boot.write_text("second")
    second = make_cache()
    assert second.open(key) is None
    assert second.stats().corrupt == 0
