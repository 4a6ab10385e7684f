"""What is particular to the fsspec face: URLs, chains, one engine for all instances, links, requests of a warm file."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from fsdriver import runtime
from fsdriver.entry import Changes, Kind
from fsdriver.errors import ConfigError, ReadOnly, TooManyLinks
from fsdriver.filesystem import TierFileSystem
from tests.fixtures_tier import ROUTE


def route_of(fs: TierFileSystem, path: str) -> Any:
    """The route behind a path."""
    return fs._namespace.target(path).route


def test_registered_by_name(tier_places: Path) -> None:
    assert fsspec.get_filesystem_class("tier") is TierFileSystem


def test_instances_do_nothing_before_they_are_used(tier_places: Path) -> None:
    TierFileSystem(config="/nowhere/config.toml")
    assert not (tier_places / "cache").exists()
    assert not (tier_places / "state").exists()


def test_the_users_configuration_is_the_tree(
    local_config: dict[str, Any], config_file: Callable[[dict[str, Any]], Path], tier_places: Path
) -> None:
    config_file(local_config)
    with fsspec.open(f"tier://{ROUTE}/d/a.txt", "w") as file:
        file.write("text")
    assert (tier_places / "bucket" / "d" / "a.txt").read_text() == "text"
    with fsspec.open(f"tier:///{ROUTE}/d/a.txt") as file:
        assert file.read() == b"text"
    fs = fsspec.filesystem("tier")
    assert fs.ls("", detail=False) == [ROUTE]
    assert fs.isdir("")
    assert fs.isdir(ROUTE)
    assert fs.find("") == [f"{ROUTE}/d/a.txt"]


def test_configuration_as_a_file(
    local_config: dict[str, Any], config_file: Callable[[dict[str, Any]], Path], tier_places: Path
) -> None:
    path = config_file(local_config)
    (tier_places / "bucket" / "a").write_bytes(b"1")
    assert TierFileSystem(config=str(path)).cat_file(f"{ROUTE}/a") == b"1"


def test_wrong_configuration_is_named(tier_places: Path) -> None:
    with pytest.raises(ConfigError, match=r"route\.0\.tears"):
        TierFileSystem(config={"route": [{"path": "/data", "tears": ["disk"]}]})


def test_nested_routes_show_in_the_tree_above(tier_places: Path) -> None:
    for name in ("one", "two"):
        (tier_places / name).mkdir()
        (tier_places / name / f"{name}.txt").write_text(name)
    backends = {name: {"url": f"file://{tier_places}/{name}"} for name in ("one", "two")}
    routes = [{"path": "/a", "tiers": ["one"]}, {"path": "/a/b/two", "tiers": ["two"]}]
    fs = TierFileSystem(config={"backend": backends, "route": routes})
    assert fs.ls("a", detail=False) == ["a/b", "a/one.txt"]
    assert fs.ls("a/b/two", detail=False) == ["a/b/two/two.txt"]
    assert fs.find("a") == ["a/b/two/two.txt", "a/one.txt"]
    assert fs.find("") == ["a/b/two/two.txt", "a/one.txt"]
    fs.mv("a/one.txt", "a/b/two/moved.txt")
    assert fs.cat_file("a/b/two/moved.txt") == b"one"
    assert not fs.exists("a/one.txt")


def test_instances_share_engine_and_cache(local_config: dict[str, Any]) -> None:
    one = TierFileSystem(config=local_config)
    two = TierFileSystem(config=local_config, skip_instance_cache=True)
    assert one is TierFileSystem(config=local_config)
    assert one is not two
    assert one._namespace.engine is two._namespace.engine
    assert pickle.loads(pickle.dumps(one)) is one


@pytest.mark.service
def test_chained_instances_share_route_and_cache(
    tier_places: Path, s3_bucket: str, s3_server: Any, s3_options: dict[str, str]
) -> None:
    s3_server.client().put_object(Bucket=s3_bucket, Key="d/key", Body=b"from outside")
    with fsspec.open(f"tier::s3://{s3_bucket}/d/key", s3=s3_options) as file:
        assert file.read() == b"from outside"
    fs, path = fsspec.url_to_fs(f"tier::s3://{s3_bucket}/d/other", s3=s3_options)
    again, _ = fsspec.url_to_fs(f"tier::s3://{s3_bucket}/d/key", s3=s3_options)
    assert again is fs
    assert path == f"{s3_bucket}/d/other"
    assert fs.ls(f"{s3_bucket}/d", detail=False) == [f"{s3_bucket}/d/key"]
    assert fs.info(f"{s3_bucket}/d/key")["ETag"]
    fs.pipe_file(path, b"to outside")
    assert s3_server.client().get_object(Bucket=s3_bucket, Key="d/other")["Body"].read() == b"to outside"


def test_relative_paths_of_local_chains_follow_the_working_directory(
    tier_places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = fsspec.filesystem("tier", target_protocol="file")
    for name in ("one", "two"):
        (tier_places / name).mkdir()
        (tier_places / name / "file").write_text(name)
        monkeypatch.chdir(tier_places / name)
        assert fs.cat_file("file") == name.encode()


@pytest.mark.service
def test_warm_files_need_no_request_and_no_loop(tier_s3: TierFileSystem) -> None:
    fs, path = tier_s3, f"{ROUTE}/f"
    fs.pipe_file(path, b"0123456789" * 1000)
    fs.cat_file(path)
    with fs.open(path) as file:
        file.read()
    fs.info(path)
    backend = route_of(fs, path).backend
    before = dict(backend.counters.requests)
    results: list[bool] = []

    async def on_the_loop() -> None:
        # The loop's thread is held here: what finishes meanwhile did not need it.
        worker = threading.Thread(target=warm)
        worker.start()
        worker.join(20)
        results.append(not worker.is_alive())

    def warm() -> None:
        assert fs.cat_file(path, 10, 20) == b"0123456789"
        assert fs.cat_ranges([path, path], [0, 5], [3, 8]) == [b"012", b"567"]
        assert fs.info(path)["size"] == 10_000
        assert fs.exists(path)
        with fs.open(path) as file:
            assert os.pread(file.fileno(), 5, 0) == file.read(5) == b"01234"
        results.append(True)

    asyncio.run_coroutine_threadsafe(on_the_loop(), fsspec.asyn.get_loop()).result(60)
    assert results == [True, True]
    assert backend.counters.requests == before


def test_another_event_loop(local_config: dict[str, Any]) -> None:
    async def work() -> bytes:
        fs = TierFileSystem(config=local_config, asynchronous=True)
        await fs._pipe_file(f"{ROUTE}/f", b"asynchronous")
        assert [info["size"] for info in await fs._ls(ROUTE)] == [12]
        assert await fs._cat_ranges([f"{ROUTE}/f"], [0], [2]) == [b"as"]
        assert await fs._glob(f"{ROUTE}/*") == [f"{ROUTE}/f"]
        await asyncio.gather(*(fs._pipe_file(f"{ROUTE}/{n}", bytes(n)) for n in range(20)))
        return await fs._cat_file(f"{ROUTE}/f")

    assert asyncio.run(work()) == b"asynchronous"


@pytest.mark.parametrize("mode", ["wb", "w"])
def test_exception_inside_fsspec_open(
    local_config: dict[str, Any], config_file: Callable[[dict[str, Any]], Path], mode: str
) -> None:
    config_file(local_config)
    url = f"tier://{ROUTE}/f"
    with fsspec.open(url, "wb") as file:
        file.write(b"old")
    half = "half" if mode == "w" else b"half"
    with pytest.raises(TypeError), fsspec.open(url, mode) as file:
        file.writelines([half, half, 5])
    with fsspec.open(url) as file:
        assert file.read() == b"old"


def test_file_closed_inside_an_exception_handler_is_published(tier_local: TierFileSystem) -> None:
    rows = iter([b"one", b"two"])
    file = tier_local.open(f"{ROUTE}/f", "wb")
    while True:
        try:
            file.write(next(rows))
        except StopIteration:
            file.close()
            break
    assert tier_local.cat_file(f"{ROUTE}/f") == b"onetwo"


@pytest.mark.parametrize("mode", ["wb", "w"])
def test_file_never_closed_publishes_nothing(
    tier_local: TierFileSystem, mode: str, caplog: pytest.LogCaptureFixture, tier_places: Path
) -> None:
    file = tier_local.open(f"{ROUTE}/f", mode)
    file.write("lost" if mode == "w" else b"lost")
    with caplog.at_level(logging.WARNING):
        del file
        gc.collect()
    assert not tier_local.exists(f"{ROUTE}/f")
    assert list((tier_places / "cache" / ".staging").iterdir()) == []


def test_failed_write_publishes_nothing(tier_local: TierFileSystem, tier_places: Path) -> None:
    tier_local.pipe_file(f"{ROUTE}/f", b"old")
    file = tier_local.open(f"{ROUTE}/f", "wb")
    file.write(b"new")
    os.dup2(os.open("/dev/full", os.O_WRONLY), file.raw.fileno())
    with pytest.raises(OSError, match="No space left"):
        file.close()
    assert tier_local.cat_file(f"{ROUTE}/f") == b"old"
    assert list((tier_places / "cache" / ".staging").iterdir()) == []


def test_symbolic_links(tier_local: TierFileSystem, tier_places: Path) -> None:
    fs, route = tier_local, route_of(tier_local, ROUTE)
    fs.pipe({f"{ROUTE}/d/f": b"target", f"{ROUTE}/d/g": b"x"})
    for name, target in {"d/link": "f", "up": "d/link", "dir": "d", "nowhere": "missing", "a": "b", "b": "a"}.items():
        runtime.run(route.make(name, Kind.SYMLINK, Changes(), target=target))
    assert fs.cat_file(f"{ROUTE}/up") == b"target"
    assert fs.cat_file(f"{ROUTE}/dir/f") == b"target"
    info = fs.info(f"{ROUTE}/up")
    assert (info["type"], info["size"], info["islink"], info["destination"]) == ("file", 6, True, "d/link")
    assert fs.info(f"{ROUTE}/nowhere")["type"] == fs.info(f"{ROUTE}/dir")["type"] == "link"
    assert fs.isdir(f"{ROUTE}/dir")
    assert not fs.exists(f"{ROUTE}/nowhere")
    assert fs.lexists(f"{ROUTE}/nowhere")
    assert {one["name"]: one["type"] for one in fs.ls(ROUTE)}[f"{ROUTE}/up"] == "file"
    with pytest.raises(TooManyLinks):
        fs.cat_file(f"{ROUTE}/a")
    fs.rm(f"{ROUTE}/up")
    assert fs.cat_file(f"{ROUTE}/d/f") == b"target"


def test_read_only_route(local_config: dict[str, Any]) -> None:
    local_config["route"][0]["read_only"] = True
    fs = TierFileSystem(config=local_config)
    with pytest.raises(ReadOnly):
        fs.pipe_file(f"{ROUTE}/f", b"1")
    with pytest.raises(ReadOnly):
        fs.mkdir(f"{ROUTE}/d")


@pytest.mark.service
def test_write_back_is_seen_at_once(s3_config: dict[str, Any], s3_server: Any) -> None:
    fs = TierFileSystem(config=s3_config, write="back")
    with fs.open(f"{ROUTE}/f", "wb") as file:
        file.write(b"pending")
    assert fs.cat_file(f"{ROUTE}/f") == b"pending"
    assert fs.info(f"{ROUTE}/f")["size"] == 7
    runtime.run(route_of(fs, ROUTE).sync())
    bucket = s3_config["backend"]["hot"]["url"].split("/")[2]
    assert s3_server.client().get_object(Bucket=bucket, Key="prefix/f")["Body"].read() == b"pending"


@pytest.mark.service
def test_signed_url(tier_s3: TierFileSystem) -> None:
    tier_s3.pipe_file(f"{ROUTE}/f", b"signed")
    with fsspec.open(tier_s3.sign(f"{ROUTE}/f", expiration=60)) as file:
        assert file.read() == b"signed"


@pytest.mark.service
def test_put_and_get_with_progress(tier_s3: TierFileSystem, tmp_path: Path) -> None:
    from fsspec.callbacks import TqdmCallback

    for number in range(3):
        (tmp_path / f"{number}.bin").write_bytes(bytes(50_000))
    callback = TqdmCallback(tqdm_kwargs={"disable": True})
    tier_s3.put(str(tmp_path / "*.bin"), f"{ROUTE}/in/", callback=callback)
    assert sorted(tier_s3.find(f"{ROUTE}/in")) == [f"{ROUTE}/in/{number}.bin" for number in range(3)]
    assert (callback.size, callback.value) == (3, 3)
    callback.close()
