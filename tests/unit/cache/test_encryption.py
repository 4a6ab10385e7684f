"""Encrypted cache files: nothing of the bytes is on the disk, and nothing but the bytes is ever read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fsdriver.cache import BLOCK, Cipher, DiskCache, FileState, ObjectKey
from fsdriver.cache.blocks import GRAIN
from fsdriver.cache.cipher import NONCE, UNIT, stored_size
from fsdriver.cache.encrypted import EncryptedFile
from fsdriver.config import Config, SecretRef, reveal_key
from fsdriver.errors import ConfigError, Corrupt
from fsdriver.runtime import run
from tests.waiting import wait_for

from .conftest import Source
from .processes import line, program

MIB = 1 << 20
KEY = Cipher(b"k" * 32)
OTHER_KEY = Cipher(b"o" * 32)
MARK = b"the secret sentence of this test"


class Marked(Source):
    """An object that is easily found on the disk."""

    def __init__(self, size: int, cipher: Cipher | None = KEY, **options: str) -> None:
        super().__init__(size, **options)
        self.data = (MARK * (size // len(MARK) + 1))[:size]
        self.key = ObjectKey(self.key.store, self.key.key, self.key.version, size, cipher)

    def whole(self, cache: DiskCache) -> bytes:
        with cache.reader(self.key, self.fetch) as reader:
            return bytes(run(reader.read(0, self.key.size)))

    def sealed(self, cache: DiskCache) -> bytes:
        with cache.reader(self.key, self.fetch) as reader:
            run(reader.wait_complete())
            return bytes(reader.read_now(0, self.key.size) or b"")


@pytest.fixture
def encrypted(make_cache: Callable[..., DiskCache]) -> DiskCache:
    return make_cache(cipher=KEY)


def found_on_disk(cache: DiskCache, what: bytes = MARK[:16]) -> list[Path]:
    return [path for path in cache.directory.rglob("*") if path.is_file() and what in path.read_bytes()]


def change(path: Path, at: int) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes((byte[0] ^ 1,)))


# -- what is read, and what lies on the disk -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, GRAIN - 1, GRAIN, GRAIN + 1, 5 * GRAIN, 3 * MIB + 7])
def test_bytes_come_back_and_are_not_on_the_disk(encrypted, make_cache, size):
    source = Marked(size)
    assert source.sealed(encrypted) == source.data
    wait_for(lambda: encrypted.contains(source.key))
    assert (encrypted.objects / source.key.place).stat().st_size == stored_size(size) == encrypted.stats().bytes
    assert found_on_disk(encrypted) == []
    encrypted.close()
    again = make_cache(cipher=Cipher(b"k" * 32))  # after a restart
    asked = source.asked
    with again.reader(source.key, source.fetch) as reader:
        for offset, length in ((0, size), (1, 10), (GRAIN - 3, 7), (2 * GRAIN, GRAIN), (size - 5, 99), (size + 9, 4)):
            if offset >= 0:
                assert bytes(run(reader.read(offset, length))) == source.data[offset : offset + length]
    assert source.asked == asked


def test_the_same_bytes_without_encryption_are_found(make_cache):
    cache = make_cache()
    source = Marked(3 * MIB, None)
    assert source.sealed(cache) == source.data
    assert found_on_disk(cache)


def test_parts_are_encrypted_kept_and_checked(encrypted, make_cache):
    source = Marked(8 * MIB)
    with encrypted.reader(source.key, source.fetch) as reader:
        assert bytes(run(reader.read(3 * MIB + 5, 4096))) == source.data[3 * MIB + 5 : 3 * MIB + 4101]
    (path,) = (encrypted.objects / ".partial").glob("*[!p]")
    wait_for(lambda: encrypted.stats().bytes == stored_size(BLOCK))
    assert found_on_disk(encrypted) == []
    encrypted.close()
    change(path, 3 * MIB // GRAIN * UNIT + 100)
    again = make_cache(cipher=KEY)
    before = source.asked
    with again.reader(source.key, source.fetch) as reader:
        assert bytes(run(reader.read(3 * MIB, BLOCK))) == source.data[3 * MIB : 3 * MIB + BLOCK]
        assert before < source.asked <= before + BLOCK
        run(reader.wait_complete())
        assert bytes(reader.read_now(0, 8 * MIB)) == source.data
    assert again.stats().corrupt == 1
    assert again.contains(source.key)
    assert found_on_disk(again) == []


def test_one_byte_decrypts_one_block(encrypted, monkeypatch):
    source = Marked(3 * MIB)
    source.sealed(encrypted)
    read: list[int] = []
    pread = EncryptedFile.pread
    monkeypatch.setattr(EncryptedFile, "pread", lambda self, at, size: read.append(size) or pread(self, at, size))
    with encrypted.open(source.key) as reader:
        assert bytes(reader.read_now(MIB + 1, 4096)) == source.data[MIB + 1 : MIB + 4097]
    assert read == [UNIT]


def test_no_nonce_is_used_twice(encrypted, make_cache):
    nonces = set()
    for version in ("v1", "v2"):
        source = Marked(10 * GRAIN, version=version)
        for _ in range(2):  # filled, removed, and filled again
            source.sealed(encrypted)
            stored = (encrypted.objects / source.key.place).read_bytes()
            nonces |= {stored[at : at + NONCE] for at in range(0, len(stored), UNIT)}
            encrypted.discard(source.key)
    assert len(nonces) == 40


def test_readers_of_several_threads_and_of_another_process(encrypted):
    source = Marked(4 * MIB)
    with ThreadPoolExecutor(8) as threads, encrypted.reader(source.key, source.fetch) as reader:

        def look(number: int) -> bool:
            at = number * 37_117 % (4 * MIB - 5000)
            return bytes(run(reader.read(at, 5000))) == source.data[at : at + 5000]

        assert all(threads.map(look, range(200)))
        run(reader.wait_complete())
        assert all(threads.map(look, range(200)))
    code = """
from fsdriver.cache import Cipher
key = ObjectKey("s3|test|bucket", "k", "v1", int(sys.argv[2]), Cipher(b"k" * 32))
print(cache.open(key).read_now(0, key.size)[:32].decode(), flush=True)
print(cache.open(ObjectKey("s3|test|bucket", "k", "v1", int(sys.argv[2]))), flush=True)
"""
    with program(code, encrypted.directory, source.key.size) as other:
        assert line(other).encode() == MARK
        assert line(other) == "None"


# -- who has another key, or changes the files ---------------------------------------------------------------------------


def test_another_key_or_none_is_a_miss_that_is_fetched_once(encrypted, make_cache):
    source = Marked(3 * MIB)
    source.sealed(encrypted)
    for cipher in (OTHER_KEY, None):
        cache, same = make_cache(cipher=cipher), Marked(3 * MIB, cipher)
        assert cache.open(same.key) is None
        assert same.sealed(cache) == same.data
        assert same.asked == 3 * MIB
        assert same.sealed(cache) == same.data
        assert same.asked == 3 * MIB
    assert make_cache(cipher=OTHER_KEY).stats().unread == stored_size(3 * MIB) + 3 * MIB
    assert encrypted.open(source.key) is not None


@pytest.mark.parametrize("size", [GRAIN + 5, 3 * MIB])
@pytest.mark.parametrize("at", [0, NONCE, NONCE + 77, -1], ids=["nonce", "first byte", "middle", "tag"])
def test_a_changed_byte_is_fetched_anew_and_never_read(encrypted, size, at):
    source = Marked(size)
    source.sealed(encrypted)
    path = encrypted.objects / source.key.place
    change(path, at % path.stat().st_size)
    with encrypted.reader(source.key, source.fetch) as reader:
        assert bytes(run(reader.read(0, size))) == source.data
        assert bytes(run(reader.read(size - 1, 1))) == source.data[-1:]
    assert encrypted.stats().corrupt == 1
    assert source.sealed(encrypted) == source.data
    assert encrypted.at_hand(source.key) in {None, source.data}


def test_a_reader_that_cannot_fetch_is_told(encrypted):
    source = Marked(MIB)
    source.sealed(encrypted)
    change(encrypted.objects / source.key.place, 99)
    with encrypted.open(source.key) as reader, pytest.raises(Corrupt, match="has been changed"):
        reader.read_now(0, 10)
    assert encrypted.open(source.key) is None


def test_blocks_and_files_cannot_be_swapped(encrypted):
    other = Marked(4 * GRAIN, key="other")
    other.sealed(encrypted)
    stored_other = (encrypted.objects / other.key.place).read_bytes()
    changes = {
        "blocks": lambda stored: stored[UNIT : 2 * UNIT] + stored[:UNIT] + stored[2 * UNIT :],
        "another file": lambda _: stored_other,
        "zeros": lambda stored: bytes(len(stored)),
    }
    for name, change_of in changes.items():
        one = Marked(4 * GRAIN, key=name)
        one.sealed(encrypted)
        path = encrypted.objects / one.key.place
        path.write_bytes(change_of(path.read_bytes()))
        asked = one.asked
        assert one.whole(encrypted) == one.data
        assert one.asked > asked


def test_verify_with_the_key_and_without(encrypted, make_cache):
    good, bad = Marked(3 * MIB, key="good"), Marked(3 * MIB, key="bad")
    for source in (good, bad):
        source.sealed(encrypted)
    assert encrypted.checker.look_at(good.key) is FileState.GOOD
    change(encrypted.objects / bad.key.place, 5)
    keyless = make_cache()
    states = {one.label.rpartition("|")[2]: keyless.checker.look(one) for one in keyless.checker.listed()}
    assert states == {"good": FileState.GOOD, "bad": FileState.DAMAGED}
    change(encrypted.objects / good.key.place, 5)
    assert encrypted.checker.look_at(good.key) is FileState.DAMAGED


# -- writing ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100, 3 * MIB])
def test_what_was_uploaded_is_sealed_encrypted_and_the_clear_file_goes(encrypted, size):
    source = Marked(size)
    path = encrypted.staging / "written"
    path.write_bytes(source.data)
    encrypted.seal_many([(source.key, path)])
    assert not path.exists()
    wait_for(lambda: encrypted.contains(source.key))
    assert source.whole(encrypted) == source.data
    assert source.asked == 0
    assert found_on_disk(encrypted) == []


def test_unsealing_decrypts_and_readers_keep_what_they_have(encrypted):
    source = Marked(2 * MIB)
    source.sealed(encrypted)
    target = encrypted.staging / "to write"
    with encrypted.open(source.key) as reader:
        assert not encrypted.unseal(source.key, target, reader=reader)
        assert encrypted.unseal(source.key, target)
        assert target.read_bytes() == source.data
        assert bytes(reader.read_now(0, 100)) == source.data[:100]
    assert not encrypted.contains(source.key)


def test_renamed_on_the_store_it_is_encrypted_anew(encrypted):
    source, renamed = Marked(2 * MIB), Marked(2 * MIB, key="new name")
    source.sealed(encrypted)
    encrypted.rekey(source.key, renamed.key, encrypted.staging / "unused")
    wait_for(lambda: encrypted.contains(renamed.key) and not encrypted.contains(source.key))
    assert renamed.whole(encrypted) == source.data
    assert renamed.asked == 0


def test_no_descriptor_is_given_away(encrypted):
    source = Marked(2 * MIB)
    source.sealed(encrypted)
    with encrypted.open(source.key) as reader:
        assert reader.complete
        assert reader.path is not None
        assert reader.fileno() is None
        assert reader.duplicate() is None
    assert encrypted.apart(source.key) is None


# -- the key -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [("00" * 31, "31 bytes|neither"), ("", "0 characters"), ("z" * 64, "neither|bytes"), ("YWJj", "3 bytes")],
)
def test_a_wrong_key_is_refused_without_repeating_it(tmp_path, text, told):
    file = tmp_path / "key"
    file.write_text(text)
    with pytest.raises(ConfigError, match=told) as raised:
        reveal_key(SecretRef(file=file), "cache.encryption_key")
    assert "openssl rand" in str(raised.value)
    assert not text or text not in str(raised.value)


def test_keys_are_hexadecimal_or_base64():
    wanted = bytes(range(224, 256))
    for text in (wanted.hex(), wanted.hex().upper() + "\n", "4OHi4+Tl5ufo6err7O3u7/Dx8vP09fb3+Pn6+/z9/v8="):
        assert reveal_key(SecretRef(env="KEY"), "x", {"KEY": text}) == wanted
    config = Config.model_validate({"cache": {"encryption_key": wanted.hex()}})
    assert wanted.hex() not in repr(config) + config.model_dump_json()
    assert config.has_written_secret()


def test_without_the_package_the_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(ConfigError, match=r"pip install 'fsdriver\[crypto\]'"):
        Cipher(os.urandom(32))
