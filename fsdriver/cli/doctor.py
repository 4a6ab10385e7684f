"""``doctor``: what on this machine keeps fsdriver from working well, each finding with its remedy."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import click

from fsdriver.errors import ConfigError

FUSE_DEVICE: Final = (10, 229)
"""Major and minor number of ``/dev/fuse`` (Linux, devices.txt)."""
PASSTHROUGH_SINCE: Final = (6, 9)
CAP_SYS_ADMIN: Final = 21


class Level(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    NOTE = "note"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: what was found and, unless all is well, what to do."""

    subject: str
    level: Level
    text: str
    remedy: str = ""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Findings as JSON.")
def doctor(as_json: bool) -> int:
    """Look for what keeps fsdriver from working well here."""
    findings = list(examine())
    if as_json:
        import json

        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        _show(findings)
    return 1 if any(finding.level is Level.FAIL for finding in findings) else 0


def examine() -> Iterator[Finding]:
    """All findings, from what is needed first to what is only useful."""
    yield python()
    yield device(Path("/dev/fuse"))
    if os.geteuid() != 0:
        yield helper()
        yield allow_other(Path("/etc/fuse.conf"))
    yield passthrough(platform.release(), Path("/proc/self/status"))
    yield from places()
    yield configuration()
    yield from weaknesses()
    yield from clients()
    yield mount_helper(Path("/sbin/mount.fuse.fsdriver"))
    yield from stale_mounts()


def python() -> Finding:
    """The interpreter."""
    version = platform.python_version()
    return Finding("python", Level.OK, f"{version} ({sys.executable})")


def device(path: Path) -> Finding:
    """``/dev/fuse`` and whether this user may open it."""
    try:
        status = path.stat()
    except OSError:
        return Finding(
            str(path), Level.FAIL, "does not exist", "modprobe fuse; in a container, add the device /dev/fuse"
        )
    if not stat.S_ISCHR(status.st_mode) or (os.major(status.st_rdev), os.minor(status.st_rdev)) != FUSE_DEVICE:
        return Finding(str(path), Level.FAIL, "is not the FUSE device", f"rm {path}; mknod -m 666 {path} c 10 229")
    mode = stat.S_IMODE(status.st_mode)
    if not os.access(path, os.R_OK | os.W_OK):
        return Finding(str(path), Level.FAIL, f"mode {mode:04o} keeps you out", f"as root: chmod 666 {path}")
    if mode & 0o666 != 0o666:
        return Finding(
            str(path),
            Level.NOTE,
            f"mode {mode:04o}: only root can mount",
            f"chmod 666 {path}, for mounts by other users",
        )
    return Finding(str(path), Level.OK, f"mode {mode:04o}")


def helper() -> Finding:
    """``fusermount3``, through which users without privileges mount."""
    found = shutil.which("fusermount3")
    if found is None:
        return Finding(
            "fusermount3", Level.FAIL, "is not installed", "apt install fuse3 (or your distribution's package)"
        )
    if not Path(found).stat().st_mode & stat.S_ISUID:
        return Finding("fusermount3", Level.FAIL, f"{found} is not setuid root", f"as root: chmod u+s {found}")
    return Finding("fusermount3", Level.OK, found)


def allow_other(path: Path) -> Finding:
    """``user_allow_other``, without which ``-o allow_other`` is refused to users."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    if "user_allow_other" in (line.strip() for line in lines):
        return Finding("user_allow_other", Level.OK, f"set in {path}")
    return Finding(
        "user_allow_other",
        Level.NOTE,
        f"not set in {path}: -o allow_other is refused to users",
        f"as root: echo user_allow_other >> {path}",
    )


def passthrough(release: str, status: Path) -> Finding:
    """Whether the kernel can read and write cached files itself; the mount's own self-test has the last word."""
    version = tuple(int(part) for part in release.split("-", maxsplit=1)[0].split(".")[:2] if part.isdecimal())
    if version < PASSTHROUGH_SINCE:
        return Finding(
            "passthrough",
            Level.NOTE,
            f"Linux {release} has none: cached files are read through the daemon",
            "Linux 6.9 or later",
        )
    if not _effective_capabilities(status) >> CAP_SYS_ADMIN & 1:
        return Finding(
            "passthrough", Level.NOTE, "needs CAP_SYS_ADMIN: cached files are read through the daemon", "mount as root"
        )
    return Finding("passthrough", Level.OK, f"Linux {release}, CAP_SYS_ADMIN")


def places() -> Iterator[Finding]:
    """Cache, state and sockets: writable, private, local."""
    from fsdriver.config import cache_dir, load, runtime_dir, state_dir

    def cache() -> Path:
        try:
            return cache_dir(load())
        except ConfigError:
            return cache_dir()  # the finding about the configuration says what is wrong with it

    checks: tuple[tuple[str, Callable[[], Path]], ...] = (
        ("cache directory", cache),
        ("state directory", state_dir),
        ("runtime directory", runtime_dir),
    )
    for subject, check in checks:
        try:
            path = check()
        except ConfigError as error:
            place, _, remedy = error.message.partition("; ")
            yield Finding(subject, Level.FAIL, f"{error.filename}: {place}", remedy)
        else:
            free = shutil.disk_usage(path).free
            yield Finding(subject, Level.OK, f"{path} ({free >> 30} GiB free)")


def configuration() -> Finding:
    """Whether the configuration can be read."""
    from fsdriver.config import find_config, load

    try:
        files = find_config()
        load()
    except ConfigError as error:
        return Finding("configuration", Level.FAIL, str(error), "fsdriver config check")
    return Finding("configuration", Level.OK, ", ".join(map(str, files)) or "no file: a URL alone can be mounted")


def weaknesses() -> Iterator[Finding]:
    """What the configuration gives up of the safety there is by default."""
    from fsdriver.backends import weakness
    from fsdriver.config import find_config, load

    try:
        files, loaded = find_config(), load()
    except ConfigError:
        return  # said before
    for name, backend in loaded.backend.items():
        if found := weakness(backend):
            text, _, remedy = found.rpartition("; ")
            yield Finding(f"backend {name}", Level.NOTE, text, remedy)
    for file in files if loaded.has_written_secret() else ():
        if file.stat().st_mode & 0o077:
            yield Finding(str(file), Level.FAIL, "holds a secret, and others may read it", f"chmod 600 {file}")


def clients() -> Iterator[Finding]:
    """Python packages of the services that are not always installed."""
    for scheme, package, extra in (("s3", "boto3", "s3"), ("gs", "gcsfs", "gcs"), ("az", "adlfs", "azure")):
        if find_spec(package) is None:
            yield Finding(f"{scheme}://", Level.NOTE, f"{package} is not installed", f"pip install 'fsdriver[{extra}]'")
        else:
            yield Finding(f"{scheme}://", Level.OK, f"{package} is installed")


def mount_helper(path: Path) -> Finding:
    """What ``mount -t fuse.fsdriver`` and fstab call."""
    if path.exists():
        return Finding("mount -t fuse.fsdriver", Level.OK, str(path))
    return Finding("mount -t fuse.fsdriver", Level.NOTE, f"{path} is missing", "as root: fsdriver install-system")


def stale_mounts() -> Iterator[Finding]:
    """Mount points whose daemon is gone."""
    from fsdriver.cli.mounts import mounted
    from fsdriver.fuse_mount.mounts import is_stale

    for mount in mounted():
        if is_stale(mount.directory):
            remedy = f"fsdriver umount {mount.directory}, or mount there again"
            yield Finding(mount.directory, Level.FAIL, "the daemon of this mount is gone", remedy)


def _effective_capabilities(status: Path) -> int:
    for line in status.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _show(findings: list[Finding]) -> None:
    from fsdriver.cli.output import print_table

    rows = [(finding.level, finding.subject, finding.text, finding.remedy) for finding in findings]
    print_table(("", "subject", "finding", "remedy"), rows)
