"""The records of attributes that attribute objects still lack, one row a name of the catalog."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from fsdriver.names import escape, unescape
from fsdriver.writeback.catalog import Catalog
from fsdriver.writeback.pending import AttributeChange, read_record

_OF_DIRECTORY = "store=? AND root=? AND directory=?"
_OF_NAME = f"{_OF_DIRECTORY} AND name=?"


class AttributeRows:
    """See the module.

    Parameters
    ----------
    catalog : Catalog
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def of_directory(self, store: str, root: str, directory: str) -> Mapping[str, AttributeChange]:
        """Records that one attribute object still lacks, by name."""
        found = self._catalog.rows(
            f"SELECT name, record, seq FROM attributes WHERE {_OF_DIRECTORY}", (store, root, escape(directory))
        )
        changes = (
            AttributeChange(store, root, directory, unescape(name), read_record(record), seq)
            for name, record, seq in found
        )
        return {change.name: change for change in changes}

    def of_name(self, store: str, root: str, directory: str, name: str) -> AttributeChange | None:
        """The record of one name that an attribute object still lacks."""
        found = self._catalog.rows(
            f"SELECT record, seq FROM attributes WHERE {_OF_NAME}", (store, root, escape(directory), escape(name))
        )
        return next(
            (AttributeChange(store, root, directory, name, read_record(record), seq) for record, seq in found), None
        )

    def owed(self, store: str, root: str, directory: str, name: str | None = None) -> bool:
        """Whether an attribute object lacks anything (of one name)."""
        values = (store, root, escape(directory), *(() if name is None else (escape(name),)))
        where = _OF_DIRECTORY if name is None else _OF_NAME
        return self._catalog.exists(f"SELECT 1 FROM attributes WHERE {where} LIMIT 1", values)

    def directories(self, store: str) -> Sequence[tuple[str, str]]:
        """(root, directory) of every attribute object that lacks something."""
        found = self._catalog.rows("SELECT DISTINCT root, directory FROM attributes WHERE store=?", (store,))
        return [(root, unescape(directory)) for root, directory in found]

    def count(self, store: str) -> int:
        """How many attribute objects of a store lack something."""
        return len(self.directories(store))

    def write(self, changes: Iterable[AttributeChange]) -> None:
        """Set records that attribute objects lack."""
        with self._catalog.transaction():
            seq = self._catalog.next_seq()
            self._catalog.change_many(
                "INSERT OR REPLACE INTO attributes (store, root, directory, name, seq, record) VALUES (?,?,?,?,?,?)",
                [
                    (
                        c.store,
                        c.root,
                        escape(c.directory),
                        escape(c.name),
                        seq,
                        json.dumps(c.record) if c.record else None,
                    )
                    for c in changes
                ],
            )

    def finish(self, changes: Iterable[AttributeChange]) -> None:
        """These records are on the bucket; those that changed meanwhile stay."""
        self._catalog.change_many(
            f"DELETE FROM attributes WHERE {_OF_NAME} AND seq=?",
            [(c.store, c.root, escape(c.directory), escape(c.name), c.seq) for c in changes],
        )

    def drop(self, store: str, root: str, directory: str) -> None:
        """The directory is gone: owe nothing for its attribute object."""
        self._catalog.change(f"DELETE FROM attributes WHERE {_OF_DIRECTORY}", (store, root, escape(directory)))
