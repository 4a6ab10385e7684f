"""The catalog in Redis: the suite of all catalogs, several hosts, restarts, failures, passwords, TLS."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from fsdriver.cache.heat import Uses
from fsdriver.config import CatalogConfig
from fsdriver.errors import AccessDenied, ConfigError, TimedOut, Unreachable
from fsdriver.runtime import on_loop, run
from fsdriver.tiers.catalog import Holdings
from fsdriver.tiers.opening import open_catalog
from fsdriver.tiers.records import Copy, CopyState, Move
from fsdriver.tiers.redis_catalog import RedisCatalog
from tests.service.redis_server import RedisServer
from tests.unit.tiers.catalog_suite import STACK, CatalogSuite, add, collect, record

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def catalog(server: RedisServer) -> Iterator[RedisCatalog]:
    with server.client() as client:
        client.flushall()
    yield from opened(server)


def opened(server: RedisServer, lease: float = 30.0, **keys: Any) -> Iterator[RedisCatalog]:
    made = RedisCatalog(CatalogConfig(url=server.url, **keys), lease)
    yield made
    run(made.close())


@pytest.fixture
def other(server: RedisServer) -> Iterator[RedisCatalog]:
    """That of another host."""
    yield from opened(server)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


class TestRedisCatalog(CatalogSuite):
    pass


def test_hosts_see_each_others_changes(catalog: RedisCatalog, other: RedisCatalog) -> None:
    made = add(catalog, record("k", "hot"))
    assert run(other.get(STACK, "k")) == made
    assert run(other.swap(STACK, record("k", "cold"), made.serial)) is not None
    assert run(catalog.swap(STACK, record("k", "warm"), made.serial)) is None
    assert run(catalog.holdings(STACK)) == {"hot": Holdings(0, 0), "cold": Holdings(1, 10)}


def test_of_many_changes_at_once_one_wins_each_time(catalog: RedisCatalog, other: RedisCatalog) -> None:
    async def count(one: RedisCatalog) -> None:
        for _ in range(20):
            while True:
                now = await one.get(STACK, "k")
                made = record("k", "hot", size=now.size + 1 if now else 1)
                if await one.swap(STACK, made, now.serial if now else 0) is not None:
                    break

    async def both() -> None:
        await on_loop()
        await asyncio.gather(count(catalog), count(other), count(catalog))

    run(both())
    found = run(catalog.get(STACK, "k"))
    assert found is not None
    assert found.size == 60
    assert run(catalog.holdings(STACK)) == {"hot": Holdings(1, 60)}


def test_more_requests_than_connections_wait(catalog: RedisCatalog) -> None:
    async def many() -> None:
        await on_loop()
        await asyncio.gather(*(catalog.swap(STACK, record(str(number), "hot"), 0) for number in range(500)))

    run(many())
    assert run(catalog.holdings(STACK)) == {"hot": Holdings(500, 5000)}


def test_what_is_asked_again_is_not_done_twice(catalog: RedisCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsdriver.tiers.redis_catalog.secrets.token_hex", lambda _: "same")
    first = run(catalog.swap(STACK, record("k", "hot"), 0))
    assert run(catalog.swap(STACK, record("k", "hot"), 0)) == first
    assert first is not None
    again = run(catalog.get(STACK, "k"))
    assert again is not None
    assert again.serial == first.serial
    assert run(catalog.holdings(STACK)) == {"hot": Holdings(1, 10)}


def test_moves_of_a_living_owner_are_nobody_elses(catalog: RedisCatalog, other: RedisCatalog) -> None:
    run(catalog.owe(STACK, [Move(str(number), "v", "cold") for number in range(3)]))
    mine = run(catalog.claim_moves(STACK, "me", 0.0, 2))
    theirs = run(other.claim_moves(STACK, "they", 0.0, 10))
    assert [move.key for move in (*mine, *theirs)] == ["0", "1", "2"]
    assert [move.number for move in (*mine, *theirs)] == [1, 2, 3]
    run(catalog.close())
    assert [move.key for move in run(other.claim_moves(STACK, "they", 0.0, 10))] == ["0", "1"], "given up at the end"


def test_claims_are_renewed_while_the_owner_lives_and_end_when_it_dies(
    server: RedisServer, catalog: RedisCatalog
) -> None:
    (owner,) = opened_many(server, 1, lease=0.3)
    run(catalog.owe(STACK, [Move("k", "v", "cold")]))
    assert len(run(owner.claim_moves(STACK, "owner", 0.0, 1))) == 1

    async def watch() -> None:
        await on_loop()
        for _ in range(10):
            await asyncio.sleep(0.1)
            assert await catalog.claim_moves(STACK, "me", 0.0, 1) == []
        claims = owner._claims[STACK]
        assert claims._task is not None
        claims._task.cancel()  # as if its host had died
        while not await catalog.claim_moves(STACK, "me", 0.0, 1):  # noqa: ASYNC110 - the server's clock decides
            await asyncio.sleep(0.05)
        # Back again, it neither renews nor fails what is another's now.
        await owner.fail_move(STACK, Move("k", "v", "cold", failures=1, not_before=1e12, error="no"))

    run(watch())
    (move,) = collect(catalog.moves(STACK))
    assert move.error == ""
    run(owner.close())
    assert run(catalog.claim_moves(STACK, "me", 0.0, 1)) == []


def opened_many(server: RedisServer, count: int, **keys: Any) -> list[RedisCatalog]:
    return [next(opened(server, **keys)) for _ in range(count)]


def test_another_task_of_a_process_takes_its_claims_over(catalog: RedisCatalog) -> None:
    run(catalog.owe(STACK, [Move("k", "v", "cold")]))
    assert len(run(catalog.claim_moves(STACK, "first", 0.0, 1))) == 1
    assert len(run(catalog.claim_moves(STACK, "second", 0.0, 1))) == 1


def test_odd_names(catalog: RedisCatalog) -> None:
    keys = ["a\0b", "a", "a/\0/x", "a/\0y", "a/", "\udcff/\udcfe", "ü b\nc"]
    run(catalog.adopt(STACK, [record(key, "tier, one|%") for key in keys]))
    assert {one.key for one in collect(catalog.below(STACK, ""))} == set(keys)
    assert [one.key for one in collect(catalog.of_directory(STACK, "a/"))] == ["a/\0y"]
    assert [one.key for one in collect(catalog.of_directory(STACK, "\udcff/"))] == ["\udcff/\udcfe"]
    assert run(catalog.holdings(STACK)) == {"tier, one|%": Holdings(7, 70)}
    run(catalog.owe(STACK, [Move("a", "v", "t"), Move("a\0b", "v", "t"), Move("\udcff", "v", "t")]))
    assert [one.key for one in collect(catalog.moves(STACK, "a"))] == ["a"]
    assert [one.key for one in collect(catalog.moves(STACK, "\udcff"))] == ["\udcff"]


def test_many_moves_are_listed_whole(catalog: RedisCatalog) -> None:
    assert run(catalog.owe(STACK, [Move(f"{number:04}", "v", "cold") for number in range(2500)])) == 2500
    assert [one.key for one in collect(catalog.moves(STACK))] == [f"{number:04}" for number in range(2500)]


def test_trees_with_different_prefixes_are_apart(server: RedisServer, catalog: RedisCatalog) -> None:
    (apart,) = opened_many(server, 1, prefix="apart")
    add(catalog, record("k", "hot"))
    assert run(apart.get(STACK, "k")) is None
    run(apart.close())


# -- failures ----------------------------------------------------------------------------------------------------------


def test_a_restart_without_persistence_leaves_unknown_rows(own_server: RedisServer) -> None:
    (catalog,) = opened_many(own_server, 1)
    first = add(catalog, record("k", "hot"))
    run(catalog.owe(STACK, [Move("k", "v1", "cold")]))
    own_server.restart()
    assert run(catalog.get(STACK, "k")) is None
    assert run(catalog.swap(STACK, record("k", "hot", "cold"), first.serial)) is None
    assert run(catalog.holdings(STACK)) == {}
    assert run(catalog.claim_moves(STACK, "me", 0.0, 1)) == []
    again = add(catalog, record("k", "hot"))
    assert again.serial > first.serial
    assert run(catalog.holdings(STACK)) == {"hot": Holdings(1, 10)}
    run(catalog.close())


def test_a_restart_with_persistence_loses_nothing(tmp_path: Path) -> None:
    with RedisServer(tmp_path, persistent=True) as server:
        (catalog,) = opened_many(server, 1)
        first = add(catalog, record("k", "hot"))
        run(catalog.note_uses(STACK, {"k": (2, 1234567890.123456)}))
        run(catalog.owe(STACK, [Move("k", "v1", "cold")]))
        server.restart()
        found = run(catalog.get(STACK, "k"))
        assert found == first
        assert found is not None
        assert found.uses == Uses(1234567890.123456, 1234567890.123456, 2)
        assert len(run(catalog.claim_moves(STACK, "me", 0.0, 1))) == 1
        assert run(catalog.swap(STACK, record("k", "cold"), first.serial)) is not None
        run(catalog.close())


def test_while_it_is_away_errors_are_temporary(own_server: RedisServer) -> None:
    (catalog,) = opened_many(own_server, 1)
    made = add(catalog, record("k", "hot"))
    own_server.stop()
    for wanted in (
        catalog.get(STACK, "k"),
        catalog.swap(STACK, record("k", "cold"), made.serial),
        catalog.owe(STACK, [Move("k", "v", "cold")]),
    ):
        with pytest.raises(Unreachable, match="Redis cannot be reached") as caught:
            run(wanted)
        assert caught.value.temporary
        assert caught.value.filename == own_server.url
    with pytest.raises(Unreachable):
        collect(catalog.below(STACK, ""))
    own_server.start()
    add(catalog, record("k", "hot"))
    run(catalog.close())


def test_one_that_hangs_is_not_waited_for(own_server: RedisServer) -> None:
    (catalog,) = opened_many(own_server, 1, timeout=0.5)
    made = add(catalog, record("k", "hot"))
    own_server.suspend()
    with pytest.raises(TimedOut, match=r"not answered for 0\.5 s") as caught:
        run(catalog.get(STACK, "k"))
    assert caught.value.temporary
    own_server.resume()
    assert run(catalog.get(STACK, "k")) == made
    run(catalog.close())


def test_a_catalog_of_a_newer_program_is_refused(own_server: RedisServer) -> None:
    with own_server.client() as client:
        client.set("fsdriver:schema", 99)
    (catalog,) = opened_many(own_server, 1)
    with pytest.raises(ConfigError, match="newer program"):
        run(catalog.get(STACK, "k"))
    with own_server.client() as client:
        client.set("fsdriver:schema", 1)
    assert run(catalog.get(STACK, "k")) is None
    run(catalog.close())


def test_a_server_that_may_drop_rows_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer(tmp_path, **{"maxmemory-policy": "allkeys-lru"}) as server:
        (catalog,) = opened_many(server, 1)
        for _ in range(2):
            run(catalog.get(STACK, "k"))
        run(catalog.close())
    assert caplog.text.count("maxmemory-policy is allkeys-lru") == 1


# -- who may, and over what ----------------------------------------------------------------------------------------------


def test_a_password(tmp_path: Path) -> None:
    with RedisServer(tmp_path, requirepass="sesame") as server:
        (catalog,) = opened_many(server, 1, password=SecretStr("sesame"))
        add(catalog, record("k", "hot"))
        run(catalog.close())
        for wrong in ({}, {"password": SecretStr("no")}):
            (refused,) = opened_many(server, 1, **wrong)
            with pytest.raises(AccessDenied, match=r"\[catalog\]"):
                run(refused.get(STACK, "k"))
            run(refused.close())


def test_a_user_who_may_only_what_is_needed(own_server: RedisServer) -> None:
    with own_server.client() as client:
        client.acl_setuser(
            "driver", enabled=True, passwords=["+pass"], keys=["fsdriver:*"], commands=["+@all", "-info"]
        )
    (catalog,) = opened_many(own_server, 1, username="driver", password=SecretStr("pass"))
    add(catalog, record("k", "hot"))
    run(catalog.close())
    (elsewhere,) = opened_many(own_server, 1, username="driver", password=SecretStr("pass"), prefix="other")
    with pytest.raises(AccessDenied):
        run(elsewhere.get(STACK, "k"))
    run(elsewhere.close())


def test_tls(tmp_path: Path) -> None:
    files = certificate(tmp_path)
    with RedisServer(tmp_path, tls=files) as server:
        (catalog,) = opened_many(server, 1, tls_ca=files["ca"])
        add(catalog, record("k", "hot"))
        run(catalog.close())
        (distrusting,) = opened_many(server, 1)
        with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
            run(distrusting.get(STACK, "k"))
        run(distrusting.close())
        (missing,) = opened_many(server, 1, tls_ca=tmp_path / "none.pem")
        with pytest.raises(ConfigError, match="no such file"):
            run(missing.get(STACK, "k"))


def certificate(directory: Path) -> dict[str, Path]:
    """A certificate of 127.0.0.1, signed by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (directory / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    found = directory / "certificate.pem"
    return {"ca": found, "certificate": found, "key": directory / "key.pem"}


def test_it_is_taken_where_it_is_configured(server: RedisServer, tmp_path: Path) -> None:
    made = open_catalog(CatalogConfig(url=server.url), tmp_path)
    assert isinstance(made, RedisCatalog)
    run(made.close())
    assert list(tmp_path.iterdir()) == []


def test_a_copy_of_every_state_is_read_back(catalog: RedisCatalog) -> None:
    copies = {state.value: Copy("v", state, 1.5) for state in CopyState}
    made = run(catalog.swap(STACK, record("k").__class__("k", "v", 2**60, -5, copies), 0))
    assert run(catalog.get(STACK, "k")) == made
    assert run(catalog.holdings(STACK)) == {"good": Holdings(1, 2**60)}
