"""Finds, merges and validates the configuration."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from fsdriver.config.explain import Source, explain_model, explain_syntax, nearest
from fsdriver.config.models import BackendConfig, CacheConfig, Config, RouteConfig
from fsdriver.config.storage import StorageTable, translate
from fsdriver.errors import ConfigError

SYSTEM_DIRECTORY: Final = Path("/etc/fsdriver")
OVERRIDE: Final = "FSDRIVER__"
DEFAULT_BACKEND: Final = "default"


def find_config(explicit: Path | None = None, environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Files to read: the one given, else ``$FSDRIVER_CONFIG``, else the user's, else ``/etc/fsdriver/*.toml``.

    The first that exists is taken alone; only the files of ``/etc/fsdriver`` are merged, in the order of their names.
    An empty list means that nothing is configured.

    Raises
    ------
    ConfigError
        The file given, or the one in ``$FSDRIVER_CONFIG``, does not exist.
    """
    for path, origin in ((explicit, "--config"), (_path(environ.get("FSDRIVER_CONFIG")), "FSDRIVER_CONFIG")):
        if path is not None:
            if path.is_dir():
                raise ConfigError(f"this is a directory, no configuration file; it was named by {origin}", str(path))
            if not path.is_file():
                raise ConfigError(f"there is no such configuration file; it was named by {origin}", str(path))
            return [path]
    home = _path(environ.get("XDG_CONFIG_HOME")) or Path(environ.get("HOME") or Path.home()) / ".config"
    user = home / "fsdriver" / "config.toml"
    return [user] if user.is_file() else sorted(SYSTEM_DIRECTORY.glob("*.toml"))


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """The configuration of this user and environment.

    Tables of several files are merged key by key, later files winning; their routes are put one after the other.
    ``FSDRIVER__CACHE__SIZE=…`` overrides any scalar key (``__`` between its parts, routes by number:
    ``FSDRIVER__ROUTE__0__TTL``); ``FSDRIVER_CACHE_DIR`` sets ``cache.dir``.

    Parameters
    ----------
    path : Path, optional
        Read this file only; by default what `find_config` finds.

    Raises
    ------
    ConfigError
        A file is missing, unreadable or wrong; the message names file, line, key and the nearest valid name.
    """
    data: dict[str, Any] = {}
    sources: list[Source] = []
    for file in find_config(path, environ):
        text = _read(file)
        try:
            table = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # numbers of any length and depth are no TOMLDecodeError
            raise explain_syntax(file, error) from None
        source = Source(str(file), text, first_route=len(data.get("route", ())))
        try:
            table = translate(table)
        except ValidationError as error:
            raise explain_model(error, StorageTable, [source], prefix=("storage",)) from None
        data = _merge(data, table)
        sources.append(source)
    data = _override(data, environ, sources)
    return _validate(data, sources)


def from_url(url: str, options: Mapping[str, str] | None = None, base: Config | None = None) -> Config:
    """A URL alone as a whole tree: one backend ``default`` and one route ``/`` over it.

    Parameters
    ----------
    url : str
        E.g. ``s3://bucket/prefix``; a plain path is ``file://``.
    options : mapping of str to str
        Keys of a route, a backend or the cache (``ttl``, ``region``, ``cache.size``); a dot leads into a table
        (``secret_access_key.env``, ``storage_options.token``); an empty value means true, for what is true or
        false.
    base : Config, optional
        Supplies cache, catalog and policies.

    Raises
    ------
    ConfigError
        The URL has no scheme, or an option is unknown or wrong.
    """
    data: dict[str, Any] = {
        "cache": base.cache.model_dump(exclude_unset=True) if base else {},
        "catalog": base.catalog.model_dump(exclude_unset=True) if base else {},
        "backend": {DEFAULT_BACKEND: {"url": url}},
        "route": [{"path": "/", "tiers": [DEFAULT_BACKEND]}],
        "policy": {name: policy.model_dump(exclude_unset=True) for name, policy in base.policy.items()} if base else {},
    }
    for key, value in (options or {}).items():
        table, name, model = _owner(key, data)
        if (
            value == ""
            and name in model.model_fields
            and model.model_fields[name].annotation not in {bool, bool | None}
        ):
            raise ConfigError(f"this option needs a value; write {key}=VALUE", key)
        *parents, last = name.split(".")
        for parent in parents:
            table = table.setdefault(parent, {})
        table[last] = value if value != "" else "true"
    return _validate(data, [Source(_without_password(url))])


def _without_password(url: str) -> str:
    """The URL as messages show it: one that holds a password is refused, and must not be shown with it."""
    scheme, mark, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    user, at, bucket = host.rpartition("@")
    return f"{scheme}{mark}{'***' if user else ''}{at}{bucket}{slash}{path}"


def option_keys() -> frozenset[str]:
    """First parts of the names that `from_url` takes as options."""
    return frozenset(
        {*RouteConfig.model_fields, *BackendConfig.model_fields, *CacheConfig.model_fields} - {"path", "tiers", "url"}
    )


def _owner(key: str, data: dict[str, Any]) -> tuple[dict[str, Any], str, type[BaseModel]]:
    tables: tuple[tuple[str, type[BaseModel], dict[str, Any]], ...] = (
        ("route", RouteConfig, data["route"][0]),
        ("backend", BackendConfig, data["backend"][DEFAULT_BACKEND]),
        ("cache", CacheConfig, data["cache"]),
    )
    first, _, rest = key.partition(".")
    for name, model, table in tables:
        if first == name and rest:
            return table, rest, model
        if first in model.model_fields and first in option_keys():
            return table, key, model
    raise ConfigError(f"unknown option{nearest(first, option_keys())}", key)


def _path(value: str | None) -> Path | None:
    return Path(value).expanduser() if value else None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"this is not UTF-8 text (byte {error.start}); TOML files are", str(file)) from None
    except OSError as error:
        raise ConfigError(f"this configuration file cannot be read: {error.strerror}", str(file)) from error


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    result = dict(under)
    for key, value in over.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            result[key] = _merge(old, value)
        elif key == "route" and isinstance(old, list) and isinstance(value, list):
            result[key] = old + value
        else:
            result[key] = value
    return result


def _override(data: dict[str, Any], environ: Mapping[str, str], sources: list[Source]) -> dict[str, Any]:
    changes = {name: value for name, value in environ.items() if name.startswith(OVERRIDE)}
    if environ.get("FSDRIVER_CACHE_DIR"):
        changes = {f"{OVERRIDE}CACHE__DIR": environ["FSDRIVER_CACHE_DIR"], **changes}
    for variable, value in sorted(changes.items()):
        steps = [step.lower() for step in variable.removeprefix(OVERRIDE).split("__")]
        data = _set(data, steps, value, variable)
        sources.append(Source(f"environment variable {variable}", _toml_shape(steps), numbered=False))
    return data


def _set(table: Any, steps: list[str], value: str, variable: str) -> Any:
    """A copy of ``table`` with one value replaced; names match without regard to case, ``_`` also stands for ``-``."""
    step, *rest = steps
    if isinstance(table, list):
        if not step.isdecimal() or int(step) >= len(table):
            raise ConfigError(f"there is no number {step!r}; {len(table)} are configured, counted from 0", variable)
        return [_set(item, rest, value, variable) if i == int(step) and rest else item for i, item in enumerate(table)]
    if not isinstance(table, dict):
        raise ConfigError(f"{step!r} leads into a value that is no table", variable)
    name = next((key for key in table if key.lower().replace("-", "_") == step), step)
    return {**table, name: _set(table.get(name, {}), rest, value, variable) if rest else value}


def _toml_shape(steps: list[str]) -> str:
    return f"[{'.'.join(steps[:-1])}]\n{steps[-1]} =" if len(steps) > 1 else f"{steps[0]} ="


def _validate(data: dict[str, Any], sources: list[Source]) -> Config:
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise explain_model(error, Config, sources) from None
