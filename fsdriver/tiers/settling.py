"""What a catalog's record becomes in the light of what the tiers hold. Pure: nothing is asked, nothing is changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from fsdriver.backends.model import ObjectInfo
from fsdriver.tiers.records import UNASKED, Copy, CopyState, Record
from fsdriver.tiers.tier import NO_VERSION, modified_ns, version_of


def agrees(record: Record | None, found: Mapping[str, ObjectInfo], unreached: Collection[str]) -> bool:
    """Whether a record says of an object just what the tiers that could be asked hold."""
    if record is None:
        return not found
    if record.key.endswith("/"):
        return record.copies.keys() - set(unreached) == found.keys()
    known = {tier: copy.version for tier, copy in record.copies.items() if tier not in unreached}
    return known == {tier: info.version for tier, info in found.items()}


def adopted(key: str, tier: str, info: ObjectInfo, unreached: Collection[str]) -> Record:
    """The record of an object that one tier holds and nothing was known of."""
    copies = {name: unasked() for name in unreached} | {tier: Copy(info.version)}
    return Record(key, version_of(info), info.size, modified_ns(info), copies)


def unasked() -> Copy:
    """What stands for an object that a tier may have, and that is older than what is known."""
    return Copy(UNASKED, CopyState.SHADOWED)


def settle(
    key: str, record: Record | None, found: Mapping[str, ObjectInfo], unreached: Collection[str]
) -> Record | None:
    """The record as it has to be; None: nothing is known any more.

    What somebody else wrote to a tier since it was last asked is the object from then on; so is the newest, where nothing is
    known. Times say less than that: programs set them. Copies of other versions are shadowed: nobody has proven that they are
    not needed, so they go only with the object.

    Parameters
    ----------
    found : mapping of str to ObjectInfo
        What each tier that could be asked holds, with user metadata.
    unreached : collection of str
        Tiers that could not be asked: what is known of them stands.
    """
    if key.endswith("/"):
        return _marker(key, record, found, unreached)
    kept, others = _sorted_out(record, found, unreached)
    winner = _winner(record, others)
    if winner is None and record is not None and not record.removed and not _stands(record, kept, others):
        # Its copies have gone, by somebody else's hand: what they shadowed shows again.
        others |= {tier: found[tier] for tier in kept if kept[tier].state is CopyState.SHADOWED and tier in found}
        kept = {tier: copy for tier, copy in kept.items() if tier not in others}
        winner = max(others, key=lambda tier: modified_ns(others[tier]), default=None)
    if winner is None:
        return _without_foreign(record, kept, others)
    copies = {
        tier: copy if copy.state is CopyState.OWED else replace(copy, state=CopyState.SHADOWED)
        for tier, copy in kept.items()
    }
    best = others[winner]
    for tier, info in others.items():
        state = CopyState.GOOD if _same(info, best) else CopyState.SHADOWED
        copies[tier] = Copy(info.version, state)
    return Record(
        key, version_of(best), best.size, modified_ns(best), copies, pin=record.pin if record else None
    )  # fmt: skip


def _marker(
    key: str, record: Record | None, found: Mapping[str, ObjectInfo], unreached: Collection[str]
) -> Record | None:
    """Of a directory: it is nothing but there, in any number of tiers; what its version is says nothing."""
    before = record.copies if record is not None else {}
    copies = {tier: copy for tier, copy in before.items() if tier in unreached}
    for tier, info in found.items():
        owed = tier in before and before[tier].state is CopyState.OWED
        copies[tier] = Copy(info.version, CopyState.OWED if owed else CopyState.GOOD)
    live = [tier for tier, copy in copies.items() if copy.state is CopyState.GOOD]
    if record is not None:
        version = (record.version or copies[live[0]].version or NO_VERSION) if live else ""
        return replace(record, version=version, copies=copies)
    if not live:
        return None
    first = found[live[0]]
    return Record(key, version_of(first), 0, modified_ns(first), copies)


def _sorted_out(
    record: Record | None, found: Mapping[str, ObjectInfo], unreached: Collection[str]
) -> tuple[dict[str, Copy], dict[str, ObjectInfo]]:
    """Copies that are as they are known, and what is found besides."""
    kept: dict[str, Copy] = {}
    others: dict[str, ObjectInfo] = dict(found)
    for tier, copy in record.copies.items() if record else ():
        if tier in unreached:
            kept[tier] = copy
        elif tier in found and found[tier].version == copy.version:
            kept[tier] = copy
            del others[tier]
    return kept, others


def _winner(record: Record | None, others: Mapping[str, ObjectInfo]) -> str | None:
    """The tier whose object is newer than the version we know; None: none is."""
    if not others:
        return None
    older = {tier for tier, copy in record.copies.items() if copy.version == UNASKED} if record is not None else set()
    newer = [
        tier
        for tier, info in others.items()
        if tier not in older and (record is None or record.removed or not _is_of(record, info))
    ]
    return max(newer, key=lambda tier: modified_ns(others[tier]), default=None)


def _without_foreign(record: Record | None, kept: dict[str, Copy], others: Mapping[str, ObjectInfo]) -> Record | None:
    """No other version won: copies that have gone are dropped, others join or are shadowed."""
    if record is None:
        return None
    for tier, info in others.items():
        older = CopyState.OWED if record.removed else CopyState.SHADOWED
        kept[tier] = Copy(info.version, CopyState.GOOD if _is_of(record, info) else older)
    if not record.removed and not any(copy.state is not CopyState.OWED for copy in kept.values()):
        return replace(record, version="", copies=kept)
    return replace(record, copies=kept)


def _stands(record: Record, kept: Mapping[str, Copy], others: Mapping[str, ObjectInfo]) -> bool:
    """Something is left of the version we know, if only a corrupt copy."""
    known = {CopyState.GOOD, CopyState.CORRUPT}
    return any(copy.state in known for copy in kept.values()) or any(_is_of(record, info) for info in others.values())


def _is_of(record: Record, info: ObjectInfo) -> bool:
    """A copy of the record's version that the catalog did not know: its maker died before it could say so."""
    return version_of(info) == record.version and info.size == record.size


def _same(info: ObjectInfo, other: ObjectInfo) -> bool:
    return version_of(info) == version_of(other) and info.size == other.size
