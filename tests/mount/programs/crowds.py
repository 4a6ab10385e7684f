"""Many names, odd names, and processes that lock each other out."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from .running import Program, call, script

ENTRIES = 10_000


def ten_thousand(root: Path, material: Path) -> list[str]:
    """10,000 entries; two processes create and unlink while the directory is listed again and again."""
    told = script("crowd.py", "crowd", ENTRIES, cwd=root)
    names = sorted(os.listdir(root / "crowd"))
    return [told, str(len(names)), *names[:50], *names[-50:]]


def odd_names(root: Path, material: Path) -> list[str]:
    """Every byte but / and NUL, in files, directories, symlinks and renames; none is changed on the way."""
    accented = "\u00e9t\u00e9 \u1e69 \uac00"
    names = [
        *(b"line\nbreak", b"\n", b" ", b"  two  ", b"tab\tand\x01\x1f\x7f", b"back\\slash", b"\\", b"-rf", b"--"),
        *(b"*?[a]{b,c}$HOME`ls`", b"quote'and\"", b"x" * 255, "\u00fc".encode() * 127, b"\xff\xfe not utf-8", b"\x80"),
        *(b"%0A", b"%250A", b"%5C", b"100%", b"%", b"%41", b"%C3%A9", b"%FF", b"a%file", b"a", b"trailing."),
        *(
            b"trailing ",
            b".hidden",
            b"...",
            b"CON",
            b"a:b",
            b"#frag?query&x=1;",
            b"+plus+",
            b"~",
            "\U0001f4be".encode(),
        ),
        *(unicodedata.normalize(form, accented).encode() for form in ("NFC", "NFD")),
    ]
    base = os.fsencode(root)
    for number, name in enumerate(names):
        with open(os.path.join(base, name), "wb") as file:
            file.write(b"%d" % number)
        folder = os.path.join(base, b"folders", name)
        os.makedirs(folder)
        with open(os.path.join(folder, name), "wb") as file:
            file.write(name)
        os.symlink(name, os.path.join(folder, b"link"))
        os.rename(os.path.join(folder, name), os.path.join(folder, name[:100] + b"~"))
    assert sorted(os.listdir(base)) == sorted({*names, b"folders"})
    assert sorted(os.listdir(os.path.join(base, b"folders"))) == sorted(names)
    for number, name in enumerate(names):
        with open(os.path.join(base, name), "rb") as file:
            assert file.read() == b"%d" % number
    errors = []
    for name in (b"y" * 256, "\u00fc".encode() * 128):
        try:
            os.close(os.open(os.path.join(base, name), os.O_CREAT | os.O_WRONLY))
        except OSError as error:
            errors.append(os.strerror(error.errno or 0))
    return [*errors, call("find", "folders", "-name", "*\n*", "-print0", cwd=root).count("\0").__str__()]


def locks(root: Path, material: Path) -> list[str]:
    """flock and fcntl locks, whole files and ranges, held by one process and tried by another."""
    return [script("locks.py", cwd=root)]


PROGRAMS = [Program(ten_thousand), Program(odd_names, through=True), Program(locks, libfuse=True)]
