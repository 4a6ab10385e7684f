"""From a configured route to the stack that serves it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fsdriver.attributes import META_PREFIX
from fsdriver.backends import open_backend
from fsdriver.config import PolicyConfig
from fsdriver.errors import ConfigError
from fsdriver.tiers.policy import Policy
from fsdriver.tiers.sqlite_catalog import SqliteCatalog
from fsdriver.tiers.stack import Stack
from fsdriver.tiers.tier import Tier
from fsdriver.tiers.working import Pace

if TYPE_CHECKING:
    from fsdriver.config import CatalogConfig, Config, RouteConfig
    from fsdriver.tiers.catalog import Catalog


def is_stack(route: RouteConfig) -> bool:
    """Whether a route has more than one place for its objects."""
    return len(route.tiers) + len(route.replicate) > 1


def policy_of(route: RouteConfig, config: Config) -> Policy:
    """The rules by which the files of a route move."""
    return Policy.of(config.policy.get(route.policy, PolicyConfig()), route.tiers, route.replicate)


def pace_of(route: RouteConfig, config: Config) -> Pace:
    """How much a route's files move at a time."""
    policy = config.policy.get(route.policy, PolicyConfig())
    return Pace(policy.moves, float("inf") if policy.rate is None else policy.rate, policy.sweep)


def open_catalog(config: CatalogConfig, state: Path) -> Catalog:
    """Make the catalog of stacks; nothing is asked of Redis yet.

    Parameters
    ----------
    state : Path
        Folder of this host's own, which is used unless Redis is configured.

    Raises
    ------
    ConfigError
        The client of Redis is not installed, or the database cannot be opened.
    """
    if config.url is None:
        return SqliteCatalog(state / "tiers.db")
    try:
        from fsdriver.tiers.redis_catalog import RedisCatalog  # noqa: PLC0415 - loads when it is used
    except ModuleNotFoundError as error:
        raise ConfigError("[catalog] needs the client of Redis: pip install 'fsdriver[redis]'") from error
    return RedisCatalog(config)


def open_stack(
    route: RouteConfig,
    config: Config,
    catalog: Catalog,
    scratch: Path,
    policy: Policy,
    owing: Callable[[], None] = lambda: None,
) -> Stack:
    """Make the stack of a route that has several tiers, or replicas; nothing is sent yet.

    Parameters
    ----------
    scratch : Path
        Directory for objects on their way between tiers.
    owing : callable
        Is called when something is left for the background.

    Raises
    ------
    ConfigError
        A backend cannot be opened, two tiers lie in one place, or new files cannot enter.
    """
    enter = config.policy[route.policy].enter if route.policy in config.policy else None
    names = list(dict.fromkeys([*route.tiers, *route.replicate]))
    tiers = [Tier(name, *open_backend(name, config.backend[name])) for name in names]
    return Stack(
        tiers, catalog, scratch, policy=policy, entry=enter, replicas=route.replicate, ack=route.ack,
        everywhere=META_PREFIX, owing=owing,
    )  # fmt: skip
