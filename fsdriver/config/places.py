"""Where cache, state and sockets live: private folders of one uid on a local disk."""

from __future__ import annotations

import errno
import logging
import os
import stat
import tempfile
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from fsdriver.config.models import CacheConfig, Config
from fsdriver.errors import ConfigError

REMOTE_TYPES: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs"})
"""File systems without the locks and the shared memory that SQLite's write-ahead log and the cache rest on."""
RUNTIME_OF_ROOT: Final = Path("/run/fsdriver")
OFFERING: Final = "shared"
"""Of the runtime folder: where daemons offer what they have cached to other users."""
_MOST_STEPS: Final = 400
"""Folders and links on the way to a place."""
SEARCH: Final = 0o011
"""Others may reach what they know the name of, and see no names."""
_log = logging.getLogger(__name__)


def cache_dir(config: Config | CacheConfig | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """Folder of the disk cache, made if it is missing.

    ``cache.dir``, else ``$FSDRIVER_CACHE_DIR``, else for root ``/var/cache/fsdriver``, else
    ``$XDG_CACHE_HOME/fsdriver``.

    Raises
    ------
    ConfigError
        It cannot be made or written, belongs to another user, is open to other users, or lies on NFS or CIFS.
    """
    cache = config.cache if isinstance(config, Config) else config
    given = cache.dir if cache is not None and cache.dir is not None else _variable("FSDRIVER_CACHE_DIR", environ)
    path = given or _default("/var/cache", "XDG_CACHE_HOME", ".cache", environ)
    return _private(path.expanduser(), "cache", "cache.dir or FSDRIVER_CACHE_DIR")


def state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Folder of catalog and journal, made if it is missing.

    ``$FSDRIVER_STATE_DIR``, else for root ``/var/lib/fsdriver``, else ``$XDG_STATE_HOME/fsdriver``.

    Raises
    ------
    ConfigError
        As `cache_dir`.
    """
    path = _variable("FSDRIVER_STATE_DIR", environ) or _default("/var/lib", "XDG_STATE_HOME", ".local/state", environ)
    return _private(path, "state", "FSDRIVER_STATE_DIR")


def runtime_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Folder of the control sockets, made if it is missing.

    ``$FSDRIVER_RUNTIME_DIR``, else for root ``/run/fsdriver``, else ``$XDG_RUNTIME_DIR/fsdriver``, else ``run`` in the
    state folder.

    Raises
    ------
    ConfigError
        As `cache_dir`; other users may search it, though (mode 0711), where `offering_dir` is in it.
    """
    path = _variable("FSDRIVER_RUNTIME_DIR", environ)
    if path is None and os.geteuid() == 0:
        path = RUNTIME_OF_ROOT
    if path is None:
        parent = _variable("XDG_RUNTIME_DIR", environ)
        path = parent / "fsdriver" if parent is not None else state_dir(environ) / "run"
    return _private(path, "runtime", "FSDRIVER_RUNTIME_DIR", SEARCH)


def offering_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Folder of the sockets on which this user's daemons hand cached files to other users, made if it is missing.

    ``shared`` in the runtime folder (mode 0755), which others may then search (0711) but not list.

    Raises
    ------
    ConfigError
        As `cache_dir`.
    """
    above = runtime_dir(environ)
    path = above / OFFERING
    path.mkdir(mode=0o700, exist_ok=True)
    path.chmod(0o755)
    above.chmod(0o700 | SEARCH)
    return path


def offered_dirs(environ: Mapping[str, str] = os.environ) -> Sequence[Path]:
    """Folders in which other users' daemons may offer cached files: ``$FSDRIVER_SHARED_DIR``, else that of root.

    Several are separated by colons; an empty value means none, and so does being root. They need not exist.
    """
    given = environ.get("FSDRIVER_SHARED_DIR")
    if given is None:
        return () if os.geteuid() == 0 else (RUNTIME_OF_ROOT / OFFERING,)
    return [Path(part).expanduser() for part in given.split(os.pathsep) if part]


def file_system_type(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> str:
    """Type of the file system that holds an existing path, as in proc(5), mountinfo; "" if unknown."""
    wanted = os.path.realpath(path)
    best, kind = "", ""
    try:
        lines = mountinfo.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    for line in lines:
        left, _, right = line.partition(" - ")
        point = _unescape(left.split(" ")[4])
        inside = wanted == point or wanted.startswith(point.rstrip("/") + "/")
        # Of two mounts on one point the later line is the visible one.
        if inside and len(point) >= len(best):
            best, kind = point, right.split(" ")[0]
    return kind


def _unescape(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def _variable(name: str, environ: Mapping[str, str]) -> Path | None:
    value = environ.get(name)
    return Path(value).expanduser() if value else None


def _default(system: str, variable: str, under_home: str, environ: Mapping[str, str]) -> Path:
    if os.geteuid() == 0:
        return Path(system) / "fsdriver"
    base = _variable(variable, environ) or Path(environ.get("HOME") or Path.home()) / under_home
    return base / "fsdriver"


def _private(path: Path, what: str, setting: str, others: int = 0) -> Path:
    """``path`` as an existing, writable folder that only this user may enter; ``others`` are bits they may have."""
    path = Path(os.path.abspath(path))
    try:
        _refuse_foreign_way(path, what, setting)
        _make(path)
        status = path.stat()
    except ConfigError:
        raise
    except FileExistsError:
        raise ConfigError(
            f"the {what} directory cannot be made: a file has this name; set {setting} to another place", str(path)
        ) from None
    except OSError as error:
        raise ConfigError(
            f"the {what} directory cannot be made: {error.strerror}; set {setting} to a place you can write to",
            str(path),
        ) from error
    kind = file_system_type(path)
    if kind in REMOTE_TYPES:
        raise ConfigError(
            f"the {what} directory lies on {kind}, whose locks are not safe; set {setting} to a local disk", str(path)
        )
    if status.st_uid != os.geteuid():
        raise ConfigError(
            f"the {what} directory belongs to uid {status.st_uid}, not to you; set {setting} to a place of your own",
            str(path),
        )
    if stat.S_IMODE(status.st_mode) & 0o077 & ~others:
        _close_to_others(path, status.st_mode, what, setting)
    _prove_writable(path, what, setting)
    return path


def _make(path: Path) -> None:
    """Make a folder and those above it that are missing, closed to others whatever the umask is."""
    for missing in reversed([one for one in (path, *path.parents) if not one.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
    if not path.is_dir():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def _refuse_foreign_way(path: Path, what: str, setting: str) -> None:
    """Refuse a place that anybody could exchange for one of his: through a link, or in a folder where he may rename.

    What lies on the way in a folder open to all belongs to this user or to root. A folder of another user elsewhere on the way
    of root is told: containers and shared disks are set up so.
    """
    trusted = {0, os.geteuid(), *_unmapped_owner()}
    way, rest = os.path.sep, list(path.parts[1:])
    for _ in range(_MOST_STEPS):
        mode = os.stat(way).st_mode
        if mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
            raise ConfigError(
                f"the {what} directory lies below {way}, in which anybody may put something else in its place; set {setting} "
                "to a place below folders of your own",
                str(path),
            )
        if not rest:
            return
        step = os.path.normpath(os.path.join(way, rest.pop(0)))
        try:
            status = os.lstat(step)
        except (FileNotFoundError, NotADirectoryError):
            return
        if status.st_uid not in trusted and os.geteuid() == 0 and not mode & stat.S_IWOTH:
            _tell_of_foreign_way(step, status.st_uid, what, setting)
        elif status.st_uid not in trusted and mode & stat.S_IWOTH:
            raise ConfigError(
                f"{step}, on the way to the {what} directory, belongs to uid {status.st_uid}; set {setting} to a place "
                "below folders of your own",
                str(path),
            )
        if stat.S_ISLNK(status.st_mode):
            target = os.path.abspath(os.path.join(way, os.readlink(step)))
            way, rest = os.path.sep, [*Path(target).parts[1:], *rest]
        elif not rest:
            return
        else:
            way = step
    raise ConfigError(f"the {what} directory lies behind too many symbolic links", str(path))


@cache
def _tell_of_foreign_way(step: str, owner: int, what: str, setting: str) -> None:
    """Once in a process."""
    _log.warning(
        "%s, on the way to the %s directory of root, belongs to uid %d, who could put something else in its place; "
        "set %s to a place below folders of root unless you trust that user",
        step, what, owner, setting,
    )  # fmt: skip


def _unmapped_owner() -> Collection[int]:
    """In a user namespace: whom files of users without a number here seem to belong to, root's own among them."""
    try:
        if Path("/proc/self/uid_map").read_text(encoding="ascii").split() == ["0", "0", str(0xFFFFFFFF)]:
            return ()
        return (int(Path("/proc/sys/kernel/overflowuid").read_text(encoding="ascii")),)
    except OSError:
        return ()


def _close_to_others(path: Path, mode: int, what: str, setting: str) -> None:
    """Take others' permissions from an empty folder; one in use may serve others and is left as it is."""
    if any(path.iterdir()):
        raise ConfigError(
            f"the {what} directory is open to other users (mode {stat.S_IMODE(mode):04o}); chmod 700 it, or set"
            f" {setting} to a folder of its own",
            str(path),
        )
    path.chmod(0o700)


def _prove_writable(path: Path, what: str, setting: str) -> None:
    try:
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        # A full disk still serves what it holds; the cache deals with that.
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise ConfigError(
                f"the {what} directory cannot be written: {error.strerror}; set {setting} to another place", str(path)
            ) from error
