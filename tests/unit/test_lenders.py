"""Asking daemons of other users for files they have cached."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fsdriver.cache import LocalFile, ObjectKey, passing
from fsdriver.notify import socket_address
from fsdriver.routes import lenders
from fsdriver.routes.lenders import LISTED_FOR, Lenders
from fsdriver.runtime import run
from tests.clock import Clock

KEY = ObjectKey("s3|there|bucket", "a/b", "v1", 7)


OF_ANOTHER_USER = """
import os, socket, sys
os.setuid(65534)
listener = socket.socket(fileno=int(sys.argv[1]))
listener.listen()
print("listening", flush=True)
sys.stdin.readline()
print(listener.accept()[0].recv(int(sys.argv[2])))
"""
"""Shows what it was asked."""


@contextlib.contextmanager
def bound(directory: Path, store: str = KEY.store) -> Iterator[socket.socket]:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        socket_address(directory / passing.socket_name("mount-1", store)) as address,
    ):
        listener.bind(address)
        yield listener


@contextlib.contextmanager
def listening(directory: Path, store: str = KEY.store) -> Iterator[socket.socket]:
    with bound(directory, store) as listener:
        listener.listen()
        listener.settimeout(30)
        yield listener


@contextlib.contextmanager
def answering(directory: Path, answer: Callable[[socket.socket, ObjectKey], object]) -> Iterator[list[ObjectKey]]:
    """A daemon in this process; the questions it got."""
    asked: list[ObjectKey] = []

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                message = connection.recv(passing.LONGEST)
                if message == b"end":
                    return
                asked.append(passing.parse(message))
                answer(connection, asked[-1])

    with listening(directory) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as last,
            socket_address(directory / passing.socket_name("mount-1", KEY.store)) as address,
        ):
            last.connect(address)
            last.send(b"end")
        thread.join()


@pytest.fixture
def content(tmp_path: Path) -> LocalFile:
    (tmp_path / "f").write_bytes(b"content")
    return LocalFile(os.open(tmp_path / "f", os.O_RDONLY))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "shared"
    made.mkdir()
    return made


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy this machine is."""
    monkeypatch.setattr(lenders, "PATIENCE", 30)


def test_a_file_is_borrowed(directory: Path, content: LocalFile) -> None:
    with answering(directory, lambda connection, _: passing.send(connection, content)) as asked:
        file = run(Lenders([directory]).borrow(KEY))
    assert asked == [KEY]
    assert file is not None
    assert file.read(0, 7) == b"content"


def test_no_is_no_reason_to_stop_asking(directory: Path) -> None:
    asking = Lenders([directory])
    with answering(directory, lambda connection, _: passing.send(connection, None)) as asked:
        assert run(asking.borrow(KEY)) is None
        assert run(asking.borrow(KEY)) is None
    assert asked == [KEY, KEY]


def test_daemons_of_other_stores_are_not_asked(directory: Path) -> None:
    with listening(directory, "another store"):
        assert not Lenders([directory]).offering(KEY.store)


def test_a_file_of_another_size_is_not_taken(directory: Path, content: LocalFile) -> None:
    key = ObjectKey(KEY.store, KEY.key, KEY.version, 8)
    asking = Lenders([directory])
    with answering(directory, lambda connection, _: passing.send(connection, content)) as asked:
        assert run(asking.borrow(key)) is None
        assert run(asking.borrow(key)) is None
    assert asked == [key]


def test_a_daemon_that_hangs_is_left_out_until_the_next_look(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lenders, "PATIENCE", 0.05)
    clock = Clock()
    asking = Lenders([directory], clock)
    with listening(directory) as daemon:
        assert run(asking.borrow(KEY)) is None
        assert not asking.offering(KEY.store)
        clock.now += LISTED_FOR
        assert asking.offering(KEY.store)
        daemon.accept()[0].close()


def test_a_daemon_that_has_died_is_no_error(directory: Path) -> None:
    with listening(directory):
        pass
    assert run(Lenders([directory]).borrow(KEY)) is None


def test_daemons_are_looked_for_rarely(directory: Path) -> None:
    clock = Clock()
    asking = Lenders([directory, directory / "missing"], clock)
    assert not asking.offering(KEY.store)
    with listening(directory):
        assert not asking.offering(KEY.store)
        clock.now += LISTED_FOR
        assert asking.offering(KEY.store)


def test_an_ordinary_user_is_not_trusted(directory: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    with bound(directory) as listener:
        # Who listens is who the kernel names.
        command = [sys.executable, "-c", OF_ANOTHER_USER, str(listener.fileno()), str(passing.LONGEST)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(command, pass_fds=[listener.fileno()], text=True, **pipes) as other:
            assert other.stdout.readline() == "listening\n"
            assert run(Lenders([directory]).borrow(KEY)) is None
            out, _ = other.communicate("go on\n", timeout=30)
    assert out == "b''\n"
