"""What every backend must do; subclasses say which one, and what more it can.

A subclass supplies the fixtures ``backend`` and ``prefix`` (a key prefix ending in ``/``, empty at first).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from fsdriver import runtime
from fsdriver.backends import ABSENT, Backend, ObjectInfo
from fsdriver.errors import InvalidName, NotFound, Stale, Unsupported

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a backend's coroutine on the engine's loop."""

    async def on_loop() -> T:
        await runtime.on_loop()
        return await coroutine

    return runtime.run(on_loop(), timeout=120)


def listing(backend: Backend, prefix: str, **options: Any) -> tuple[list[ObjectInfo], list[str]]:
    """All objects and all prefixes of a listing."""

    async def collect() -> tuple[list[ObjectInfo], list[str]]:
        objects, prefixes = [], []
        async for page in backend.list(prefix, **options):
            assert len(page.objects) + len(page.prefixes) <= 1000
            objects += page.objects
            prefixes += page.prefixes
        return objects, prefixes

    return run(collect())


def files(backend: Backend, prefix: str, **options: Any) -> list[str]:
    """Keys of a listing relative to the prefix's last ``/``, without markers."""
    base = prefix[: prefix.rindex("/") + 1]
    return [one.key.removeprefix(base) for one in listing(backend, prefix, **options)[0] if not one.key.endswith("/")]


class BackendSuite:
    """Reading, writing, conditions and listings of any backend."""

    def test_put_then_head_and_get_agree(self, backend, prefix):
        written = run(backend.put(f"{prefix}a/b", b"hello"))
        found = run(backend.head(f"{prefix}a/b"))
        assert (found.key, found.size, found.version) == (written.key, 5, written.version)
        assert found.version
        assert '"' not in found.version
        assert abs(found.mtime_ns - written.mtime_ns) < 60e9
        assert bytes(run(backend.get(f"{prefix}a/b"))) == b"hello"

    def test_put_takes_a_file_and_an_empty_one(self, backend, prefix, tmp_path):
        source = tmp_path / "source"
        data = os.urandom(3_000_001)
        source.write_bytes(data)
        run(backend.put(f"{prefix}file", source))
        assert bytes(run(backend.get(f"{prefix}file"))) == data
        source.write_bytes(b"")
        assert run(backend.put(f"{prefix}file", source)).size == 0
        assert bytes(run(backend.get(f"{prefix}file"))) == b""
        assert bytes(run(backend.get(f"{prefix}file", 0, 10))) == b""

    def test_ranges_are_cut_at_the_end(self, backend, prefix):
        run(backend.put(f"{prefix}r", b"0123456789"))
        cases = {(0, 4): b"0123", (3, 7): b"3456", (8, 100): b"89", (5, None): b"56789", (0, None): b"0123456789",
                 (4, 4): b"", (7, 3): b"", (10, 20): b"", (50, 60): b"", (10, None): b""}  # fmt: skip
        for (start, end), expected in cases.items():
            assert bytes(run(backend.get(f"{prefix}r", start, end))) == expected, (start, end)

    def test_a_stale_version_is_never_read(self, backend, prefix):
        old = run(backend.put(f"{prefix}v", b"one"))
        assert bytes(run(backend.get(f"{prefix}v", version=old.version))) == b"one"
        run(backend.put(f"{prefix}v", b"second"))
        with pytest.raises(Stale):
            run(backend.get(f"{prefix}v", version=old.version))
        with pytest.raises(Stale):
            run(backend.get(f"{prefix}v", 1, 2, old.version))

    def test_missing_objects(self, backend, prefix):
        run(backend.put(f"{prefix}dir/file", b"x"))
        for key in (f"{prefix}none", f"{prefix}dir", f"{prefix}no/such/key"):
            with pytest.raises(NotFound) as caught:
                run(backend.head(key))
            assert key.rsplit("/", 1)[-1] in str(caught.value)
            with pytest.raises((NotFound, IsADirectoryError)):
                run(backend.get(key))

    def test_create_loses_against_an_existing_key(self, backend, prefix):
        run(backend.put(f"{prefix}new", b"first", if_version=ABSENT))
        with pytest.raises(Stale):
            run(backend.put(f"{prefix}new", b"other", if_version=ABSENT))
        assert bytes(run(backend.get(f"{prefix}new"))) == b"first"

    def test_conditional_overwrite(self, backend, prefix):
        one = run(backend.put(f"{prefix}c", b"one"))
        two = run(backend.put(f"{prefix}c", b"second", if_version=one.version))
        with pytest.raises(Stale):
            run(backend.put(f"{prefix}c", b"third!!", if_version=one.version))
        with pytest.raises(Stale):
            run(backend.put(f"{prefix}nothing", b"x", if_version=two.version))
        assert bytes(run(backend.get(f"{prefix}c"))) == b"second"

    def test_delete(self, backend, prefix):
        info = run(backend.put(f"{prefix}d", b"x"))
        with pytest.raises(Stale):
            run(backend.delete(f"{prefix}d", if_version="0" * 32))
        run(backend.delete(f"{prefix}d", if_version=info.version))
        with pytest.raises(NotFound):
            run(backend.head(f"{prefix}d"))
        run(backend.delete(f"{prefix}d"))
        run(backend.delete(f"{prefix}d", if_version=info.version))

    def test_delete_many(self, backend, prefix):
        keys = [f"{prefix}many/{number:04}" for number in range(25)]
        for key in keys:
            run(backend.put(key, b"x"))
        run(backend.delete_many([*keys[:-1], f"{prefix}many/never"]))
        assert files(backend, f"{prefix}many/") == ["0024"]
        run(backend.delete_many([]))

    def test_copy(self, backend, prefix):
        info = run(backend.put(f"{prefix}from", b"content"))
        copied = run(backend.copy(f"{prefix}from", f"{prefix}to/x"))
        assert (copied.key, copied.size) == (f"{prefix}to/x", 7)
        assert copied.version == run(backend.head(f"{prefix}to/x")).version
        assert bytes(run(backend.get(f"{prefix}to/x"))) == b"content"
        run(backend.copy(f"{prefix}from", f"{prefix}to/x", source_version=info.version, if_version=copied.version))
        with pytest.raises(Stale):
            run(backend.copy(f"{prefix}from", f"{prefix}to/x", if_version=ABSENT))
        with pytest.raises(Stale):
            run(backend.copy(f"{prefix}from", f"{prefix}to/x", source_version="0" * 32))
        with pytest.raises(NotFound) as caught:
            run(backend.copy(f"{prefix}nothing", f"{prefix}to/y"))
        assert "nothing" in str(caught.value)

    def test_listing_of_one_level(self, backend, prefix):
        for key in ("b", "a", "dir/x", "dir/sub/y", "dir-x", "z"):
            run(backend.put(prefix + key, key.encode()))
        objects, prefixes = listing(backend, prefix)
        names = [one.key.removeprefix(prefix) for one in objects if one.key != prefix]
        assert names == ["a", "b", "dir-x", "z"]
        assert [one.removeprefix(prefix) for one in prefixes] == ["dir/"]
        sizes = {one.key: one.size for one in objects}
        assert sizes[f"{prefix}dir-x"] == 5
        head = run(backend.head(f"{prefix}a"))
        listed = next(one for one in objects if one.key == f"{prefix}a")
        assert (listed.version, listed.mtime_ns) == (head.version, head.mtime_ns)

    def test_listing_is_flat_without_delimiter(self, backend, prefix):
        keys = ["a", "dir/x", "dir/sub/y", "dir-x", "dir0", "z/1"]
        for key in keys:
            run(backend.put(prefix + key, b""))
        found = files(backend, prefix, delimiter=False)
        assert sorted(found) == sorted(keys)
        assert found == sorted(keys) or not self.flat_listings_in_key_order

    def test_a_prefix_is_a_plain_text_prefix(self, backend, prefix):
        for key in ("big", "bigX", "big/x", "bi", "sub/big1", "sub/big2"):
            if key != "big/x" or self.file_and_directory:
                run(backend.put(prefix + key, b""))
        expected = ["big", "big/x", "bigX"] if self.file_and_directory else ["big", "bigX"]
        assert files(backend, f"{prefix}big", delimiter=False) == expected
        assert files(backend, f"{prefix}sub/big") == ["big1", "big2"]

    def test_listing_begins_after_a_key(self, backend, prefix):
        for key in ("a", "b", "c/x", "c/y", "d"):
            run(backend.put(prefix + key, b""))
        assert files(backend, prefix, delimiter=False, start_after=f"{prefix}b") == ["c/x", "c/y", "d"]
        assert files(backend, prefix, delimiter=False, start_after=f"{prefix}c/x") == ["c/y", "d"]
        objects, prefixes = listing(backend, prefix, start_after=f"{prefix}a")
        assert [one.key for one in objects if one.key != prefix] == [f"{prefix}b", f"{prefix}d"]
        assert prefixes == [f"{prefix}c/"]

    def test_an_empty_listing_is_no_error(self, backend, prefix):
        assert files(backend, f"{prefix}nothing/here/") == []
        assert files(backend, f"{prefix}nothing/here/", delimiter=False) == []

    def test_listing_in_pages(self, backend, prefix):
        async def fill() -> None:
            await asyncio.gather(*(backend.put(f"{prefix}p/{number:05}", b"") for number in range(1100)))
            await backend.put(f"{prefix}p/zz/inner", b"")

        run(fill())
        objects, prefixes = listing(backend, f"{prefix}p/")
        names = [one.key.removeprefix(f"{prefix}p/") for one in objects if one.key != f"{prefix}p/"]
        assert names == [f"{number:05}" for number in range(1100)]
        assert prefixes == [f"{prefix}p/zz/"]

    def test_names_with_unusual_characters(self, backend, prefix):
        names = [
            "sp ace",
            "plus+",
            "100%",
            "%41",
            "q?x",
            "h#x",
            "ü",
            "u\u0308",
            "日本",
            "a&b<c>",
            "'\"",
            "~!@$^*()=,;:[]{}|`",
        ]
        for name in names:
            run(backend.put(prefix + name, name.encode()))
        assert files(backend, prefix) == sorted(names)
        for name in names:
            assert run(backend.head(prefix + name)).key == prefix + name
            assert bytes(run(backend.get(prefix + name, 0, 100))) == name.encode()

    def test_check_and_identity(self, backend):
        run(backend.check())
        assert backend.identity.count("|") == 2

    def test_requests_are_counted(self, backend, prefix):
        before = dict(backend.counters.requests)
        run(backend.put(f"{prefix}counted", b"12345"))
        run(backend.get(f"{prefix}counted"))
        after = backend.counters.requests
        assert after["put"] - before.get("put", 0) == 1
        assert after["get"] - before.get("get", 0) == 1
        assert backend.counters.bytes_written >= 5
        assert backend.counters.bytes_read >= 5
        assert backend.counters.retries == 0

    flat_listings_in_key_order = True
    file_and_directory = True
    """Whether ``a`` and ``a/b`` can both be keys."""


class MarkerSuite:
    """``dir/`` keys."""

    def test_markers(self, backend, prefix):
        run(backend.put(f"{prefix}empty/", b""))
        assert run(backend.head(f"{prefix}empty/")).size == 0
        with pytest.raises(NotFound):
            run(backend.head(f"{prefix}empty"))
        assert listing(backend, prefix)[1] == [f"{prefix}empty/"]
        assert [one.key for one in listing(backend, f"{prefix}empty/")[0]] == [f"{prefix}empty/"]
        assert f"{prefix}empty/" in [one.key for one in listing(backend, prefix, delimiter=False)[0]]
        run(backend.copy(f"{prefix}empty/", f"{prefix}other/"))
        run(backend.delete(f"{prefix}empty/"))
        assert listing(backend, prefix)[1] == [f"{prefix}other/"]
        with pytest.raises(NotFound):
            run(backend.head(f"{prefix}empty/"))

    def test_deleting_a_marker_leaves_what_is_below(self, backend, prefix):
        run(backend.put(f"{prefix}d/", b""))
        run(backend.put(f"{prefix}d/file", b"x"))
        run(backend.delete(f"{prefix}d/"))
        assert bytes(run(backend.get(f"{prefix}d/file"))) == b"x"


class MetadataSuite:
    """User metadata."""

    def test_metadata_comes_back(self, backend, prefix):
        metadata = {"fsdriver-mode": "0640", "note": "a b%C3%A9", "x-y": "1"}
        run(backend.put(f"{prefix}m", b"x", metadata=metadata, content_type="text/x-test"))
        assert metadata.items() <= run(backend.head(f"{prefix}m")).metadata.items()
        run(backend.copy(f"{prefix}m", f"{prefix}kept"))
        assert metadata.items() <= run(backend.head(f"{prefix}kept")).metadata.items()
        run(backend.copy(f"{prefix}m", f"{prefix}changed", metadata={"note": "new"}))
        assert run(backend.head(f"{prefix}changed")).metadata["note"] == "new"
        run(backend.put(f"{prefix}m", b"x"))
        assert "note" not in run(backend.head(f"{prefix}m")).metadata

    @pytest.mark.parametrize("bad", [{"note": "é"}, {"note": "a\nb"}, {"Note": "x"}, {"n te": "x"}])
    def test_metadata_no_header_can_carry_is_refused(self, backend, prefix, bad):
        with pytest.raises(Unsupported):
            run(backend.put(f"{prefix}m", b"x", metadata=bad))


class MultipartSuite:
    """Large objects in parts."""

    @pytest.fixture(autouse=True)
    def small_parts(self, backend):
        backend.put_limit = backend.part_size = 5 << 20

    def uploads(self, backend) -> list[str]:
        raise NotImplementedError

    @pytest.mark.feature("S1-26")
    def test_a_large_object_goes_in_parts(self, backend, prefix, tmp_path):
        source = tmp_path / "large"
        data = os.urandom(12 << 20)
        source.write_bytes(data)
        info = run(backend.put(f"{prefix}large", source, metadata={"note": "x"}, if_version=ABSENT))
        assert info.version.endswith("-3")
        found = run(backend.head(f"{prefix}large"))
        assert (found.size, found.version, found.metadata["note"]) == (len(data), info.version, "x")
        assert hashlib.md5(run(backend.get(f"{prefix}large"))).digest() == hashlib.md5(data).digest()
        assert backend.counters.requests["upload_part"] == 3

    def test_its_completion_is_conditional(self, backend, prefix):
        run(backend.put(f"{prefix}large", b"small"))
        with pytest.raises(Stale):
            run(backend.put(f"{prefix}large", bytes(11 << 20), if_version=ABSENT))
        with pytest.raises(Stale):
            run(backend.put(f"{prefix}large", bytes(11 << 20), if_version="0" * 32))
        assert bytes(run(backend.get(f"{prefix}large"))) == b"small"
        assert self.uploads(backend) == []

    def test_cancelling_leaves_no_upload(self, backend, prefix):
        async def cancel_after_the_first_part() -> None:
            task = asyncio.create_task(backend.put(f"{prefix}large", bytes(40 << 20)))
            while backend.counters.requests.get("upload_part", 0) < 1:  # noqa: ASYNC110 - nothing else to wait for
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

        run(cancel_after_the_first_part())
        assert self.uploads(backend) == []
        with pytest.raises(NotFound):
            run(backend.head(f"{prefix}large"))


class BucketSuite:
    """What only an S3 bucket allows: any key at all."""

    def test_keys_no_file_system_would_take(self, backend, prefix):
        keys = ["new\nline", "tab\tx", "del\x7f", "trailing /x"]
        for key in keys:
            run(backend.put(prefix + key, key.encode(), metadata={"k": "v"}))
            found = run(backend.head(prefix + key))
            assert (found.size, found.metadata) == (len(key.encode()), {"k": "v"})
            assert bytes(run(backend.get(prefix + key, 1, 3))) == key.encode()[1:3]
        assert files(backend, prefix, delimiter=False) == sorted(keys)
        run(backend.copy(prefix + keys[0], f"{prefix}plain"))
        run(backend.delete_many([prefix + key for key in keys[:2]]))
        run(backend.delete(prefix + keys[2]))
        assert files(backend, prefix, delimiter=False) == ["plain", "trailing /x"]

    def test_a_key_the_service_refuses_is_an_error_of_ours(self, backend, prefix):
        for key in (f"{prefix}a/../b", f"{prefix}a/./b"):
            with pytest.raises((OSError, InvalidName)) as caught:
                run(backend.put(key, b"x"))
            assert type(caught.value).__module__ == "fsdriver.errors"
