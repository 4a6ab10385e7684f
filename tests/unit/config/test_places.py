"""Cache, state and sockets: private folders on local disks."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from fsdriver.config import CacheConfig, cache_dir, offered_dirs, offering_dir, places, runtime_dir, state_dir
from fsdriver.errors import ConfigError


def test_folders_are_made_private(tmp_path):
    environ = {
        "FSDRIVER_CACHE_DIR": str(tmp_path / "a/cache"),
        "FSDRIVER_STATE_DIR": str(tmp_path / "a/state"),
        "FSDRIVER_RUNTIME_DIR": str(tmp_path / "a/run"),
    }
    for path, name in (
        (cache_dir(None, environ), "cache"),
        (state_dir(environ), "state"),
        (runtime_dir(environ), "run"),
    ):
        assert path == tmp_path / "a" / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_the_configuration_goes_before_the_environment(tmp_path):
    assert cache_dir(CacheConfig(dir=tmp_path / "c"), {"FSDRIVER_CACHE_DIR": "/nowhere"}) == tmp_path / "c"


def test_places_of_a_user(tmp_path, monkeypatch):
    me = os.geteuid()
    made = []
    monkeypatch.setattr(places.os, "geteuid", lambda: 12345)
    monkeypatch.setattr(places, "_private", lambda path, *_: made.append(path) or path)
    home = {"HOME": str(tmp_path)}
    assert cache_dir(None, home) == tmp_path / ".cache/fsdriver"
    assert state_dir(home) == tmp_path / ".local/state/fsdriver"
    assert runtime_dir(home) == tmp_path / ".local/state/fsdriver/run"
    assert runtime_dir({**home, "XDG_RUNTIME_DIR": "/run/user/7"}) == Path("/run/user/7/fsdriver")
    assert cache_dir(None, {**home, "XDG_CACHE_HOME": "/fast"}) == Path("/fast/fsdriver")
    monkeypatch.setattr(places.os, "geteuid", lambda: 0)
    assert cache_dir(None, home) == Path("/var/cache/fsdriver")
    assert state_dir(home) == Path("/var/lib/fsdriver")
    assert runtime_dir({**home, "XDG_RUNTIME_DIR": "/run/user/0"}) == Path("/run/fsdriver")
    assert me == os.getuid()


def test_what_is_offered_to_others_lies_in_a_folder_they_may_list(tmp_path):
    environ = {"FSDRIVER_RUNTIME_DIR": str(tmp_path / "run")}
    shared = offering_dir(environ)
    assert shared == tmp_path / "run" / "shared"
    assert stat.S_IMODE(shared.stat().st_mode) == 0o755
    assert stat.S_IMODE(shared.parent.stat().st_mode) == 0o711
    (shared.parent / "mount.sock").touch()
    assert runtime_dir(environ) == shared.parent
    assert offering_dir(environ) == shared
    shared.parent.chmod(0o755)
    with pytest.raises(ConfigError, match="open to other users"):
        runtime_dir(environ)


def test_others_are_looked_for_where_root_offers(monkeypatch):
    monkeypatch.setattr(places.os, "geteuid", lambda: 12345)
    assert offered_dirs({}) == (Path("/run/fsdriver/shared"),)
    assert offered_dirs({"FSDRIVER_SHARED_DIR": "/a:/b"}) == [Path("/a"), Path("/b")]
    assert offered_dirs({"FSDRIVER_SHARED_DIR": ""}) == []
    monkeypatch.setattr(places.os, "geteuid", lambda: 0)
    assert offered_dirs({}) == ()


def test_an_open_empty_folder_is_closed_and_a_used_one_refused(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o755)
    assert stat.S_IMODE(cache_dir(CacheConfig(dir=folder)).stat().st_mode) == 0o700
    folder.chmod(0o755)
    (folder / "mine").touch()
    with pytest.raises(ConfigError, match="open to other users"):
        cache_dir(CacheConfig(dir=folder))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_a_file_in_the_way_is_explained(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="a file has this name"):
        cache_dir(CacheConfig(dir=tmp_path / "file"))
    with pytest.raises(ConfigError, match="Not a directory; set FSDRIVER_STATE_DIR"):
        state_dir({"FSDRIVER_STATE_DIR": str(tmp_path / "file/x")})


def test_a_file_system_without_writing_is_explained():
    with pytest.raises(ConfigError, match="cannot be made"):
        cache_dir(CacheConfig(dir="/proc/fsdriver"))


@pytest.mark.parametrize("kind", ["nfs4", "cifs"])
def test_remote_file_systems_are_refused(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(places, "file_system_type", lambda path: kind)
    with pytest.raises(ConfigError, match=f"lies on {kind}"):
        cache_dir(CacheConfig(dir=tmp_path / "c"))


def test_the_type_is_that_of_the_deepest_and_latest_mount(tmp_path):
    odd = tmp_path / "with space" / "x"
    odd.mkdir(parents=True)
    point = str(odd.parent).replace(" ", "\\040")
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(
        "1 0 8:1 / / rw shared:1 - ext4 /dev/a rw\n"
        f"2 1 0:9 / {point} rw - tmpfs t rw\n"
        f"3 2 0:9 / {point} rw master:1 - nfs4 host:/x rw\n"
        f"4 1 0:9 / {point}y rw - cifs t rw\n"
    )
    assert places.file_system_type(odd, mountinfo) == "nfs4"
    assert places.file_system_type(Path("/usr"), mountinfo) == "ext4"
    assert places.file_system_type(odd, tmp_path / "none") == ""


def test_another_users_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(places.os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ConfigError, match="belongs to uid"):
        cache_dir(CacheConfig(dir=tmp_path))
