"""The table of the catalog: what it says, and how mistakes in it are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsdriver.config import from_url, load
from fsdriver.errors import ConfigError


def loaded(tmp_path: Path, text: str):
    path = tmp_path / "config.toml"
    path.write_text(f"[catalog]\n{text}")
    return load(path, {})


def test_a_catalog_in_redis(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        'url = "rediss://host:6380/2"\nusername = "me"\npassword = { env = "SECRET" }\nprefix = "tree"\ntimeout = "2s"\n'
        'tls_ca = "/ca.pem"\ntls_certificate = "/me.pem"\ntls_key = "/me.key"\n',
    )
    catalog = config.catalog
    assert (catalog.url, catalog.username, catalog.prefix, catalog.timeout) == (
        "rediss://host:6380/2",
        "me",
        "tree",
        2.0,
    )
    assert not config.has_written_secret()
    assert from_url("/data", base=config).catalog == catalog


def test_a_written_password_is_never_shown(tmp_path: Path) -> None:
    config = loaded(tmp_path, 'url = "redis://host"\npassword = "hunter2"\n')
    assert config.has_written_secret()
    assert "hunter2" not in repr(config) + config.model_dump_json()
    assert from_url("/data", base=config).catalog == config.catalog


def test_by_default_there_is_none(tmp_path: Path) -> None:
    assert loaded(tmp_path, "").catalog.url is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('url = "http://host"\n', "line 2: catalog.url: 'http://host' is no redis://, rediss:// or unix:// URL"),
        ('url = "redis://me:hunter2@host"\n', "line 2: catalog.url: the URL holds a user name or password"),
        ('url = "redis://host?socket_timeout=1"\n', "line 2: catalog.url: the URL holds options"),
        ('url = "rediss://host"\ntls_key = "/k"\n', "tls_certificate and tls_key are given together"),
        ('url = "redis://host"\ntls_ca = "/k"\n', "tls_ca is for rediss:// URLs only"),
        ('ulr = "redis://host"\n', "line 2: catalog.ulr: unknown key; did you mean 'url'?"),
        ('prefix = ""\n', "line 2: catalog.prefix"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)
