"""W12: what a developer does: unpack an archive, put it under version control."""

from __future__ import annotations

import itertools
import random
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from benchmarks.environment import Environment, WrongContent
from benchmarks.harness import Figure, Run, Sides, Values, workload
from benchmarks.workloads import check_object

FILES: Final = 1000
FOLDERS: Final = 20
TITLE: Final = "untar 1,000 files, git init, add, commit, fsck"
GIT: Final = {
    "init": ["init", "-q"],
    "add": ["add", "."],
    "commit": ["commit", "-q", "-m", "all"],
    "fsck": ["fsck", "--full", "--strict"],
}


def _work(archive: Path, folder: Path) -> dict[str, float]:
    """Seconds of each step."""
    commands = {"untar": ["tar", "xf", str(archive), "-C", str(folder)]}
    identity = ["-c", "user.name=Bench", "-c", "user.email=bench@example.org"]
    commands |= {name: ["git", "-C", str(folder), *identity, *rest] for name, rest in GIT.items()}
    seconds = {}
    for name, command in commands.items():
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds[name] = time.perf_counter() - began
    changed = subprocess.run(["git", "-C", str(folder), "status", "--porcelain"], check=True, capture_output=True)
    if changed.stdout:
        raise WrongContent(f"git sees changes after the commit:\n{changed.stdout.decode()[:500]}")
    return seconds


@workload(
    Figure("W12.back", f"{TITLE}; write-back", "s", "back", "native", 5, at_most=True),
    Figure("W12.through", f"{TITLE}; write-through", "s", "through", "native"),
    Figure("W12.through.juicefs", f"{TITLE}; write-through", "s", "through", "juicefs", 0.5, at_most=True),
    Figure("W12.back.rclone", f"{TITLE}; write-back", "s", "back", "rclone"),
)
@contextmanager
def untar_and_git(environment: Environment) -> Iterator[Sides]:
    source = random.Random(12)
    files = {
        f"d{number % FOLDERS:02d}/f{number:04d}.txt": source.randbytes(2000).hex().encode() for number in range(FILES)
    }
    sides = Sides({})
    rounds = itertools.count()
    with ExitStack() as stack:
        folder = stack.enter_context(environment.folder())
        mount_of = environment.mounts(stack)
        archive = folder / "source.tar"
        _pack(archive, folder / "source", files)

        def native() -> Values:
            with environment.folder() as place:
                return {"s": sum(_work(archive, place).values())}

        def mounted(side: str) -> Run:
            def run() -> Values:
                mount, name = mount_of(side), f"round{next(rounds)}"
                place = mount.directory / name
                place.mkdir()
                with environment.counters(mount) as counters:
                    seconds = _work(archive, place)
                sides.facts[side] = {"seconds": ", ".join(f"{step} {passed:.2f}" for step, passed in seconds.items())}
                sides.facts[side] |= counters.facts
                if mount.sync():
                    store = environment.store(mount.bucket)
                    for key, data in files.items():
                        check_object(store, f"{name}/{key}", data)
                return {"s": sum(seconds.values())}

            return run

        sides.runs = {
            "native": native,
            **{side: mounted(side) for side in ("back", "through", "rclone", "juicefs")},
        }
        yield sides


def _pack(archive: Path, folder: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(archive, "w") as packed:
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            packed.add(path, name)
