"""Places that another user could exchange for his own are refused; what is made is closed whatever the umask is."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdriver.config import CacheConfig, cache_dir, runtime_dir, state_dir
from fsdriver.errors import ConfigError

STRANGER = 54321


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that anybody may write to, as /tmp is."""
    if os.geteuid() != 0:
        pytest.skip("needs root to act for another user")
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[int]:
    """An ordinary user, who owns what this test makes from here on."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and folder != Path(folder.anchor):
            folder.chmod(folder.stat().st_mode | 0o011)
    cache_dir(CacheConfig(dir=tmp_path / "warm"))  # modules that are loaded late may lie where this user cannot read
    os.seteuid(12345)
    yield 12345
    os.seteuid(0)


def as_root(action: str, *arguments: object) -> None:
    """What another user did before."""
    before = os.geteuid()
    os.seteuid(0)
    getattr(os, action)(*arguments)
    os.seteuid(before)


def test_a_link_that_another_user_planted_is_not_followed(shared: Path, victim: int) -> None:
    own = shared / "documents"
    own.mkdir(mode=0o700)
    as_root("symlink", own, shared / "cache")
    as_root("lchown", shared / "cache", STRANGER, STRANGER)
    with pytest.raises(ConfigError, match=f"belongs to uid {STRANGER}"):
        cache_dir(CacheConfig(dir=shared / "cache"))
    assert not list(own.iterdir())


def test_a_link_of_ones_own_is_followed(shared: Path, victim: int) -> None:
    (shared / "disk").mkdir(mode=0o700)
    (shared / "cache").symlink_to("disk/deep")
    (shared / "disk" / "deep").mkdir(mode=0o700)
    assert cache_dir(CacheConfig(dir=shared / "cache")) == shared / "cache"


def test_a_folder_that_another_user_made_on_the_way_is_refused(shared: Path, victim: int) -> None:
    as_root("mkdir", shared / "fsdriver", 0o777)
    as_root("chmod", shared / "fsdriver", 0o777)
    with pytest.raises(ConfigError, match="anybody may put something else"):
        state_dir({"FSDRIVER_STATE_DIR": str(shared / "fsdriver" / "state")})
    as_root("chmod", shared / "fsdriver", 0o755)
    as_root("mkdir", shared / "fsdriver" / "state", 0o700)
    as_root("chown", shared / "fsdriver" / "state", victim, victim)
    as_root("chown", shared / "fsdriver", STRANGER, STRANGER)
    with pytest.raises(ConfigError, match=f"belongs to uid {STRANGER}"):
        state_dir({"FSDRIVER_STATE_DIR": str(shared / "fsdriver" / "state")})


def test_root_is_told_of_a_folder_that_a_user_could_exchange(
    shared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, STRANGER, STRANGER)
    place = home / "run"
    assert runtime_dir({"FSDRIVER_RUNTIME_DIR": str(place)}) == place
    assert f"{home}, on the way to the runtime directory of root, belongs to uid {STRANGER}" in caplog.text
    caplog.clear()
    runtime_dir({"FSDRIVER_RUNTIME_DIR": str(place)})
    assert not caplog.text


@pytest.mark.parametrize("mode", [0o777, 0o2777])
def test_a_folder_open_to_all_without_the_sticky_bit_is_no_place(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(ConfigError, match="anybody may put something else"):
        cache_dir(CacheConfig(dir=folder / "cache"))
    assert not list(folder.iterdir())


MAKE = """
import os, sys
os.umask(0)
from fsdriver.engine import open_engine
from fsdriver.config import Config, runtime_dir
home = sys.argv[1]
runtime_dir({"FSDRIVER_RUNTIME_DIR": f"{home}/.run/fsdriver"})
os.environ |= {"FSDRIVER_CACHE_DIR": f"{home}/.cache/fsdriver", "FSDRIVER_STATE_DIR": f"{home}/.local/state/fsdriver"}
os.mkdir(f"{home}/bucket")
engine = open_engine(Config.model_validate(
    {"backend": {"b": {"url": f"file://{home}/bucket"}}, "route": [{"path": "/", "tiers": ["b"]}]}
))
from fsdriver.runtime import run
run(engine.routes[0].publish("f", b"x" * 100000))
run(engine.routes[0].read("f"))
engine.close()
"""


def test_without_any_umask_all_that_is_made_is_closed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", MAKE, tmp_path], check=True, timeout=120)
    made = [one for name in (".cache", ".local", ".run") for one in ((tmp_path / name), *(tmp_path / name).rglob("*"))]
    assert len(made) > 10
    assert not [(str(one), oct(one.stat().st_mode)) for one in made if stat.S_IMODE(one.stat().st_mode) & 0o077]
