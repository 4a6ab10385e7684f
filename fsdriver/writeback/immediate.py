"""Carrying out one small row in the thread that waits for it, without the event loop."""

from __future__ import annotations

import logging
import os
from dataclasses import replace

from fsdriver.backends.base import ABSENT
from fsdriver.writeback.outgoing import INLINE, MovedAway, Outgoing, Sent
from fsdriver.writeback.pending import Action, Pending
from fsdriver.writeback.staging import signature

log = logging.getLogger(__name__)


class ImmediateSender:
    """Sends small rows to one store whose requests need no event loop (`Backend.immediate`).

    Parameters
    ----------
    outgoing : Outgoing
    """

    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing
        self._backend = outgoing.backend
        self._counters = outgoing.counters

    def is_small(self, row: Pending) -> bool:
        """Whether `send` may do."""
        return not row.key.endswith("/") and (row.action is not Action.PUT or row.size <= INLINE)

    def send(self, row: Pending) -> Sent | None:
        """Carry a small row out in this thread, in one attempt; None: `Sender.send` has to, and it may have been done."""
        try:
            if self._outgoing.is_blind(row):
                if row.action is not Action.PUT:
                    return None
                row = replace(row, base=ABSENT)  # most likely; else the event loop asks what is there
            if row.action is Action.DELETE:
                return self._delete(row)
            if row.action is Action.COPY:
                return self._copy(row)
            return self._put(row) if row.action is Action.PUT and row.size <= INLINE else None
        except Exception as error:  # noqa: BLE001 - the event loop meets it again, and knows what to do
            log.debug("%s: not sent at once: %r", row.path, error)
            return None

    def _delete(self, row: Pending) -> Sent | None:
        if not self._backend.delete_now(row.key, row.base or None):
            return None
        self._counters.deleted += 1
        return Sent(row, ABSENT, None)

    def _copy(self, row: Pending) -> Sent | None:
        if row.source is None or row.source_version is None or row.source == row.key:
            return None
        info = self._backend.copy_now(row.size, row.source, row.key, row.source_version, row.base)
        if info is None:
            return None
        self._counters.copied += 1
        return Sent(row, info.version, None)

    def _put(self, row: Pending) -> Sent | None:
        metadata = self._outgoing.metadata(row)
        if row.staging is None:
            info = self._backend.put_now(row.key, b"", metadata, row.base)
            return None if info is None else Sent(row, info.version, None, self._outgoing.carries(row))
        descriptor = os.open(row.staging, os.O_RDONLY | os.O_CLOEXEC)
        try:
            before = signature(descriptor)
            self._outgoing.must_stand(row)
            data = self._outgoing.one_state(row.staging, descriptor, before)
            self._outgoing.journal.sums.compare(row, descriptor, before, data)
            info = self._backend.put_now(row.key, data, metadata, row.base)
            if info is None:
                return None
            self._counters.uploaded += 1
            self._counters.bytes += len(data)
            if signature(descriptor) != before:
                self._outgoing.send_again(row, os.fstat(descriptor).st_size)
            return Sent(row, info.version, before, self._outgoing.carries(row))
        except MovedAway:
            return None
        finally:
            os.close(descriptor)
