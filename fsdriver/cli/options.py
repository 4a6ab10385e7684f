"""``-o name=value,…`` as mount(8) writes it, and the configuration that URL, file and options make together."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from fsdriver.errors import ConfigError

if TYPE_CHECKING:
    from fsdriver.config import Config
    from fsdriver.fuse_mount.options import MountOptions

_SECRETS: Final = frozenset(
    {"access_key_id", "secret_access_key", "session_token", "encryption_key", "decryption_keys", "cache.encryption_key"}
)
_SEPARATOR: Final = re.compile(r"(?<!\\),")


def parse_options(texts: Iterable[str]) -> dict[str, str]:
    r"""Names and values of all ``-o``; a comma inside a value is written ``\,``, a name alone has the value ``""``."""
    result: dict[str, str] = {}
    for text in texts:
        for item in _SEPARATOR.split(text):
            name, _, value = item.strip().partition("=")
            if not name and value:
                raise ConfigError("an option has no name; write NAME=VALUE", item.strip())
            if name:
                result[name] = value.replace("\\,", ",")
    return result


def refuse_secrets(options: dict[str, str]) -> None:
    """Raise ConfigError for a secret that is written out."""
    shown = _SECRETS & options.keys()
    if shown:
        name = min(shown)
        raise ConfigError(f"a command line shows this to every user; write {name}.env=NAME or {name}.file=PATH", name)


def prepare(url: str | None, file: Path | None, options: dict[str, str]) -> tuple[Config, MountOptions]:
    """The configuration to mount and the options of the mount itself.

    Raises
    ------
    ConfigError
        An option is unknown, has no meaning here or would show a secret to every user of the machine.
    """
    refuse_secrets(options)
    from fsdriver.config import from_url, load
    from fsdriver.config.loading import option_keys

    keys = _tree_names(option_keys())
    tree = {name: value for name, value in options.items() if name.partition(".")[0] in keys}
    rest = {name: value for name, value in options.items() if name not in tree}
    if url is not None:
        config = from_url(url, tree, load(file))
    elif tree:
        raise ConfigError("this option belongs to a URL; with a configuration file, set it there", min(tree))
    else:
        config = load(file)
        if not config.route:
            raise click.UsageError("nothing to mount: give a URL, or configure a [[route]] (see fsdriver config check)")
    from fsdriver.fuse_mount.options import MountOptions

    return config, MountOptions.parse(rest, also=keys)


def _tree_names(keys: Iterable[str]) -> frozenset[str]:
    return frozenset({*keys, "route", "backend", "cache"})
