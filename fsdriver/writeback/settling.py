"""Writing down what came of rows that were carried out: in the journal, in what is remembered, in the cache."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from fsdriver import names
from fsdriver.attributes import CARRIED
from fsdriver.backends.base import ABSENT
from fsdriver.writeback.flushing import AttributeStore
from fsdriver.writeback.journal import Journal
from fsdriver.writeback.outgoing import Conflict, Sent, UploadCounters
from fsdriver.writeback.pending import Action, AttributeChange, Pending
from fsdriver.writeback.sealing import Sealer
from fsdriver.writeback.staging import Staging, origin_of

log = logging.getLogger(__name__)


class Settler:
    """See the module.

    Parameters
    ----------
    journal : Journal
    staging : Staging
    sealer : Sealer
    counters : UploadCounters
    routes : mapping
        By key prefix, those of this process.
    on_done : callable
        Called as ``on_done(row, version)`` after a key was carried out; version "" when it was deleted.
    on_conflict : callable
        Called as ``on_conflict(row)`` after a foreign writer won.
    """

    def __init__(
        self,
        journal: Journal,
        staging: Staging,
        sealer: Sealer,
        counters: UploadCounters,
        routes: Mapping[str, AttributeStore],
        on_done: Callable[[Pending, str], None],
        on_conflict: Callable[[Pending], None],
    ) -> None:
        self._journal = journal
        self._staging = staging
        self._sealer = sealer
        self._counters = counters
        self._routes = routes
        self._on_done = on_done
        self._on_conflict = on_conflict

    def settle(self, sent: Sequence[Sent]) -> int:
        """Write down what was sent: one step for whoever reads names, one transaction for each route.

        Returns
        -------
        int
            How many of the keys are owed nothing more.
        """
        by_root: dict[str, list[Sent]] = {}
        for one in sent:
            by_root.setdefault(one.row.root, []).append(one)
        count = 0
        for root, several in by_root.items():
            route = self._routes.get(root)
            with route.memory.lock if route is not None else contextlib.nullcontext():
                # The rows are gone, the bytes are in the cache, and what is remembered has the version.
                ended = self._write_down(several, route)
                self._sealer.seal_sent(ended)
                for one in ended:
                    self._on_done(one.row, one.version)
                count += len(ended)
        return count

    def give_up(self, row: Pending, stored: str | None) -> None:
        """The row was replaced, and its upload cut off: what stands in its place now goes by what the store has."""
        with self._journal.transaction():
            self._journal.finish(row, stored)
            current = self._journal.get(row.store, row.key)
            if current is not None and current.action is Action.DELETE and stored == ABSENT:
                self._journal.forget(row.store, row.key)

    def conflict(self, row: Pending, *, source_stands: bool) -> str:
        """A foreign writer won: keep our bytes under a name of their own, and let the foreign version show.

        Returns
        -------
        str
            What became of it, to be told to who waits.
        """
        self._counters.conflicts += 1
        kept = ""
        with self._journal.transaction():
            # What was written since the losing request began is the state to keep.
            row = self._journal.get(row.store, row.key) or row
            self._journal.forget(row.store, row.key)
            if row.action is Action.COPY and not source_stands:
                row = self._sealer.from_cache(row)
            if row.action is Action.COPY or row.staging is not None:
                kept = self._keep_as(row)
        self._counters.lost.append(Conflict(row.path, row.root, kept, time.time()))
        outcome = f"the bytes written here are kept as {kept}" if kept else "that version stands"
        log.error("%s was changed by another writer first; %s", row.path, outcome)
        self._on_conflict(row)
        return outcome

    def _keep_as(self, row: Pending) -> str:
        """Journal the bytes of a row under a name nobody else has; returns that path."""
        suffix = f".conflict-{socket.gethostname()}-{time.strftime('%Y%m%dT%H%M%S')}-{row.seq}"
        kept = names.beside(row.path, suffix)
        key = names.to_key(kept, f"{row.root}/" if row.root else "")
        self._journal.write(replace(row, key=key, path=kept, base=ABSENT, inflight=False, held=False))
        return kept

    def _write_down(self, sent: list[Sent], route: AttributeStore | None) -> list[Sent]:
        """Take what was sent from the journal, and owe its attributes; what is owed anew is left out of the result."""
        ended: list[Sent] = []
        changes: dict[tuple[str, str], AttributeChange] = {}
        synced = [one.row.staging for one in sent if one.row.staging and self._journal.is_synced(one.row.staging)]
        with self._journal.transaction():
            for one in sent:
                row, opened = one.row, self._staging.opened(one.row.staging) if one.row.staging else None
                if opened is not None and one.signature is not None:
                    opened.uploaded = one.signature
                    opened.versions[row.key] = one.version
                if opened is None and row.staging and self._staging.is_open(row.staging):
                    self._journal.tell_writer(row.staging, row.key, one.version)
                last = self._journal.finish(row, one.version)
                # A row of a file that was opened for writing meanwhile may stand for a frozen copy by now.
                staging = row.staging if last is None else last.staging
                begun = self._staging.began_with(
                    staging if row.source is None else origin_of(row.source, row.source_version)
                )
                if begun is not None:
                    begun.versions[row.key] = one.version
                if last is None:
                    continue
                ended.append(replace(one, row=last))
                if last.record is None or not last.kept or last.action not in (Action.PUT, Action.COPY):
                    continue
                directory, _, name = last.path.rpartition("/")
                record = last.record | {"etag": one.version}
                if one.carried and last.record == row.record:
                    record[CARRIED] = True
                changes[directory, name] = AttributeChange(last.store, last.root, directory, name, record)
                own = route.own_record(directory) if route is not None and (directory, "") not in changes else None
                if own is not None:
                    changes[directory, ""] = AttributeChange(last.store, last.root, directory, "", own)
            self._journal.attributes.write(changes.values())
        if synced:
            # They are moved into the cache now: after a power failure no row may ask for them any more.
            self._journal.make_durable()
            for path in synced:
                if not self._journal.uses(path):
                    self._journal.forget_synced(path)
        return ended
