"""Programs of a developer's day: git, pip, dd, find, du, df."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import sys
import zipfile
from pathlib import Path

from .running import Program, call

GIT = {
    "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_AUTHOR_DATE": "1500000000 +0000",
    "GIT_COMMITTER_NAME": "C", "GIT_COMMITTER_EMAIL": "c@example.org", "GIT_COMMITTER_DATE": "1500000000 +0000",
    "GIT_CONFIG_COUNT": "3", "GIT_CONFIG_KEY_0": "pack.threads", "GIT_CONFIG_VALUE_0": "1",
    "GIT_CONFIG_KEY_1": "init.defaultBranch", "GIT_CONFIG_VALUE_1": "main",
    "GIT_CONFIG_KEY_2": "gc.autoDetach", "GIT_CONFIG_VALUE_2": "false", "GIT_CONFIG_NOSYSTEM": "1",
}  # fmt: skip


def git(root: Path, material: Path) -> list[str]:
    """A history, collected into packs, checked, and cloned with and without links."""
    repository = root / "repository"
    repository.mkdir()
    rng = random.Random(2)

    def run(*arguments: str, cwd: Path = repository) -> str:
        return call("git", *arguments, cwd=cwd, **GIT)

    run("init", "--quiet")
    for commit in range(6):
        folder = repository / f"d{commit % 3}"
        folder.mkdir(exist_ok=True)
        for number in range(12):
            (folder / f"{number}.txt").write_text("".join(f"{rng.random()}\n" for _ in range(rng.randrange(200))))
        (repository / "script.sh").write_text(f"echo {commit}\n")
        (repository / "script.sh").chmod(0o755)
        if commit == 0:
            (repository / "link").symlink_to("d0/1.txt")
        run("add", "--all")
        run("commit", "--quiet", "-m", f"commit {commit}")
    run("checkout", "--quiet", "-b", "side", "HEAD~2")
    (repository / "only here").write_text("side\n")
    run("add", ".")
    run("commit", "--quiet", "-m", "side")
    run("checkout", "--quiet", "main")
    run("merge", "--quiet", "--no-edit", "side")
    run("mv", "d1/1.txt", "d2/renamed.txt")
    run("stash", "--quiet")
    run("stash", "pop", "--quiet")
    run("reset", "--quiet", "--hard")
    run("gc", "--quiet", "--prune=now")
    checked = run("fsck", "--strict", "--full", "--no-progress")
    run("clone", "--quiet", "repository", "clone", cwd=root)
    run("clone", "--quiet", "--no-local", "--bare", "repository", "bare.git", cwd=root)
    states = [run("status", "--porcelain", cwd=root / name) for name in ("repository", "clone")]
    assert states == ["", ""]
    heads = [run("rev-parse", "HEAD", "side", cwd=repository), run("log", "--oneline", "--graph", cwd=root / "clone")]
    return [checked, *heads, run("fsck", "--strict", cwd=root / "clone"), run("count-objects", "-v")]


def pip_install(root: Path, material: Path) -> list[str]:
    """A wheel with modules, data and a console script, installed beside nothing else."""
    wheel = _wheel(root / "toolbox-1.0-py3-none-any.whl")
    call(sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir", "--isolated", "install",
         "--quiet", "--no-index", "--no-deps", "--target", "site", wheel, cwd=root)  # fmt: skip
    program = "import toolbox.m7, sys; print(toolbox.m7.VALUE, toolbox.__file__.startswith(sys.argv[1]))"
    found = call(sys.executable, "-c", program, "site", cwd=root, PYTHONPATH="site")
    return [found.replace("False", "True"), call(sys.executable, "site/bin/toolbox", cwd=root, PYTHONPATH="site")]


def _wheel(path: Path) -> Path:
    info = "toolbox-1.0.dist-info"
    files = {
        "toolbox/__init__.py": "def main():\n    print('the tool works')\n",
        **{f"toolbox/m{number}.py": f"VALUE = {number}\n" * (number + 1) for number in range(60)},
        "toolbox/data/table.csv": "a,b\n" * 5000,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: toolbox\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\ntoolbox = toolbox:main\n",
    }
    digest = {name: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
              for name, text in files.items()}  # fmt: skip
    record = "".join(f"{name},sha256={digest[name]},{len(text)}\n" for name, text in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return path


def dd(root: Path, material: Path) -> list[str]:
    """Whole, in the middle, at the end, with holes; each reaches the disk."""
    source = material / "sub" / "large"
    size = source.stat().st_size
    call("dd", f"if={source}", "of=whole", "bs=64k", "conv=fsync", "status=none", cwd=root)
    call("dd", f"if={source}", "of=synced", "bs=1M", "oflag=sync", "status=none", cwd=root)
    call("dd", f"if={source}", "of=middle", "bs=1000", "seek=500", "count=20", "conv=fsync", "status=none", cwd=root)
    call(
        "dd",
        f"if={source}",
        "of=whole",
        "bs=4k",
        "seek=3",
        "skip=9",
        "count=5",
        "conv=notrunc,fdatasync",
        "status=none",
        cwd=root,
    )
    call("dd", f"if={source}", "of=appended", "bs=7", "count=3", "conv=fsync", "status=none", cwd=root)
    call(
        "dd",
        f"if={source}",
        "of=appended",
        "bs=7",
        "count=3",
        "oflag=append",
        "conv=notrunc,fsync",
        "status=none",
        cwd=root,
    )
    call("dd", "if=whole", "of=copy", "bs=333k", "conv=fsync", "status=none", cwd=root)
    call("dd", "if=whole", "of=part", "bs=1", f"skip={size - 10}", "conv=fsync", "status=none", cwd=root)
    call("cmp", "whole", "copy", cwd=root)
    call("sync", "-f", ".", cwd=root)
    return [call("wc", "-c", "whole", "synced", "middle", "appended", "copy", "part", cwd=root)]


def find_du_df(root: Path, material: Path) -> list[str]:
    """What walks see, by type, size, age, owner and link count."""
    call("cp", "-a", material, "tree", cwd=root)
    os.utime(root, ns=(0, 0))
    seen = call("find", "tree", "-not", "-type", "d", "-printf", "%y %#m %s %l %U:%G %n %T@ %p\n", cwd=root)
    folders = call("find", "tree", "-type", "d", "-printf", "%y %#m %T@ %p\n", cwd=root)
    tests = [
        ["-newer", "tree/sub/one"], ["-links", "+2", "-type", "f"], ["-size", "+2M"], ["-empty"], ["-perm", "-4000"],
        ["-uid", "1234"], ["-xtype", "l"], ["-samefile", "tree/hard"], ["-type", "p"],
    ]  # fmt: skip
    results = ["".join(sorted(call("find", "tree", *test, cwd=root).splitlines(True))) for test in tests]
    used = call("du", "--apparent-size", "-b", "tree/sub/large", "tree/sub/sparse", "tree/link", cwd=root)
    assert int(call("du", "-s", "tree", cwd=root).split()[0]) > 9000
    space = call("df", "--output=size,avail,target", "-B1", ".", cwd=root).splitlines()[1].split()
    assert int(space[0]) >= int(space[1]) > 1 << 30
    call("find", "tree/sub/deeper", "-name", "*3*", "-delete", cwd=root)
    for folder in ("tree/sub/deeper/deepest", "tree/sub/deeper"):
        os.utime(root / folder, ns=(0, 0))
    return [*sorted(seen.splitlines()), *sorted(folders.splitlines()), *results, used]


PROGRAMS = [
    # The index holds inode numbers and times; configuration and logs of a clone the absolute path of its origin.
    Program(
        git,
        varying=("*/index", "*/config", "*bare.git/config", "*/logs/*", "*/FETCH_HEAD", "*packed-refs"),
        through=True,
        libfuse=True,
    ),
    Program(pip_install, varying=("*.pyc", "*/direct_url.json", "*/RECORD")),
    Program(dd),
    Program(find_du_df, times=True),
]
