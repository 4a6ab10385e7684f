"""A catalog that is damaged or deleted: nothing that was acknowledged is lost, and ``fsdriver fsck`` has it uploaded."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fsdriver.cli import main
from fsdriver.config import Config
from fsdriver.engine import Engine, open_engine
from fsdriver.errors import ConfigError, FsdriverError
from fsdriver.runtime import run
from fsdriver.writeback import intents
from tests.servers import FaultyProxy
from tests.service.routes import read, write
from tests.waiting import wait_for

pytestmark = pytest.mark.service

PROGRAM = """
import json, os, sys
from fsdriver.config import Config
from fsdriver.engine import open_engine
from fsdriver.entry import Changes
from fsdriver.runtime import run
from tests.service.routes import update, write
route = open_engine(Config.model_validate(json.loads(sys.argv[1])), write="back").routes[0]
write(route, "new", b"new content", Changes(mode=0o640, xattrs={"user.note": b"kept"}))
write(route, "d/below", b"below")
write(route, "old", b"overwritten")
write(route, "again", b"first")
update(route, "again", 0, b"second")
write(route, "from", b"moved")
run(route.rename("from", "to"))
os._exit(9)
"""
WRITTEN = {"new": b"new content", "d/below": b"below", "old": b"overwritten", "again": b"second", "to": b"moved"}


@dataclass
class Left:
    """What a process that died has left, and the store that took nothing of it yet."""

    config: dict[str, Any]
    proxy: FaultyProxy
    catalog: Path
    staging: Path

    def engine(self, *, daemon: bool = False) -> Engine:
        return open_engine(Config.model_validate(self.config), write="back", daemon=daemon)

    def content(self) -> dict[str, bytes]:
        """What staging has, by path."""
        found = [intents.read(path) for path in self.staging.iterdir()]
        assert None not in found
        return {one.row.path: Path(one.row.staging or "").read_bytes() for one in found if one is not None}


@pytest.fixture
def left(s3_config: dict[str, Any], s3_server, tier_places: Path) -> Iterator[Left]:
    with FaultyProxy(s3_server.endpoint) as proxy:
        s3_config["backend"]["hot"] |= {"endpoint": proxy.endpoint}
        engine = open_engine(Config.model_validate(s3_config), write="back")
        write(engine.routes[0], "old", b"was there before")
        run(engine.drain(60))
        engine.close()
        proxy.fail(100_000, 503, method="PUT")
        done = subprocess.run([sys.executable, "-c", PROGRAM, json.dumps(s3_config)], timeout=120, check=False)
        assert done.returncode == 9
        yield Left(s3_config, proxy, tier_places / "state" / "catalog.db", tier_places / "cache" / ".staging")


def remove(catalog: Path) -> None:
    for path in catalog.parent.glob("catalog.db*"):
        path.unlink()


def checkpointed(catalog: Path) -> bytearray:
    """The database in one file."""
    with closing(sqlite3.connect(catalog)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return bytearray(catalog.read_bytes())


def overwrite_header(catalog: Path) -> None:
    data = checkpointed(catalog)
    data[:100] = bytes(100)
    catalog.write_bytes(data)


def overwrite_pending_rows(catalog: Path) -> None:
    data = checkpointed(catalog)
    with closing(sqlite3.connect(catalog)) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name='pending'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    data[(page - 1) * size : page * size] = b"\xa5" * size
    catalog.write_bytes(data)


def cut_off(catalog: Path) -> None:
    data = checkpointed(catalog)
    catalog.write_bytes(data[: len(data) // 2])


DAMAGES = [overwrite_header, overwrite_pending_rows, cut_off]


def is_uploaded(left: Left) -> None:
    left.proxy.heal()
    engine = left.engine()
    run(engine.drain(60))
    route = engine.routes[0]
    route.forget("")
    assert {name: read(route, name) for name in WRITTEN} == WRITTEN
    entry = run(route.stat("new"))
    assert (entry.mode, entry.xattrs) == (0o640, {"user.note": b"kept"})
    assert not [name for name in run(route.list("")) if "conflict" in name]
    engine.close()
    assert list(left.staging.iterdir()) == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_catalog_is_refused_and_repaired(left: Left, damage: Callable[[Path], None], capsys) -> None:
    damage(left.catalog)
    with pytest.raises(FsdriverError, match="fsdriver fsck"):
        left.engine(daemon=True)
    assert left.content() == WRITTEN
    assert main(["fsck", "--check"]) == 1
    assert main(["fsck"]) == 1
    assert "kept as" in capsys.readouterr().out
    assert main(["fsck"]) == 0
    is_uploaded(left)


def test_a_deleted_catalog_is_made_again(left: Left) -> None:
    remove(left.catalog)
    engine = left.engine()
    engine.resume()
    wait_for(lambda: engine.staging.disowned == len(WRITTEN))
    engine.close()
    assert left.content() == WRITTEN
    assert main(["fsck"]) == 1
    assert main(["fsck"]) == 0
    is_uploaded(left)


def test_what_the_store_has_already_is_no_conflict(left: Left) -> None:
    """A crash between an upload and the note of it, and then the catalog is lost."""
    copies = {path: (path.read_bytes(), intents.read(path)) for path in left.staging.iterdir()}
    left.proxy.heal()
    engine = left.engine()
    run(engine.drain(60))
    engine.close()
    for path, (data, intent) in copies.items():
        path.write_bytes(data)
        assert intent is not None
        intents.stamp(intent.row, intent.owner, str(left.catalog))
    remove(left.catalog)
    assert main(["fsck"]) == 1
    is_uploaded(left)


def test_a_catalog_in_use_is_left_alone(left: Left, capsys) -> None:
    engine = left.engine()
    assert main(["fsck"]) == 2
    assert "unmount" in capsys.readouterr().err
    engine.close()
    assert main(["fsck", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] >= len(WRITTEN)


def test_rows_whose_bytes_are_gone_are_told(left: Left, capsys) -> None:
    (path,) = (one for one in left.staging.iterdir() if one.read_bytes() == b"below")
    path.unlink()
    assert main(["fsck"]) == 1
    assert "d/below" in capsys.readouterr().out
    assert main(["fsck"]) == 0


def test_another_catalog_that_is_there_keeps_its_files(left: Left, monkeypatch, tier_places: Path) -> None:
    """Two state directories share a cache: neither sweeps away, or takes over, what the other owes."""
    monkeypatch.setenv("FSDRIVER_STATE_DIR", str(tier_places / "another"))
    engine = left.engine()
    engine.resume()
    run(engine.drain(60))
    assert engine.staging.disowned == 0
    engine.close()
    assert main(["fsck"]) == 0
    assert left.content() == WRITTEN


def test_a_newer_catalog_is_refused(left: Left, capsys) -> None:
    with closing(sqlite3.connect(left.catalog)) as db:
        db.execute("PRAGMA user_version=99")
    before = left.catalog.read_bytes()
    with pytest.raises(ConfigError, match="upgrade fsdriver"):
        left.engine()
    assert main(["fsck"]) == 2
    assert "upgrade fsdriver" in capsys.readouterr().err
    assert left.catalog.read_bytes() == before
