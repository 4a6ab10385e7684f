"""What coded objects look like: their own tools read them, every range comes back, and damage is never taken for content."""

from __future__ import annotations

import gzip
import random
import shutil
import subprocess
import sys
from dataclasses import replace

import lz4.frame
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdriver.backends.codecs import container
from fsdriver.backends.codecs.coding import Encoded, Layout, encode
from fsdriver.backends.codecs.container import SMALLEST_BLOCK, looks_coded, parse
from fsdriver.backends.codecs.envelope import Keys
from fsdriver.backends.codecs.formats import CODECS, Decoders, Gzip, Zstd
from fsdriver.backends.source import Watched
from fsdriver.errors import AccessDenied, ConfigError, Corrupt, Unsettled

NO_KEYS = Keys(None)
KEYS = Keys(b"k" * 32)
WAYS = [(codec, keys) for codec in ("zstd", "lz4", "gzip", None) for keys in (NO_KEYS, KEYS) if codec or keys is KEYS]
NAMES = [f"{codec or 'plain'}{'-encrypted' if keys is KEYS else ''}" for codec, keys in WAYS]
ways = pytest.mark.parametrize(("codec", "keys"), WAYS, ids=NAMES)


def text(size: int, seed: int = 1) -> bytes:
    words = [random.Random(seed + number).randbytes(9) for number in range(60)]
    chosen = random.Random(seed)
    return b"".join(chosen.choice(words) for _ in range(size // 9 + 1))[:size]


def coded(data: bytes, codec: str | None, keys: Keys = NO_KEYS) -> bytes:
    done = encode(data, len(data), None if codec is None else CODECS[codec](), keys)
    assert done is not None
    return content(done)


def content(done: Encoded) -> bytes:
    return bytes(done.source) if isinstance(done.source, bytes) else done.source.read_bytes()


def opened(stored: bytes, keys: Keys = NO_KEYS) -> Layout | None:
    """As a backend does."""
    header = parse(stored[: container.HEADER_SIZE])
    if header is None:
        return None
    index = stored[header.stored - header.index_size : header.stored] if header.index_size else b""
    return Layout(header, index, keys, Decoders())


def read(stored: bytes, start: int, end: int, keys: Keys = NO_KEYS) -> bytes:
    layout = opened(stored, keys)
    assert layout is not None
    first, last = layout.stored(start, end)
    return bytes(layout.decode(start, end, memoryview(stored)[first:last]))


# -- other programs read them --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5000, SMALLEST_BLOCK, 3 * SMALLEST_BLOCK + 77])
@pytest.mark.parametrize("name", ["zstd", "lz4", "gzip"])
def test_the_tool_of_the_format_decompresses_it(tmp_path, name, size):
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name} here")
    data = text(size)
    path = tmp_path / "object"
    path.write_bytes(coded(data, name))
    assert path.stat().st_size < size
    assert subprocess.run([name, "-dc"], input=path.read_bytes(), capture_output=True, check=True).stdout == data


def test_libraries_decompress_it():
    data = text(400_000)
    assert gzip.decompress(coded(data, "gzip")) == data
    stored = coded(data, "lz4")
    assert b"".join(_lz4_frames(stored)) == data
    with zstandard.ZstdDecompressor().stream_reader(coded(data, "zstd"), read_across_frames=True) as reader:
        assert reader.read() == data


def _lz4_frames(stored: bytes):
    layout = opened(stored)
    for start, end in zip(layout.offsets, layout.offsets[1:], strict=False):
        yield lz4.frame.decompress(stored[start:end])


def test_the_index_is_a_seek_table_of_seekable_zstd():
    data = text(3 * SMALLEST_BLOCK + 5)
    stored = coded(data, "zstd")
    magic, length = container._FRAME.unpack(stored[-parse(stored).index_size :][:8])
    assert (magic, length) == (0x184D2A5E, parse(stored).index_size - 8)
    count, descriptor, magic = container._SEEKABLE.unpack(stored[-9:])
    assert (count, descriptor, magic) == (5, 0, 0x8F92EAB1)


# -- every range comes back ------------------------------------------------------------------------------------------------


@ways
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_range_comes_back(codec, keys, data):
    size = data.draw(st.one_of(st.integers(2000, 5000), st.integers(SMALLEST_BLOCK - 2, 3 * SMALLEST_BLOCK + 2)))
    plain = text(size, data.draw(st.integers(0, 9)))
    stored = coded(plain, codec, keys)
    assert parse(stored).size == size
    assert parse(stored).stored == len(stored)
    start = data.draw(st.integers(0, size - 1))
    end = data.draw(st.integers(start + 1, size))
    assert read(stored, start, end, keys) == plain[start:end]
    assert read(stored, 0, size, keys) == plain


@ways
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_is_noticed(codec, keys, data):
    size = data.draw(st.sampled_from([3000, 2 * SMALLEST_BLOCK + 9]))
    plain = text(size)
    stored = bytearray(coded(plain, codec, keys))
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(stored) - 1))
        stored[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del stored[data.draw(st.integers(0, len(stored) - 1)) :]
    try:
        found = read(bytes(stored), 0, size, keys) if looks_coded(stored) else None
    except (Corrupt, AccessDenied):  # another id of the key: it is not configured
        return
    # The magic itself, by which an object is known, or what tools skip.
    assert found in {None, plain}


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_anything_is_no_header_or_damaged(data, begins):
    start = container._STARTS[0][: container._STARTS[0].index(container.MAGIC) + 8] if begins else b""
    if begins:
        with pytest.raises(Corrupt):
            parse(start + data)
    else:
        assert parse(data) is None


def test_a_bomb_is_not_made_room_for():
    bomb = zstandard.ZstdCompressor().compress(bytes(50 << 20))
    with pytest.raises(Corrupt):
        Zstd().decompress(bomb, 1000)
    with pytest.raises(Corrupt):
        Gzip().decompress(gzip.compress(bytes(5 << 20)), 1000)
    with pytest.raises(Corrupt):
        CODECS["lz4"]().decompress(lz4.frame.compress(bytes(5 << 20)), 1000)


# -- what is coded, and how --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["zstd", "lz4", "gzip"])
def test_what_does_not_gain_is_left_as_it_is(name):
    noise = random.Random(3).randbytes(400_000)
    assert encode(noise, len(noise), CODECS[name](), NO_KEYS) is None
    assert encode(b"short", 5, CODECS[name](), NO_KEYS) is None
    encrypted = coded(noise, name, KEYS)
    assert parse(encrypted).codec == container.NONE
    assert read(encrypted, 7, 300_000, KEYS) == noise[7:300_000]


def test_what_looks_coded_is_coded_once_more():
    inner = coded(text(300_000), "zstd")
    again = coded(inner, "zstd")
    assert again != inner
    assert read(again, 0, len(inner)) == inner


def test_compression_is_deterministic_and_encryption_never_twice_the_same():
    data = text(300_000)
    for name in CODECS:
        assert coded(data, name) == coded(data, name)
    one, two = coded(data, None, KEYS), coded(data, None, KEYS)
    assert one[container.HEADER_SIZE :] != two[container.HEADER_SIZE :]
    assert parse(one).wrapped != parse(two).wrapped
    assert data[1000:1020] not in one


def test_a_large_source_goes_through_a_file_without_a_name(tmp_path):
    path = tmp_path / "large"
    data = text(6 << 20)
    path.write_bytes(data)
    done = encode(path, len(data), Zstd(), KEYS)
    if sys.platform == "linux":
        assert list(tmp_path.iterdir()) == [path]
    stored = content(done)
    done.file.close()
    assert read(stored, 0, len(data), KEYS) == data
    assert parse(stored).stored == len(stored)


def test_a_source_that_is_written_to_is_not_sent(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(text(5 << 20))
    looks = iter([False] * 20 + [True] * 1000)
    with pytest.raises(Unsettled):
        encode(Watched(path, lambda: next(looks)), 5 << 20, Zstd(), NO_KEYS)


def test_very_large_objects_have_larger_blocks():
    assert container.block_size(1) == SMALLEST_BLOCK
    for size in (10 << 30, 5 << 40):
        assert -(-size // container.block_size(size)) <= container.MOST_BLOCKS
    assert container.block_size(10 << 30) == SMALLEST_BLOCK


# -- keys ----------------------------------------------------------------------------------------------------------------------


def test_blocks_and_objects_cannot_be_swapped():
    data = text(4 * SMALLEST_BLOCK)
    stored, other = coded(data, None, KEYS), coded(data[::-1], None, KEYS)
    step = SMALLEST_BLOCK + container.TAG
    first = len(parse(stored).pack())
    swapped = stored[:first] + stored[first + step : first + 2 * step] + stored[first : first + step]
    for wrong in (swapped + stored[first + 2 * step :], stored[:first] + other[first:]):
        with pytest.raises(Corrupt):
            read(wrong, 0, len(data), KEYS)
    shorter = replace(parse(stored), size=3 * SMALLEST_BLOCK, stored=len(stored) - step)
    with pytest.raises(Corrupt):
        opened(shorter.pack() + stored[first:-step], KEYS)


def test_keys_are_rotated():
    data = text(100_000)
    old = coded(data, "zstd", KEYS)
    both = Keys(b"n" * 32, [b"k" * 32])
    assert read(old, 0, len(data), both) == data
    assert read(coded(data, "zstd", both), 0, len(data), Keys(None, [b"n" * 32])) == data
    with pytest.raises(AccessDenied, match="decryption_keys"):
        opened(old, Keys(b"n" * 32))
    with pytest.raises(AccessDenied, match="there is none"):
        opened(old, NO_KEYS)


@pytest.mark.parametrize(("module", "make"), [("zstandard", Zstd), ("lz4.frame", CODECS["lz4"])])
def test_a_missing_package_is_named(monkeypatch, module, make):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"pip install 'fsdriver\[codecs\]'"):
        make()


def test_unknown_formats_are_refused():
    stored = bytearray(coded(text(3000), "zstd"))
    header = replace(parse(stored), codec=9)
    with pytest.raises(Corrupt, match="number 9"):
        opened(header.pack() + bytes(stored[len(header.pack()) :]))
