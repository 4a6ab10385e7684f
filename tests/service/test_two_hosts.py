"""Two hosts on one store, each with its own cache and state: who comes second loses nothing, and takes nothing."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from fsdriver.config import Config
from fsdriver.engine import Engine
from fsdriver.entry import Changes, Entry
from fsdriver.errors import NotFound, Stale
from fsdriver.routes.route import Route
from fsdriver.runtime import run
from fsdriver.testing.servers import S3Service
from fsdriver.writeback.staging import StagedFile
from tests.service.routes import Mode, names, read, write

pytestmark = pytest.mark.service

ROUNDS = 100
"""Changes of attributes by each of two hosts."""


class Host:
    """One host: it sees what the other did when it asks the store again."""

    def __init__(self, engine: Engine, write: Mode) -> None:
        self.engine = engine
        self.write = write

    @property
    def route(self) -> Route:
        return self.engine.routes[0]

    @property
    def conflicts(self) -> list[str]:
        """Names under which bytes of this host are kept."""
        return [one.kept for one in self.engine.uploaders[self.route.backend.identity].counters.lost if one.kept]

    def edit(self, path: str) -> StagedFile:
        """Open a file for writing."""
        return run(self.route.stage(path, run(self.route.stat(path)), None))

    def close(self, path: str, staged: StagedFile, data: bytes, offset: int = 0) -> None:
        os.pwrite(staged.fileno(), data, offset)
        try:
            run(self.route.commit(path, staged))
        finally:
            run(self.route.release(path, staged))

    def settle(self) -> None:
        run(self.engine.drain(60))

    def loses(self, change: Callable[[], object]) -> None:
        """A change is refused where it waits for the store, and else by who waits for the store later."""
        with pytest.raises(Stale) if self.write == "through" else nullcontext():
            change()
        with pytest.raises(Stale) if self.write == "back" else suppress(Stale):  # of a rename, the old name loses, too
            self.settle()
        self.settle()

    def look(self) -> dict[str, bytes]:
        """All files, as the store has them."""
        self.route.forget("")
        return {name: read(self.route, name) for name in names(self.route)}


@pytest.fixture(params=["back", "through"])
def mode(request: pytest.FixtureRequest) -> Mode:
    return request.param


@pytest.fixture(scope="module")
def bucket(s3_server: S3Service) -> str:
    return s3_server.create_bucket()


@pytest.fixture
def hosts(
    s3_server: S3Service, bucket: str, tier_places: Path, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> Iterator[tuple[Host, Host]]:
    backend = {
        "url": f"s3://{bucket}/{tier_places.name}-{uuid.uuid4().hex}",
        "endpoint": s3_server.endpoint,
        "access_key_id": s3_server.access_key,
        "secret_access_key": s3_server.secret_key,
    }
    s3_config = {"backend": {"hot": backend}, "route": [{"path": "/data", "tiers": ["hot"]}]}
    made = []
    for name in ("one", "two"):
        monkeypatch.setenv("FSDRIVER_CACHE_DIR", str(tier_places / name / "cache"))
        monkeypatch.setenv("FSDRIVER_STATE_DIR", str(tier_places / name / "state"))
        made.append(Host(Engine(Config.model_validate(s3_config), mode), mode))
    yield made[0], made[1]
    for host in made:
        host.engine.close()


@pytest.fixture
def shared(hosts: tuple[Host, Host]) -> tuple[Host, Host]:
    """Both know of the file ``f``."""
    first, second = hosts
    write(first.route, "f", b"before")
    first.settle()
    assert second.look() == {"f": b"before"}
    return hosts


def test_both_edit_one_file(shared: tuple[Host, Host]) -> None:
    first, second = shared
    edits = first.edit("f"), second.edit("f")
    first.close("f", edits[0], b"first!")
    first.settle()
    second.loses(lambda: second.close("f", edits[1], b"second"))
    (kept,) = second.conflicts
    assert first.look() == second.look() == {"f": b"first!", kept: b"second"}
    assert first.conflicts == []


def test_both_create_one_file(hosts: tuple[Host, Host]) -> None:
    first, second = hosts
    assert first.look() == second.look() == {}
    write(first.route, "f", b"first")
    first.settle()
    second.loses(lambda: write(second.route, "f", b"second"))
    (kept,) = second.conflicts
    assert first.look() == second.look() == {"f": b"first", kept: b"second"}


def test_one_deletes_what_the_other_edits(shared: tuple[Host, Host]) -> None:
    first, second = shared
    edit = second.edit("f")
    run(first.route.remove("f"))
    first.settle()
    second.loses(lambda: second.close("f", edit, b"second"))
    (kept,) = second.conflicts
    assert first.look() == second.look() == {kept: b"second"}


def test_one_edits_what_the_other_deletes(shared: tuple[Host, Host]) -> None:
    first, second = shared
    first.close("f", first.edit("f"), b"first!")
    first.settle()
    second.loses(lambda: run(second.route.remove("f")))
    assert first.look() == second.look() == {"f": b"first!"}


def test_one_renames_what_the_other_edits(shared: tuple[Host, Host]) -> None:
    first, second = shared
    edit = second.edit("f")
    run(first.route.rename("f", "g"))
    first.settle()
    second.loses(lambda: second.close("f", edit, b"second"))
    (kept,) = second.conflicts
    assert first.look() == second.look() == {"g": b"before", kept: b"second"}


def test_one_edits_what_the_other_renames(shared: tuple[Host, Host]) -> None:
    first, second = shared
    first.close("f", first.edit("f"), b"first!")
    first.settle()
    second.loses(lambda: run(second.route.rename("f", "g")))
    found = first.look()
    assert found["f"] == b"first!"
    assert second.look() == found
    # What was renamed is kept where its bytes were in the cache; nothing took the other's place.
    assert set(found) == {"f", *second.conflicts}


def test_one_truncates_what_the_other_appends_to(shared: tuple[Host, Host]) -> None:
    first, second = shared
    edits = first.edit("f"), second.edit("f")
    os.ftruncate(edits[0].fileno(), 2)
    first.close("f", edits[0], b"", 0)
    first.settle()
    second.loses(lambda: second.close("f", edits[1], b" and after", 6))
    (kept,) = second.conflicts
    assert first.look() == second.look() == {"f": b"be", kept: b"before and after"}


def test_the_loser_goes_on_from_what_won(shared: tuple[Host, Host]) -> None:
    first, second = shared
    edit = second.edit("f")
    first.close("f", first.edit("f"), b"first!")
    first.settle()
    second.loses(lambda: second.close("f", edit, b"second"))
    second.look()
    second.close("f", second.edit("f"), b"merged")
    second.settle()
    assert first.look()["f"] == b"merged"
    assert len(second.conflicts) == 1


def test_attributes_of_one_and_bytes_of_the_other_merge(shared: tuple[Host, Host]) -> None:
    first, second = shared
    run(first.route.set_attributes("f", Changes(mode=0o600)))
    first.settle()
    second.look()
    second.close("f", second.edit("f"), b"second")
    second.settle()
    assert first.look() == second.look() == {"f": b"second"}
    assert _stat(first, "f").mode == _stat(second, "f").mode == 0o600


def test_an_attribute_changed_while_the_other_writes_is_no_conflict(shared: tuple[Host, Host]) -> None:
    first, second = shared
    edit = second.edit("f")
    run(first.route.set_attributes("f", Changes(mode=0o600)))
    first.settle()
    second.close("f", edit, b"second")
    second.settle()
    assert first.look() == second.look() == {"f": b"second"}
    assert second.conflicts == []


def test_two_hosts_change_attributes_of_one_directory_at_once(hosts: tuple[Host, Host]) -> None:
    first, second = hosts
    every = [f"{who}{number:02}" for who in "ab" for number in range(10)]
    for name in every:
        write(first.route, name, b"")
    first.settle()
    assert sorted(second.look()) == every
    failures: list[BaseException] = []

    def change(host: Host, who: str) -> None:
        try:
            for number in range(ROUNDS):
                path = f"{who}{number % 10:02}"
                run(
                    host.route.set_attributes(
                        path, Changes(mode=0o600 + number % 64, xattrs={"user.n": str(number).encode()})
                    )
                )
                if number % 5 == 0:
                    host.settle()
            host.settle()
        except BaseException as error:  # noqa: BLE001 - told by the test
            failures.append(error)

    threads = [threading.Thread(target=change, args=arguments) for arguments in ((first, "a"), (second, "b"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for host in hosts:
        host.route.forget("")
        for name in every:
            number = ROUNDS - 10 + int(name[1:])
            entry = _stat(host, name)
            assert (name, entry.mode, entry.xattrs["user.n"]) == (name, 0o600 + number % 64, str(number).encode())


def test_a_file_made_where_the_other_removed_the_directory(hosts: tuple[Host, Host]) -> None:
    first, second = hosts
    run(first.route.mkdir("d"))
    first.settle()
    assert names(second.route) == ["d"]
    run(first.route.rmdir("d"))
    first.settle()
    write(second.route, "d/f", b"second")
    second.settle()
    first.route.forget("")
    assert read(first.route, "d/f") == b"second"


def test_a_deletion_that_comes_second_is_over(shared: tuple[Host, Host]) -> None:
    first, second = shared
    for host in shared:
        run(host.route.remove("f"))
    first.settle()
    second.settle()
    for host in shared:
        host.route.forget("")
        with pytest.raises(NotFound):
            run(host.route.stat("f"))


def _stat(host: Host, path: str) -> Entry:
    return run(host.route.stat(path))
