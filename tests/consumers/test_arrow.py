"""pyarrow datasets, partitioned, through its fsspec handler."""

from __future__ import annotations

from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from tests.consumers.conftest import Place


@pytest.fixture
def opened(place: Place) -> tuple[Any, str]:
    """The filesystem and the path of the place."""
    fs, path = fsspec.url_to_fs(place.url, **place.options)
    return fs, path


def test_table(opened: tuple[Any, str]) -> None:
    fs, path = opened
    table = pa.table({"n": list(range(10_000)), "s": [str(n) for n in range(10_000)]})
    fs.makedirs(path, exist_ok=True)
    pq.write_table(table, f"{path}/t.parquet", filesystem=fs, row_group_size=1000)
    assert pq.read_table(f"{path}/t.parquet", filesystem=fs).equals(table)
    with pq.ParquetFile(f"{path}/t.parquet", filesystem=fs) as file:
        assert file.read_row_group(3, columns=["n"]).column("n").to_pylist() == list(range(3000, 4000))


def test_partitioned_dataset(opened: tuple[Any, str]) -> None:
    fs, path = opened
    handler = pafs.PyFileSystem(pafs.FSSpecHandler(fs))
    table = pa.table({"year": [2020, 2021, 2021, 2022], "value": [1.0, 2.0, 3.0, 4.0]})
    ds.write_dataset(
        table, f"{path}/set", filesystem=handler, format="parquet", partitioning=["year"], partitioning_flavor="hive"
    )
    found = ds.dataset(f"{path}/set", filesystem=handler, format="parquet", partitioning="hive")
    assert len(found.files) == 3
    assert found.to_table(filter=ds.field("year") == 2021).column("value").to_pylist() == [2.0, 3.0]
    ds.write_dataset(
        table.slice(3), f"{path}/set", filesystem=handler, format="parquet", partitioning=["year"],
        partitioning_flavor="hive", existing_data_behavior="delete_matching",
    )  # fmt: skip
    assert ds.dataset(f"{path}/set", filesystem=handler, partitioning="hive").count_rows() == 4


def test_handler_moves_and_removes(opened: tuple[Any, str]) -> None:
    fs, path = opened
    handler = pafs.PyFileSystem(pafs.FSSpecHandler(fs))
    handler.create_dir(f"{path}/d", recursive=True)
    with handler.open_output_stream(f"{path}/d/f") as stream:
        stream.write(b"bytes")
    assert handler.get_file_info(f"{path}/d/f").size == 5
    handler.move(f"{path}/d/f", f"{path}/d/g")
    assert [info.base_name for info in handler.get_file_info(pafs.FileSelector(f"{path}/d"))] == ["g"]
    handler.delete_dir(f"{path}/d")
    assert handler.get_file_info(f"{path}/d").type == pafs.FileType.NotFound
