"""Changes arrays in place through numpy.memmap and h5py, and writes and reads parquet in parts."""

# ruff: noqa: T201  what is printed is what is compared

from __future__ import annotations

import hashlib
import mmap

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def memmap() -> str:
    """Create, change and read again through the page cache and through read()."""
    made = np.memmap("array.bin", dtype="<f8", mode="w+", shape=(400, 1000))
    made[:] = np.arange(400_000, dtype="<f8").reshape(400, 1000)
    made.flush()
    del made
    changed = np.memmap("array.bin", dtype="<f8", mode="r+", shape=(400, 1000))
    changed[::7, 13] = -1.0
    changed[399, 999] = np.pi
    changed.flush()
    with open("array.bin", "rb") as file:
        file.seek(-8, 2)
        assert np.frombuffer(file.read(8), "<f8")[0] == np.pi
    private = np.memmap("array.bin", dtype="<f8", mode="c", shape=(400, 1000))
    private[0, 0] = 99.0
    del changed, private
    again = np.memmap("array.bin", dtype="<f8", mode="r", shape=(400, 1000))
    assert again[0, 0] == 0.0
    with open("unflushed.bin", "w+b") as file:
        file.truncate(100_000)
        with mmap.mmap(file.fileno(), 0) as mapped:
            mapped[99_990:] = b"0123456789"
    with open("unflushed.bin", "rb") as file:
        assert file.read()[-10:] == b"0123456789"
    return f"{again.sum()} {again[::7, 13].sum()}"


def hdf5() -> str:
    """A chunked dataset that grows and changes, and attributes."""
    with h5py.File("data.h5", "w") as file:
        data = file.create_dataset(
            "x", (1000, 64), maxshape=(None, 64), chunks=(100, 64), compression="gzip", dtype="<i4"
        )
        data[:] = np.arange(64_000, dtype="<i4").reshape(1000, 64)
        file.attrs["unit"] = "bytes"
    with h5py.File("data.h5", "r+") as file:
        file["x"].resize(1500, axis=0)
        file["x"][1400:] = 7
        file["x"][10:20] = -file["x"][10:20]
        file.move("x", "renamed")
    with h5py.File("data.h5", "r") as file:
        return f"{file['renamed'].shape} {int(file['renamed'][:].sum())} {file.attrs['unit']}"


def parquet() -> str:
    """Row groups one by one, read back by column and by memory map."""
    schema = pa.schema([("number", pa.int64()), ("text", pa.string())])
    with pq.ParquetWriter("table.parquet", schema) as writer:
        for group in range(5):
            numbers = range(group * 2000, group * 2000 + 2000)
            writer.write_table(pa.table({"number": list(numbers), "text": [f"row {n}" for n in numbers]}, schema))
    one = pq.read_table("table.parquet", columns=["text"], filters=[("number", "==", 7777)], memory_map=True)
    file = pq.ParquetFile("table.parquet")
    return f"{one.to_pylist()} {file.num_row_groups} {file.read_row_group(3).slice(0, 1).to_pylist()}"


print(memmap())
print(hdf5())
print(parquet())
with open("array.bin", "rb") as stream:
    print(hashlib.file_digest(stream, "sha256").hexdigest())
