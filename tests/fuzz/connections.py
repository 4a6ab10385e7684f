"""Requests over a connection: those of the kernel, and lines on the control socket."""

from __future__ import annotations

import json
import os
import resource
import socket
import struct
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from fsdriver.config import Config
from fsdriver.engine import open_engine
from fsdriver.fuse_mount.control import ControlServer
from fsdriver.fuse_mount.filesystem import FileSystem
from fsdriver.fuse_mount.operations import bind
from fsdriver.fuse_mount.passthrough import Passthrough
from fsdriver.fuse_mount.protocol import IN_HEADER, INIT_IN, OUT_HEADER, Opcode
from fsdriver.fuse_mount.session import Session
from fsdriver.fuse_mount.synthetic import make_directory
from fsdriver.runtime import run
from tests.fuzz.case import Case
from tests.fuzz.texts import JSON

PATIENCE = 60.0
NUMBERS = st.sampled_from([0, 1, 2, 3, 4, 2**31, 2**32 - 1, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
WORDS = st.lists(NUMBERS.map(lambda number: struct.pack("<Q", number)), max_size=8).map(b"".join)
NAMES = st.sampled_from(
    [b"a\0", b"d\0", b"..\0", b".\0", b"/\0", b"\0", b"a\0b\0", b"\xff\0", b"x" * 300 + b"\0", b".fsdriver\0"]
)
BODIES = st.binary(max_size=120) | WORDS | st.builds(bytes.__add__, WORDS, NAMES) | NAMES
REQUESTS = st.tuples(st.sampled_from([*Opcode, 0, 7, 63, 64, 4096, 2**32 - 1]), NUMBERS, BODIES, st.integers(0, 3))
LARGEST_FILE = 64 << 20
"""Bytes: what a request for any size may take of this machine's disk."""
_NO_ANSWER = {Opcode.FORGET, Opcode.BATCH_FORGET}


def _message(opcode: int, unique: int, nodeid: int, body: bytes) -> bytes:
    return IN_HEADER.pack(IN_HEADER.size + len(body), opcode, unique, nodeid, 0, 0, 1, 0, 0) + body


def kernel_requests(place: Path) -> Case:
    """Any requests, whole and cut off, each followed by a good one that is answered."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, limits[1]))
    before = dict(os.environ)
    for name in ("CACHE", "STATE", "RUNTIME"):
        os.environ[f"FSDRIVER_{name}_DIR"] = str(place / name.lower())
    (place / "bucket" / "d").mkdir(parents=True)
    (place / "bucket" / "a").write_bytes(b"content")
    config = {
        "backend": {"b": {"url": f"file://{place}/bucket"}},
        "route": [{"path": "/", "tiers": ["b"], "write": "back"}],
    }
    engine = open_engine(Config.model_validate(config), write="back")
    fs = FileSystem(engine.routes, Passthrough(), make_directory({"stats.json": dict}))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    ours.settimeout(PATIENCE)
    session = Session(theirs.fileno(), bind(fs, lambda: session))
    session.begin()
    ours.send(_message(Opcode.INIT, 1, 0, INIT_IN.pack(7, 45, 1 << 20, 0, 0)))
    ours.recv(1 << 12)
    sent = 1

    def check(requests: list[tuple[int, int, bytes, int]]) -> None:
        nonlocal sent
        for opcode, nodeid, body, cut in requests:
            if opcode == Opcode.INIT:
                continue  # once, and by the kernel alone
            sent += 1
            whole = _message(opcode, sent, nodeid, body)
            ours.send(whole[: len(whole) - cut * 13] or b"?")
        sent += 1
        ours.send(_message(Opcode.GETATTR, sent, 1, bytes(16)))
        while True:
            size, error, unique = OUT_HEADER.unpack_from(answer := ours.recv(4 << 20))
            assert size == len(answer)
            assert -4096 < error <= 0
            if unique == sent:
                assert error == 0
                break
        assert not session.ended.is_set()

    def end() -> None:
        ours.close()
        assert session.ended.wait(PATIENCE)
        run(fs.open_files.close())
        fs.disk.shutdown()
        engine.close()
        theirs.close()
        os.environ.clear()
        os.environ.update(before)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    return Case(st.lists(REQUESTS, max_size=8), check, end)


COMMANDS = st.fixed_dictionaries(
    {"command": st.sampled_from(["look", "status"]) | JSON}, optional={"path": JSON, "paths": JSON, "keys": JSON}
)
LINES = (
    st.binary(max_size=60).map(lambda line: line.replace(b"\n", b""))
    | (COMMANDS | JSON).map(lambda one: json.dumps(one).encode())
    | st.sampled_from([b"[" * 100_000, b'{"a":' * 50_000, b"", b"nul", b'{"command": "status"} {}'])
)


def control_lines(place: Path) -> Case:
    """Any line is answered by one, and the next is too."""

    async def look(request: Any) -> dict[str, Any]:
        return {
            "found": [str(one).encode("utf-8", "replace").decode() for one in request["paths"]],
            "at": request["path"].strip(),
        }

    async def status(_: Any) -> dict[str, Any]:
        return {"state": "mounted"}

    path = place / "control.sock"
    server = ControlServer(path, {"look": look, "status": status})
    run(server.start())

    def check(line: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(path))
            connection.sendall(line + b'\n{"command": "status"}\n')
            with connection.makefile("rb") as stream:
                first, second = json.loads(stream.readline()), json.loads(stream.readline())
        assert first.get("ok") or first["error"]
        assert second == {"ok": True, "state": "mounted"}

    return Case(LINES, check, lambda: run(server.stop({})))


CASES = {"requests of the kernel": kernel_requests, "lines on the control socket": control_lines}
