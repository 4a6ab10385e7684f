"""The catalog of stacks: the interface that SQLite (one host) and Redis (several) implement.

It can be lost: `fsdriver.tiers.rebuilding` makes a new one from the tiers. Nothing here waits for a store. Methods are coroutines
because Redis is asked over the network; SQLite answers in the calling thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass

from fsdriver.tiers.records import Move, Record


@dataclass(frozen=True, slots=True)
class Holdings:
    """What one tier of a stack holds in good copies."""

    objects: int
    bytes: int


class Catalog(ABC):
    """Records and moves of all stacks of a host, or of several hosts. A move is told from others by key, version and target.

    A stack is named by its `identity`, a text. Keys are any texts, also with surrogates (as `os.fsdecode` makes them).
    """

    @abstractmethod
    async def get(self, stack: str, key: str) -> Record | None:
        """The record of one object; None: nothing is known of it."""

    @abstractmethod
    async def get_many(self, stack: str, keys: Sequence[str]) -> dict[str, Record]:
        """The records of some objects, by key."""

    @abstractmethod
    async def swap(
        self, stack: str, record: Record, serial: int, moves: Sequence[Move] = (), done: Move | None = None
    ) -> Record | None:
        """Make ``record`` the one of its key if its serial is still ``serial`` (0: there is none), in one step.

        Parameters
        ----------
        moves : sequence of Move
            Are owed from the same moment on.
        done : Move, optional
            A move that is done with it.

        Returns
        -------
        Record or None
            It with its new serial; None: somebody was faster, nothing was changed. A record without a version and without copies
            is removed. Uses are kept from the record before, if there is one.
        """

    @abstractmethod
    async def adopt(self, stack: str, records: Sequence[Record]) -> None:
        """Add records of objects that nothing is known of; those of known keys are left as they are."""

    @abstractmethod
    def of_directory(self, stack: str, directory: str) -> AsyncGenerator[Record]:
        """Records of keys directly below a directory key (``""`` or ending in ``/``), by key, removed ones among them."""

    @abstractmethod
    def below(self, stack: str, prefix: str, after: str = "") -> AsyncGenerator[Record]:
        """All records whose keys begin with ``prefix`` and come after ``after``, by key, streamed."""

    @abstractmethod
    async def note_uses(self, stack: str, uses: Mapping[str, tuple[int, float]]) -> None:
        """Add uses: by key how many, and when the last was (`time.time`). Those of unknown keys are dropped."""

    @abstractmethod
    async def holdings(self, stack: str) -> dict[str, Holdings]:
        """What each tier holds, by its name; kept up to date, not counted."""

    @abstractmethod
    async def owe(self, stack: str, moves: Sequence[Move]) -> int:
        """Add moves, of which one that is owed already (same key, version, target) is not added again; how many are new."""

    @abstractmethod
    async def claim_moves(self, stack: str, owner: str, now: float, limit: int) -> list[Move]:
        """Moves that may be tried at ``now`` and that no living owner works on, oldest first; they are then ``owner``'s."""

    @abstractmethod
    async def end_move(self, stack: str, move: Move) -> None:
        """A move is done, or has become pointless."""

    @abstractmethod
    async def fail_move(self, stack: str, move: Move) -> None:
        """Give a move back, with its ``failures``, ``not_before`` and ``error``."""

    @abstractmethod
    def moves(self, stack: str, key: str | None = None) -> AsyncGenerator[Move]:
        """What is owed, of one key or of all."""

    @abstractmethod
    def owing_removals(self, stack: str) -> AsyncGenerator[Record]:
        """Records with copies that have to go."""

    @abstractmethod
    async def forget(self, stack: str) -> None:
        """Drop everything known of a stack: before it is rebuilt from its tiers."""

    @abstractmethod
    async def close(self) -> None:
        """Release files and connections."""
