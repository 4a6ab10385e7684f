"""pandas reads and writes by URL."""

from __future__ import annotations

import pandas as pd
import pytest

from tests.consumers.conftest import Place


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {"number": range(1000), "text": [f"row {n}" for n in range(1000)], "real": [n / 7 for n in range(1000)]}
    )


def test_csv(place: Place, frame: pd.DataFrame) -> None:
    frame.to_csv(f"{place.url}/table.csv", index=False, storage_options=place.options)
    pd.testing.assert_frame_equal(pd.read_csv(f"{place.url}/table.csv", storage_options=place.options), frame)


def test_compressed_csv(place: Place, frame: pd.DataFrame) -> None:
    frame.to_csv(f"{place.url}/table.csv.gz", index=False, storage_options=place.options)
    pd.testing.assert_frame_equal(pd.read_csv(f"{place.url}/table.csv.gz", storage_options=place.options), frame)


def test_parquet(place: Place, frame: pd.DataFrame) -> None:
    frame.to_parquet(f"{place.url}/table.parquet", storage_options=place.options)
    pd.testing.assert_frame_equal(pd.read_parquet(f"{place.url}/table.parquet", storage_options=place.options), frame)
    columns = pd.read_parquet(f"{place.url}/table.parquet", columns=["number"], storage_options=place.options)
    pd.testing.assert_frame_equal(columns, frame[["number"]])


def test_json_lines_and_pickle(place: Place, frame: pd.DataFrame) -> None:
    frame.to_json(f"{place.url}/table.jsonl", orient="records", lines=True, storage_options=place.options)
    again = pd.read_json(f"{place.url}/table.jsonl", orient="records", lines=True, storage_options=place.options)
    pd.testing.assert_frame_equal(again, frame)
    frame.to_pickle(f"{place.url}/table.pkl", storage_options=place.options)
    pd.testing.assert_frame_equal(pd.read_pickle(f"{place.url}/table.pkl", storage_options=place.options), frame)


def test_failure_while_writing_keeps_the_old_table(place: Place, frame: pd.DataFrame) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("this value cannot be written")

    frame.to_csv(f"{place.url}/table.csv", index=False, storage_options=place.options)
    broken = pd.DataFrame({"number": [1], "text": [Broken()]})
    with pytest.raises(RuntimeError, match="cannot be written"):
        broken.to_csv(f"{place.url}/table.csv", index=False, storage_options=place.options)
    pd.testing.assert_frame_equal(pd.read_csv(f"{place.url}/table.csv", storage_options=place.options), frame)
