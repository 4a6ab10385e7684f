"""Opening /dev/fuse, mounting and unmounting: directly as root, else through fusermount3.

The kernel is mounted with mount(2), so that root needs no helper. An unprivileged user goes through the set-user-ID helper
``fusermount3``, which passes the open device back over a socket (``_FUSE_COMMFD``, as libfuse's mount_util does).
"""

from __future__ import annotations

import array
import ctypes
import errno
import logging
import os
import shutil
import socket
import stat
import subprocess
from dataclasses import dataclass
from typing import Final

from fsdriver.errors import AccessDenied, FsdriverError, Unsupported

from .mounts import FSTYPE, SUBTYPE, Mounted, is_stale, mounted_at

log = logging.getLogger(__name__)

DEVICE: Final = "/dev/fuse"
MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_NOATIME: Final = 1024
MNT_DETACH: Final = 2

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class MountRequest:
    """What to tell the kernel.

    Attributes
    ----------
    directory : str
        Absolute mountpoint.
    source : str
        Shown as the device in /proc/mounts: the URL.
    allow_other : bool
        Users other than the one who mounts may enter; permissions are checked by the kernel in any case.
    flags : int
        ``MS_*`` of mount(2).
    max_read : int
        Largest READ request, in bytes.
    """

    directory: str
    source: str
    allow_other: bool
    flags: int
    max_read: int


def open_and_mount(request: MountRequest) -> int:
    """Mount, and return the descriptor the kernel's requests come from.

    Raises
    ------
    AccessDenied
        The device or the helper does not let this user mount.
    Unsupported
        The kernel has no FUSE, or an unprivileged user has no fusermount3.
    FsdriverError
        mount(2) failed otherwise.
    """
    return _mount_as_root(request) if os.geteuid() == 0 else _mount_through_helper(request)


def _mount_as_root(request: MountRequest) -> int:
    try:
        descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise _device_error(error) from error
    data = f"fd={descriptor},rootmode=40000,user_id=0,group_id=0,default_permissions,max_read={request.max_read}"
    data += ",allow_other" if request.allow_other else ""
    if _libc.mount(
        os.fsencode(request.source),
        os.fsencode(request.directory),
        FSTYPE.encode(),
        ctypes.c_ulong(request.flags),
        data.encode(),
    ):
        code = ctypes.get_errno()
        os.close(descriptor)
        if code in {errno.EPERM, errno.EACCES}:
            raise AccessDenied(
                "mount(2) is not allowed here (no CAP_SYS_ADMIN, e.g. in a container)", request.directory
            )
        raise FsdriverError(f"mount(2) failed: {os.strerror(code)}", request.directory)
    return descriptor


def _mount_through_helper(request: MountRequest) -> int:
    helper = _helper()
    names = [name for bit, name in OPTION_NAMES.items() if request.flags & bit]
    options = [
        f"fsname={request.source.replace(',', '%2C')}",
        f"subtype={SUBTYPE}",
        "default_permissions",
        f"max_read={request.max_read}",
        *names,
        *(["allow_other"] if request.allow_other else []),
    ]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        done = subprocess.run(
            [helper, "-o", ",".join(options), "--", request.directory],
            env=_environment(_FUSE_COMMFD=str(theirs.fileno())),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
        )
        theirs.close()
        if done.returncode:
            raise _helper_error(helper, done.stderr.strip(), request)
        _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(array.array("i").itemsize))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptor = array.array("i", data)[0]
            os.set_inheritable(descriptor, False)
            return descriptor
    raise FsdriverError(f"{helper} mounted but handed no device back; unmount with: {helper} -u {request.directory}")


def unmount(directory: str, *, lazy: bool = False) -> None:
    """Unmount with umount2(2) as root, else with ``fusermount3 -u``.

    Parameters
    ----------
    lazy : bool
        Detach now, although files are open; the mount ends with the last of them.

    Raises
    ------
    OSError
        EBUSY while something is open there, EINVAL where nothing is mounted.
    """
    if os.geteuid() == 0:
        if _libc.umount2(os.fsencode(directory), MNT_DETACH if lazy else 0):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), directory)
        return
    done = subprocess.run(
        [_helper(), "-u", *(["-z"] if lazy else []), "--", directory],
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        code = errno.EBUSY if "busy" in done.stderr else errno.EINVAL
        raise OSError(code, done.stderr.strip() or os.strerror(code), directory)


def abort(mount: Mounted) -> None:
    """End the connection of a FUSE mount: whoever waits for its daemon is told ECONNABORTED (fuse-control, kernel docs)."""
    control = f"/sys/fs/fuse/connections/{mount.device.rpartition(':')[2]}/abort"
    try:
        with open(control, "w", encoding="ascii") as file:
            file.write("1")
    except OSError as error:
        log.warning(
            "%s: programs that wait for its daemon go on waiting: %s: %s", mount.directory, control, error.strerror
        )


def heal(directory: str) -> bool:
    """Detach a mount whose daemon is gone (every access says ENOTCONN), so that the directory can be used again.

    Returns
    -------
    bool
        There was one.
    """
    healed = False
    while is_stale(directory):
        log.warning("%s: the daemon of an earlier mount is gone (ENOTCONN); detaching what it left", directory)
        unmount(directory, lazy=True)
        healed = True
    return healed


def set_read_ahead(directory: str, kibibytes: int) -> None:
    """Larger read-ahead for this mount alone: without it the kernel asks for 128 KiB at a time.

    The device number comes from the mount table: a daemon that asks its own mount waits for itself.
    """
    mount = mounted_at(directory)
    if mount is None:
        log.info("read-ahead stays at the kernel's default: %s was unmounted meanwhile", directory)
        return
    setting = f"/sys/class/bdi/{mount.device}/read_ahead_kb"
    try:
        with open(setting, "w", encoding="ascii") as file:
            file.write(str(kibibytes))
    except OSError as error:
        log.info("read-ahead stays at the kernel's default: %s", error)


OPTION_NAMES: Final = {
    MS_RDONLY: "ro",
    MS_NOSUID: "nosuid",
    MS_NODEV: "nodev",
    MS_NOEXEC: "noexec",
    MS_NOATIME: "noatime",
}


def _environment(**more: str) -> dict[str, str]:
    """Of the helper: nothing of this process's, which may hold keys."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", **more}


def _helper() -> str:
    for name in (os.environ.get("FUSERMOUNT_PROG"), "fusermount3", "fusermount"):
        if name and (found := shutil.which(name)):
            return found
    raise Unsupported("mounting without root needs fusermount3; install it: apt-get install fuse3")


def _device_error(error: OSError) -> FsdriverError:
    if error.errno in {errno.ENOENT, errno.ENODEV, errno.ENXIO}:
        return Unsupported(
            "the kernel offers no FUSE here; load it (modprobe fuse) or pass the device into the container", DEVICE
        )
    if error.errno in {errno.EACCES, errno.EPERM}:
        mode = stat.S_IMODE(os.stat(DEVICE).st_mode)
        return AccessDenied(
            f"its mode is {mode:04o}, so this user cannot open it; as root: chmod 0666 {DEVICE} (what udev sets normally)",
            DEVICE,
        )
    return FsdriverError(f"cannot be opened: {error.strerror}", DEVICE)


def _helper_error(helper: str, message: str, request: MountRequest) -> FsdriverError:
    """Say which of the usual obstacles of an unprivileged mount it was."""
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return _device_error(error)
    if not os.stat(helper).st_mode & stat.S_ISUID:
        return AccessDenied(f"is not set-user-ID root; as root: chmod u+s {helper} (or reinstall fuse3)", helper)
    if "user_allow_other" in message:
        return AccessDenied("allow_other needs the line user_allow_other in /etc/fuse.conf", request.directory)
    return AccessDenied(f"{os.path.basename(helper)} refused to mount: {message}", request.directory)
