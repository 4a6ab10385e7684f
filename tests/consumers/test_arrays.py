"""numpy and h5py on file objects of the fsspec face."""

from __future__ import annotations

import fsspec
import h5py
import numpy as np

from tests.consumers.conftest import Place


def test_numpy(place: Place) -> None:
    array = np.arange(100_000, dtype=np.float64).reshape(100, 1000)
    with fsspec.open(f"{place.url}/a.npy", "wb", **place.options) as file:
        np.save(file, array)
    for _ in range(2):  # fetched, then local
        with fsspec.open(f"{place.url}/a.npy", "rb", **place.options) as file:
            np.testing.assert_array_equal(np.load(file), array)


def test_numpy_archive(place: Place) -> None:
    arrays = {"one": np.arange(1000), "two": np.ones((3, 4))}
    with fsspec.open(f"{place.url}/a.npz", "wb", **place.options) as file:
        np.savez_compressed(file, **arrays)
    with fsspec.open(f"{place.url}/a.npz", "rb", **place.options) as file, np.load(file) as found:
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)


def test_hdf5(place: Place) -> None:
    fs, path = fsspec.url_to_fs(place.url, **place.options)
    fs.makedirs(path, exist_ok=True)
    data = np.random.default_rng(1).random((500, 200))
    with fs.open(f"{path}/a.h5", "w+b") as raw, h5py.File(raw, "w") as file:
        file.create_dataset("x", data=data, chunks=(50, 50), compression="gzip")
        file.attrs["made"] = "here"
    with fs.open(f"{path}/a.h5", "rb") as raw, h5py.File(raw, "r") as file:
        np.testing.assert_array_equal(file["x"][100:150, 20:30], data[100:150, 20:30])
        assert file.attrs["made"] == "here"
    with fs.open(f"{path}/a.h5", "r+b") as raw, h5py.File(raw, "r+") as file:
        file["x"][0, 0] = 7.0
    with fs.open(f"{path}/a.h5", "rb") as raw, h5py.File(raw, "r") as file:
        assert file["x"][0, 0] == 7.0
        assert file["x"][1, 1] == data[1, 1]
