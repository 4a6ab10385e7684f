"""The policies of the configuration: when data moves between the tiers of a route."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, TypeAlias

from pydantic import Field

from fsdriver.config.explain import nearest
from fsdriver.config.table import Table, wrong
from fsdriver.config.values import Seconds, Size

__all__ = ["PolicyConfig", "TierPolicyConfig", "check_policy"]

Role: TypeAlias = Literal["store", "cache", "replica"]
Replication: TypeAlias = Literal["none", "high_value", "all"]


class TierPolicyConfig(Table):
    """``[policy.NAME.tier.BACKEND]``: what one tier does differently; keys that are not given are those of the policy."""

    role: Role | None = None
    """`store`: may hold the only copy of a file. `cache`: may not, a store gets one at once. `replica`: holds copies by
    replication only. By default a store, and a replica where only `replicate` of the route names it."""
    max_bytes: Size | None = None
    """Most bytes it holds; above, it gives up its coldest files until a tenth is free. Promotion leaves that tenth free."""
    max_size: Size | None = None
    """Largest file that is promoted or copied into it."""
    age_threshold: Seconds | None = None
    """Time since the last change after which a file leaves it for a colder tier."""
    idle_threshold: Seconds | None = None
    """Time since the last use after which a file leaves it for a colder tier."""
    demotion_threshold: float | None = Field(default=None, ge=0)
    """Heat below which a file leaves it for a colder tier."""
    promotion_accesses: int | None = Field(default=None, ge=1)
    """Uses from which a file that lies in colder tiers gets a copy in it."""
    promotion_threshold: float | None = Field(default=None, ge=0)
    """Heat from which a file that lies in colder tiers gets a copy in it."""
    copy_accesses: int | None = Field(default=None, ge=1)
    """Uses from which a file gets a copy in it, also one that lies in hotter tiers."""
    replication: Replication | None = None
    """Which files always have a copy in it."""


class PolicyConfig(Table):
    """``[policy.NAME]``: when data moves between tiers. What applies to one tier alone is in `[policy.NAME.tier.BACKEND]`."""

    enter: str | None = None
    """Tier that new files enter; by default the first of the route."""
    promotion_threshold: float | None = Field(default=None, ge=0)
    """Heat from which a file gets a copy in a hotter tier."""
    demotion_threshold: float | None = Field(default=None, ge=0)
    """Heat below which a file moves to a colder tier. Uses keep a file warm for ever, at 0.7 times their number to the power
    of 1.5: to move what was used often, set `idle_threshold`."""
    promotion_accesses: int | None = Field(default=None, ge=1)
    """Uses from which a file gets a copy in a hotter tier."""
    age_threshold: Seconds | None = None
    """Time since the last change after which a file moves to a colder tier."""
    idle_threshold: Seconds | None = None
    """Time since the last use after which a file moves to a colder tier."""
    max_size: Size | None = None
    """Largest file that is promoted."""
    tier_limits: dict[str, Size] = Field(default_factory=dict)
    """Most bytes in a tier, by the name of its backend: the same as `max_bytes` of its table."""
    replication: Replication = "none"
    """Which files always have a copy in every tier but the first: those hotter than `high_value`, or all."""
    high_value: float = Field(default=5.0, ge=0)
    """Heat above which a file is of high value."""
    sweep: Seconds = 300.0
    """Time between two looks at all files."""
    moves: int = Field(default=16, ge=1, le=256)
    """Files that are moved at a time."""
    rate: Size | None = None
    """Most bytes a second that moves carry, all together; by default as many as they can."""
    tier: dict[str, TierPolicyConfig] = Field(default_factory=dict)
    """What single tiers do differently, by the name of the backend."""

    def named(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Every backend that is named, and the key that names it."""
        yield from ((("tier_limits", name), name) for name in self.tier_limits)
        yield from ((("tier", name), name) for name in self.tier)
        if self.enter is not None:
            yield ("enter",), self.enter


def check_policy(
    name: str, policy: PolicyConfig, backends: Iterable[str], routes: Iterable[tuple[Sequence[str], Sequence[str]]]
) -> None:
    """See that a policy says nothing that cannot be.

    Parameters
    ----------
    backends : iterable of str
        Names of all of them.
    routes : iterable of tuples
        Of each route with this policy, the names of its tiers and of its replicas.

    Raises
    ------
    PydanticCustomError
        It names a backend that does not exist or is in no route with this policy, or contradicts itself.
    """
    known, routes = set(backends), list(routes)
    used = [{*tiers, *replicas} for tiers, replicas in routes]
    for steps, backend in policy.named():
        where = ("policy", name, *steps)
        if backend not in known:
            raise wrong(where, f"there is no backend {backend!r}{nearest(backend, known)}")
        if used and not any(backend in route for route in used):
            raise wrong(
                where, f"{backend!r} is a tier of no route with this policy{nearest(backend, set().union(*used))}"
            )
    if policy.enter is not None and not all(policy.enter in route for route in used):
        raise wrong(("policy", name, "enter"), f"{policy.enter!r} is not a tier of every route with this policy")
    for tiers, _ in routes:
        roles = [policy.tier[tier].role or "store" for tier in tiers if tier in policy.tier]
        if len(roles) == len(tiers) and "store" not in roles:
            raise wrong(
                ("policy", name, "tier", tiers[-1], "role"),
                'no tier of a route may hold the only copy of a file; give one of them role = "store"',
            )
    for backend, own in policy.tier.items():
        if own.max_bytes is not None and backend in policy.tier_limits:
            raise wrong(
                ("policy", name, "tier", backend, "max_bytes"), "tier_limits names this tier too; give its limit once"
            )
    for steps, own in _tables(policy):
        low, high = (_either(own, policy, key) for key in ("demotion_threshold", "promotion_threshold"))
        if low is not None and high is not None and low >= high:
            raise wrong(
                ("policy", name, *steps, "demotion_threshold"),
                f"{low:g} is not below the promotion_threshold, {high:g}: files would move up and down for ever",
            )


def _tables(policy: PolicyConfig) -> Iterator[tuple[tuple[str, ...], TierPolicyConfig]]:
    yield (), TierPolicyConfig()
    for name, own in policy.tier.items():
        yield ("tier", name), own


def _either(own: TierPolicyConfig, policy: PolicyConfig, key: str) -> Any:
    """The value for a tier: its own, else the policy's."""
    value = getattr(own, key)
    return getattr(policy, key) if value is None else value
