"""``make demo``: a small tree on a local folder or an S3 server, mounted, written, and read by two faces.

Everything but the sockets is kept in one folder (``.demo``); ``stop`` unmounts it and ends the server.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click

from fsdriver.cli.mounts import mounted
from fsdriver.errors import FsdriverError

BUCKET: Final = "demo"
ROWS: Final = 100_000
PANDAS: Final = """\
import pandas
table = pandas.read_csv("tier:///sales.csv")
print(f"{len(table):,} rows, sum of amount {table['amount'].sum():,}")
"""


@dataclass
class Demo:
    """The folder of one demo and what it has shown so far."""

    folder: Path
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def mountpoint(self) -> Path:
        return self.folder / "mnt"

    @property
    def configuration(self) -> Path:
        return self.folder / "config.toml"

    def step(self, title: str, action: Callable[[], str]) -> None:
        """Do one thing and note what came out and how long it took."""
        begin = time.perf_counter()
        outcome = action()
        self.rows.append((title, outcome, f"{(time.perf_counter() - begin) * 1000:,.0f} ms"))

    def prepare(self, bucket: str) -> str:
        """Make the store and the configuration that names it."""
        for name in ("bucket", "mnt", "secrets", "cache"):
            (self.folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        if bucket == "s3":
            text, outcome = self._s3()
        else:
            text = f'url = "{(self.folder / "bucket").as_uri()}"\n'
            outcome = f"folder {_short(self.folder / 'bucket')}"
        cache = f'[cache]\ndir = "{self.folder / "cache"}"\n'
        route = f'[[route]]\npath = "/"\ntiers = ["{BUCKET}"]\n'
        self.configuration.write_text(f"{cache}\n[backend.{BUCKET}]\n{text}\n{route}", encoding="utf-8")
        return outcome

    def _s3(self) -> tuple[str, str]:
        from fsdriver.testing.servers import SeaweedFS

        service = SeaweedFS(self.folder / "s3").start()
        client = service.client()
        if BUCKET not in {item["Name"] for item in client.list_buckets()["Buckets"]}:
            client.create_bucket(Bucket=BUCKET)
        references = []
        for key, value in (("access_key_id", service.access_key), ("secret_access_key", service.secret_key)):
            file = self.folder / "secrets" / key
            file.touch(mode=0o600)
            file.write_text(value, encoding="utf-8")
            references.append(f'{key} = {{ file = "{file}" }}\n')
        text = f'url = "s3://{BUCKET}"\nendpoint = "{service.endpoint}"\nregion = "us-east-1"\n{"".join(references)}'
        return text, f"s3://{BUCKET} at {service.endpoint}"

    def mount(self) -> str:
        _run([*fsdriver(), "mount", "--config", str(self.configuration), str(self.mountpoint)])
        return _short(self.mountpoint)

    def write(self) -> str:
        path = self.mountpoint / "sales.csv"
        with path.open("w", encoding="utf-8") as file:
            file.write("day,amount\n")
            file.writelines(f"{row % 365},{row * 7 % 1000}\n" for row in range(ROWS))
        (self.mountpoint / "notes").mkdir(exist_ok=True)
        (self.mountpoint / "notes" / "hello.txt").write_text("one tree, three faces\n", encoding="utf-8")
        return f"sales.csv, {path.stat().st_size / 1e6:.1f} MB, and notes/hello.txt"

    def read(self) -> str:
        lines = (self.mountpoint / "sales.csv").read_text(encoding="utf-8").count("\n")
        return f"{lines - 1:,} rows"

    def sync(self) -> str:
        _run([*fsdriver(), "sync", str(self.mountpoint)])
        return "all writes are in the bucket"

    def pandas(self) -> str:
        return _run([sys.executable, "-c", PANDAS], FSDRIVER_CONFIG=str(self.configuration))

    def objects(self) -> str:
        from fsdriver.backends import open_backend
        from fsdriver.config import load
        from fsdriver.runtime import on_loop, run

        config = load(self.configuration)

        async def keys() -> list[str]:
            await on_loop()
            backend, prefix = open_backend(BUCKET, config.backend[BUCKET])
            try:
                pages = [page async for page in backend.list(f"{prefix}/" if prefix else "", delimiter=False)]
            finally:
                await backend.close()
            return [item.key.removeprefix(f"{prefix}/") for page in pages for item in page.objects]

        ordinary = [key for key in run(keys()) if key and not key.startswith(".fsdriver/") and not key.endswith("/")]
        return ", ".join(ordinary)

    def is_mounted(self) -> bool:
        return any(Path(mount.directory) == self.mountpoint for mount in mounted())


@click.group()
def demo() -> None:
    """Show a mounted tree."""


@demo.command()
@click.option(
    "--bucket", type=click.Choice(["local", "s3"]), default="local", help="A folder, or an S3 server started here."
)
@click.option("--folder", type=click.Path(path_type=Path), default=Path(".demo"))
def start(bucket: str, folder: Path) -> None:
    """Make, mount, write and read; the mount stays."""
    from fsdriver.cli.output import print_table

    shown = Demo(folder.resolve())
    if shown.is_mounted():
        raise click.ClickException(f"{_short(shown.mountpoint)} is still mounted; first: make demo-stop")
    shown.step("bucket", lambda: shown.prepare(bucket))
    shown.step("mount", shown.mount)
    shown.step("write through the mount", shown.write)
    shown.step("read through the mount", shown.read)
    shown.step("fsdriver sync", shown.sync)
    shown.step("pandas.read_csv('tier:///sales.csv')", shown.pandas)
    shown.step("objects in the bucket", shown.objects)
    print_table(("step", "what came out", "time"), shown.rows, title="fsdriver demo")
    program = shlex.join([_short(Path(part)) for part in fsdriver()])
    click.echo(f"\nThe mount stays: ls -l {_short(shown.mountpoint)}")
    click.echo(f"Unmount:         {program} umount {_short(shown.mountpoint)}")
    if bucket == "s3":
        click.echo("and its server:  make demo-stop")


@demo.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path(".demo"))
def stop(folder: Path) -> None:
    """Unmount and stop the server."""
    shown = Demo(folder.resolve())
    if shown.is_mounted():
        try:
            _run([*fsdriver(), "umount", str(shown.mountpoint)])
        except click.ClickException as error:
            if shown.is_mounted():
                raise
            click.echo(error.message, err=True)
        click.echo(f"unmounted {_short(shown.mountpoint)}")
    if (shown.folder / "s3").exists():
        from fsdriver.testing.servers import SeaweedFS

        SeaweedFS(shown.folder / "s3").stop()
        click.echo("stopped the S3 server")


def fsdriver() -> list[str]:
    """The command of this environment."""
    return [str(Path(sys.executable).with_name("fsdriver"))]


def _run(command: list[str], **environment: str) -> str:
    """Output of a program; its own words when it fails."""
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise click.ClickException(f"{shlex.join(command[:2])} failed:\n{done.stderr or done.stdout}")
    return done.stdout.strip()


def _short(path: Path) -> str:
    """The path as one would type it here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    try:
        demo()
    except FsdriverError as error:
        click.echo(f"fsdriver: {error}", err=True)
        sys.exit(1)
