"""The catalog in SQLite: the suite of all catalogs, restarts, damage, other versions, several processes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdriver.errors import ConfigError
from fsdriver.runtime import run
from fsdriver.tiers.sqlite_catalog import SqliteCatalog

from .catalog_suite import STACK, CatalogSuite, add, record


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[SqliteCatalog]:
    made = SqliteCatalog(tmp_path / "tiers.db")
    yield made
    run(made.close())


class TestSqliteCatalog(CatalogSuite):
    pass


def test_it_survives_a_restart_and_is_private(catalog: SqliteCatalog) -> None:
    made = add(catalog, record("k", "hot"))
    other = SqliteCatalog(catalog.path)
    assert run(other.get(STACK, "k")) == made
    assert run(other.swap(STACK, record("k", "cold"), made.serial)) is not None
    assert run(catalog.swap(STACK, record("k", "warm"), made.serial)) is None
    run(other.close())
    assert catalog.path.stat().st_mode & 0o777 == 0o600


def test_a_damaged_one_is_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "tiers.db"
    path.write_bytes(b"no database" * 1000)
    catalog = SqliteCatalog(path)
    add(catalog, record("k", "hot"))
    run(catalog.close())
    (aside,) = tmp_path.glob("tiers.db.damaged-*")
    assert aside.read_bytes().startswith(b"no database")
    assert "is damaged" in caplog.text


def test_one_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiers.db"
    run(SqliteCatalog(path).close())
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(ConfigError, match="newer program"):
        SqliteCatalog(path)
    assert list(tmp_path.glob("*.damaged-*")) == []
