"""Jobs over many files, on threads, processes and a cluster; killed in the middle and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import pytest

from fsdriver import bulk
from fsdriver.bulk.jobs import PART
from fsdriver.bulk.journal import Journal
from fsdriver.cli import main
from fsdriver.errors import ConfigError, NotFound
from tests.waiting import wait_for

EXECUTORS = ["threads", "spawn", "fork", "cluster"]


@pytest.fixture
def executor(request, tier_places):  # after the places: its workers inherit the environment
    kind = request.param
    if kind == "threads":
        with ThreadPoolExecutor(4) as pool:
            yield pool
    elif kind == "cluster":
        distributed = pytest.importorskip("distributed")
        with (
            distributed.LocalCluster(
                n_workers=2, threads_per_worker=2, dashboard_address=None, local_directory=str(tier_places / "dask")
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client.get_executor()
    else:
        with ProcessPoolExecutor(2, mp_context=get_context(kind)) as pool:
            yield pool


def make_tree(root: Path) -> dict[str, bytes]:
    files = {f"many/{number:02}": os.urandom(1000 + number) for number in range(40)}
    files |= {"empty": b"", "d/e/ü 100%": os.urandom(5000), "large": os.urandom((9 << 20) + 1)}
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return files


def tree_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def source(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    return source


@pytest.fixture
def store(tier_places):
    store = tier_places / "store"
    store.mkdir()
    return store


@pytest.mark.service
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("executor", EXECUTORS, indirect=True)
def test_a_tree_goes_up_and_comes_back(executor, source, tmp_path, s3_server, s3_bucket, s3_options):
    files = make_tree(source)
    url, how = f"s3://{s3_bucket}/run", {"executor": executor, "storage_options": s3_options}
    done = bulk.upload(source, url, **how)
    done.check()
    size = sum(map(len, files.values()))
    assert (done.files, done.bytes, done.left, done.skipped) == (len(files), size, 0, [])
    listed = s3_server.client().list_objects_v2(Bucket=s3_bucket, Prefix="run/")["Contents"]
    assert {one["Key"]: one["Size"] for one in listed} == {f"run/{name}": len(data) for name, data in files.items()}
    assert bulk.warm(url, **how).files == len(files)
    found = bulk.verify(url, everything=True, **how)
    assert (found.ok, found.files, found.bytes) == (True, len(files), size)
    assert bulk.download(url, tmp_path / "back", **how).ok
    assert tree_of(tmp_path / "back") == files


_STUCK = """
import sys, threading
from fsdriver import bulk
from fsdriver.bulk.urls import named

class Stuck(bulk.Upload):
    def do(self, item):
        if item.path >= "40":
            threading.Event().wait()
        return super().do(item)

bulk.run(Stuck(sys.argv[1], named(sys.argv[2])), jobs=1, resume=sys.argv[3])
"""


def test_a_job_that_was_killed_does_the_rest_only(source, store, tmp_path):
    for number in range(60):
        (source / f"{number:02}").write_bytes(b"%d" % number)
    url, journal = f"file://{store}/x", tmp_path / "journal"
    with subprocess.Popen([sys.executable, "-c", _STUCK, source, url, journal]) as job:
        wait_for(lambda: job.poll() is not None or (store / "x" / "39").exists())
        job.send_signal(signal.SIGKILL)
        assert job.wait() == -signal.SIGKILL
    noted = len(journal.read_bytes().splitlines()) - 1
    assert noted == 32  # whole batches
    first = (store / "x" / "00").stat()
    report = bulk.upload(source, url, resume=journal)
    assert (report.before, report.files, report.ok) == (32, 28, True)
    assert (store / "x" / "00").stat().st_ino == first.st_ino
    assert tree_of(store / "x") == tree_of(source)
    again = bulk.upload(source, url, resume=journal)
    assert (again.before, again.files) == (60, 0)


def test_what_has_changed_since_is_done_again(source, store, tmp_path):
    (source / "a").write_bytes(b"one")
    (source / "b").write_bytes(b"two")
    url = f"file://{store}/x"
    assert bulk.upload(source, url, resume=tmp_path / "up").files == 2
    (source / "a").write_bytes(b"other")
    assert bulk.upload(source, url, resume=tmp_path / "up").files == 1
    down = tmp_path / "down"
    assert bulk.download(url, down, resume=tmp_path / "journal").files == 2
    (down / "b").unlink()
    assert bulk.download(url, down, resume=tmp_path / "journal").files == 1
    assert tree_of(down) == {"a": b"other", "b": b"two"}


def test_one_file_alone(source, store, tmp_path):
    (source / "a").write_bytes(b"content")
    assert bulk.upload(source / "a", f"file://{store}/b").files == 1
    assert bulk.download(f"file://{store}/b", tmp_path / "down").files == 1
    assert tree_of(tmp_path / "down") == {"b": b"content"}
    with pytest.raises(NotFound, match="missing"):
        bulk.download(f"file://{store}/missing", tmp_path / "down")
    with pytest.raises(FileNotFoundError):
        bulk.upload(source / "missing", f"file://{store}/b")


def test_failures_are_told_of_each_file_and_stop_no_other(source, store, tmp_path):
    files = make_tree(store)
    down = tmp_path / "down"
    down.mkdir()
    (down / "d").write_bytes(b"in the way")
    report = bulk.download(f"file://{store}", down)
    assert [(one.path, one.kind) for one in report.failures] == [("d/e/ü 100%", "NotADirectoryError")]
    assert (report.files, report.ok) == (len(files) - 1, False)
    with pytest.raises(OSError, match="NotADirectoryError"):
        report.check()
    assert not [path for path in down.rglob("*") if path.name.startswith(PART)]


def test_what_is_no_regular_file_is_left_out_and_told(source, store):
    (source / "file").write_bytes(b"x")
    (source / "link").symlink_to("file")
    (source / "nowhere").symlink_to("missing")
    (source / "folder").symlink_to(store)
    os.mkfifo(source / "pipe")
    report = bulk.upload(source, f"file://{store}/x")
    assert report.ok
    assert sorted(Path(one.partition(":")[0]).name for one in report.skipped) == ["folder", "nowhere", "pipe"]
    assert tree_of(store / "x") == {"file": b"x", "link": b"x"}


@dataclass(frozen=True)
class Numbers:
    """A job of a test's own."""

    count: int
    dies_at: int = -1

    def describe(self):
        return {"kind": "numbers"}

    def items(self, skipped):
        return (bulk.Item(str(number), 1 << 20, "") for number in range(self.count))

    def do(self, item):
        if item.path == str(self.dies_at):
            os._exit(1)
        return item.size

    def stands(self, item):
        return True


class Counting(Executor):
    """Threads, and how much was given to them at a time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(2)
        self._lock = threading.Lock()
        self.under_way = self.most = 0

    def submit(self, function, /, *args, **kwargs) -> Future:
        with self._lock:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        future = self._pool.submit(function, *args, **kwargs)
        future.add_done_callback(self._ended)
        return future

    def _ended(self, future) -> None:
        with self._lock:
            self.under_way -= 1

    def shutdown(self, wait=True, *, cancel_futures=False) -> None:
        self._pool.shutdown(wait)


def test_little_is_under_way_at_a_time():
    with Counting() as executor:
        assert bulk.run(Numbers(200), executor=executor, jobs=3).files == 200
        assert executor.most <= 3


def test_an_executor_whose_workers_die_is_told_and_resumed(tmp_path):
    journal = tmp_path / "journal"
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        report = bulk.run(Numbers(100, dies_at=50), executor=pool, jobs=2, resume=journal)
    assert not report.ok
    assert report.files + len(report.failures) + report.left == 100
    assert "worker" in str(report.failures[0])
    assert bulk.run(Numbers(100), resume=journal).before == report.files


def test_a_closed_executor_takes_nothing():
    with ThreadPoolExecutor(1) as pool:
        pass
    report = bulk.run(Numbers(5), executor=pool)
    assert (report.files, report.left, report.ok) == (0, 5, False)
    with pytest.raises(OSError, match="5 files were not tried"):
        report.check()


def test_journals_are_for_one_job_and_one_process(tmp_path):
    path = tmp_path / "journal"
    with Journal(path, {"kind": "upload", "to": "a"}) as journal:
        journal.add({"x": "1"})
        with pytest.raises(ConfigError, match="another job is using"):
            Journal(path, {"kind": "upload", "to": "a"})
    with pytest.raises(ConfigError, match="to a"):
        Journal(path, {"kind": "upload", "to": "b"})
    with path.open("ab") as file:
        file.write(b'{"path": "cut')
    with Journal(path, {"kind": "upload", "to": "a"}) as journal:
        assert journal.done == {"x": "1"}
        journal.add({"y": "2"})
    with Journal(path, {"kind": "upload", "to": "a"}) as journal:
        assert journal.done == {"x": "1", "y": "2"}
    for text in (
        b"hello\n",
        b'{"format": 1}\n',
        b"[]\n",
        b'{"format": 2, "job": {}}\n',
        b'{"format": 1, "job": {}}\n7\n',
    ):
        path.write_bytes(text)
        with pytest.raises(ConfigError):
            Journal(path, {})
        assert path.read_bytes() == text


def test_a_pattern_chooses_files(source, store, tmp_path):
    files = make_tree(source)
    assert bulk.upload(source, f"file://{store}/x", pattern="many/*").files == 40
    assert bulk.upload(source, f"file://{store}/x", pattern="*a*e").ok
    assert set(tree_of(store / "x")) == {name for name in files if name.startswith("many/") or name == "large"}
    assert main(["download", f"file://{store}/x", str(tmp_path / "down"), "--pattern", "*1?"]) == 0
    assert sorted(tree_of(tmp_path / "down")) == [f"many/{number}" for number in range(10, 20)]


@pytest.mark.parametrize(
    ("url", "root"), [("file:///", "/"), ("direct:///", "/"), ("file:///x/", "/x"), ("tier://", "")]
)
def test_roots(tier_places, local_config, config_file, url, root):
    config_file(local_config | {"route": [{"path": "/", "tiers": ["disk"]}]})
    place = bulk.urls.named(url)
    assert place.root == root
    assert place.path("a/b") == f"{root.rstrip('/')}/a/b".removeprefix("" if root else "/")


@pytest.mark.parametrize("path", ["../x", "a/../../x", "a//b", "/x"])
def test_a_name_that_leads_out_is_refused(store, tmp_path, path):
    job = bulk.Download(bulk.urls.named(f"file://{store}"), str(tmp_path / "down"))
    with pytest.raises(OSError, match="lead out"):
        job.do(bulk.Item(path, 0, ""))


@pytest.mark.parametrize("url", ["no-url", "/srv/x"])
def test_a_place_without_a_scheme_is_refused(source, url):
    with pytest.raises(ConfigError, match="no URL"):
        bulk.upload(source, url)


def test_commands(source, store, tmp_path, capsys):
    files = make_tree(source)
    url, journal = f"file://{store}/x", str(tmp_path / "journal")
    assert main(["upload", str(source), url, "--resume", journal]) == 0
    assert f"{len(files)} files uploaded" in capsys.readouterr().out
    assert main(["upload", str(source), url, "--resume", journal]) == 0
    assert f"{len(files)} done before" in capsys.readouterr().out
    (tmp_path / "down" / "d" / "e" / "ü 100%").mkdir(parents=True)
    assert main(["download", url, str(tmp_path / "down"), "--processes", "2", "-j", "4"]) == 1
    told = capsys.readouterr()
    assert "1 failed" in told.out
    assert "ü 100%" in told.err
    wrong = {
        "retries=x": "retries",
        "region=x,nonsense=1": "nonsense",
        "secret_access_key=x": "every user",
        "ttl=5s": "ttl",
    }
    for option, word in wrong.items():
        assert main(["upload", str(source), "s3://bucket/x", "-o", option]) == 1
        assert word in capsys.readouterr().err
    assert main(["upload", str(source), "nothing://x/y"]) == 1
    assert "nothing" in capsys.readouterr().err


def test_the_configured_tree(source, tier_places, local_config, config_file):
    config_file(local_config)
    files = make_tree(source)
    assert bulk.upload(source, "tier://data/x").ok
    assert tree_of(tier_places / "bucket" / "x") == files
    with pytest.raises(ConfigError, match="options"):
        bulk.upload(source, "tier://data/x", storage_options={"region": "x"})


def test_files_move_to_another_tier(source, tier_places, config_file):
    tiers = ("hot", "cold")
    for tier in tiers:
        (tier_places / tier).mkdir()
    config_file({
        "backend": {"hot": {"url": f"direct://{tier_places}/hot"}, "cold": {"url": f"file://{tier_places}/cold"}},
        "route": [{"path": "/data", "tiers": list(tiers)}],
    })  # fmt: skip
    files = make_tree(source)
    assert bulk.upload(source, "tier://data/x").ok
    report = bulk.migrate("tier://data/x", "cold", resume=tier_places / "journal")
    assert (report.failures, report.files) == ([], len(files))
    assert tree_of(tier_places / "cold" / "x") == files
    assert not [path for path in (tier_places / "hot").rglob("*") if path.is_file() and path.parent.name == "many"]
    assert bulk.migrate("tier://data/x", "cold", resume=tier_places / "journal").before == len(files)
    (failure,) = bulk.migrate("tier://data/x/large", "nowhere").failures
    assert "nowhere" in failure.message
    (failure,) = bulk.migrate(f"file://{tier_places}/cold/x/large", "cold").failures
    assert failure.kind == "Unsupported"


@pytest.mark.service
def test_options_of_the_store_on_the_command_line(source, s3_server, s3_bucket, tier_places, monkeypatch, capsys):
    monkeypatch.setenv("KEY_ID", s3_server.access_key)
    monkeypatch.setenv("SECRET", s3_server.secret_key)
    (source / "a").write_bytes(b"content")
    options = f"endpoint={s3_server.endpoint},access_key_id.env=KEY_ID,secret_access_key.env=SECRET,retries=1"
    assert main(["upload", str(source), f"s3://{s3_bucket}/x/", "-o", options]) == 0
    body = s3_server.client().get_object(Bucket=s3_bucket, Key="x/a")["Body"].read()
    assert body == b"content"
