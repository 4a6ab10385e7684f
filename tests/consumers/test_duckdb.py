"""DuckDB queries and writes through a registered filesystem."""

from __future__ import annotations

import duckdb
import fsspec
import pytest

from fsdriver.filesystem import TierFileSystem
from tests.consumers.conftest import Place


@pytest.fixture
def connection() -> duckdb.DuckDBPyConnection:
    with duckdb.connect() as connection:
        yield connection


def test_query_and_copy(place: Place, connection: duckdb.DuckDBPyConnection) -> None:
    fs, path = fsspec.url_to_fs(place.url, **place.options)
    assert isinstance(fs, TierFileSystem)
    fs.makedirs(path, exist_ok=True)
    connection.register_filesystem(fs)
    url = f"tier://{path}"
    rows = "SELECT range AS n, range * 2 AS double FROM range(10000)"
    connection.sql(f"COPY ({rows}) TO '{url}/n.parquet' (FORMAT parquet)")
    assert connection.sql(f"SELECT sum(n), max(double) FROM '{url}/n.parquet'").fetchall() == [(49995000, 19998)]
    fs.pipe({f"{path}/a.csv": b"x,y\n1,one\n2,two\n", f"{path}/b.csv": b"x,y\n3,three\n"})
    assert connection.sql(f"SELECT sum(x) FROM read_csv('{url}/*.csv')").fetchall() == [(6,)]
