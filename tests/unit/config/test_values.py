"""Sizes, durations, modes and secrets as people write them."""

from __future__ import annotations

import pickle

import pytest
from pydantic import ValidationError

from fsdriver.config import BackendConfig, CacheConfig, Config, RouteConfig, SecretRef, reveal
from fsdriver.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (5, 5),
        ("5", 5),
        ("20 GiB", 20 << 30),
        ("20G", 20 << 30),
        ("20 GB", 20 * 10**9),
        ("1.5 MiB", 3 << 19),
        ("10 B", 10),
        ("7kib", 7 << 10),
    ],
)
def test_sizes(text, expected):
    assert CacheConfig(size=text).size == expected


@pytest.mark.parametrize("text", ["", "big", "-1", "20 XB", "1 2", -1])
def test_no_sizes(text):
    with pytest.raises(ValidationError):
        CacheConfig(size=text)


@pytest.mark.parametrize(
    ("text", "expected"), [(3, 3.0), ("30s", 30.0), ("250ms", 0.25), ("5m", 300.0), ("2h", 7200.0), ("7 d", 604800.0)]
)
def test_durations(text, expected):
    assert RouteConfig(tiers=["a"], ttl=text).ttl == expected


@pytest.mark.parametrize("text", ["soon", "-3", "nan", float("inf")])
def test_no_durations(text):
    with pytest.raises(ValidationError):
        RouteConfig(tiers=["a"], ttl=text)


@pytest.mark.parametrize(("text", "expected"), [("0644", 0o644), ("755", 0o755), ("0o600", 0o600), (0o640, 0o640)])
def test_modes_are_octal_in_texts(text, expected):
    assert RouteConfig(tiers=["a"], mode=text).mode == expected


@pytest.mark.parametrize("text", ["rw", "0988", 0o10000])
def test_no_modes(text):
    with pytest.raises(ValidationError):
        RouteConfig(tiers=["a"], mode=text)


def test_a_route_path_is_absolute_and_normal():
    assert RouteConfig(path="/data//x/", tiers=["a"]).path == "/data/x"
    for path in ("data", "/a/../b", "", "/."):
        with pytest.raises(ValidationError):
            RouteConfig(path=path, tiers=["a"])


def test_a_plain_path_is_a_file_url():
    assert BackendConfig(url="/srv/data").url == "file:///srv/data"
    with pytest.raises(ValidationError, match="no scheme"):
        BackendConfig(url="bucket/prefix")


def test_a_url_with_a_password_is_refused_without_repeating_it():
    with pytest.raises(ValidationError) as caught:
        BackendConfig(url="s3://key:hunter2@bucket")
    assert "hunter2" not in str(caught.value)


def test_half_a_key_pair_is_refused():
    with pytest.raises(ValidationError, match="without secret_access_key"):
        BackendConfig(url="s3://b", access_key_id="k")


def test_written_secrets_are_never_printed():
    backend = BackendConfig(
        url="s3://b",
        access_key_id="AKIA-x",
        secret_access_key="hunter2",
        storage_options={"sas_token": "hunter3", "n": 1},
    )
    config = Config(backend={"hot": backend})
    for text in (repr(config), str(config), config.model_dump_json()):
        assert "hunter" not in text
        assert "AKIA" not in text
    assert '"n":1' in config.model_dump_json()
    assert reveal(backend.secret_access_key) == "hunter2"


def test_secrets_by_reference_are_read_at_use(tmp_path):
    file = tmp_path / "secret"
    backend = BackendConfig(
        url="s3://b",
        access_key_id={"env": "MY_KEY"},
        secret_access_key={"file": str(file)},
        storage_options={"token": {"env": "MY_TOKEN"}, "plain": {"a": 1}},
    )
    file.write_text("hunter2\n")
    environ = {"MY_KEY": "id", "MY_TOKEN": "t"}
    assert reveal(backend.access_key_id, environ) == "id"
    assert reveal(backend.secret_access_key, environ) == "hunter2"
    assert backend.resolved_options(environ) == {"token": "t", "plain": {"a": 1}}
    with pytest.raises(ConfigError, match="MY_KEY"):
        reveal(backend.access_key_id, {})
    file.unlink()
    with pytest.raises(ConfigError, match="secret") as caught:
        reveal(backend.secret_access_key)
    assert caught.value.filename == str(file)


@pytest.mark.parametrize("fields", [{}, {"env": "A", "file": "/b"}])
def test_a_reference_has_one_source(fields):
    with pytest.raises(ValidationError, match="one source"):
        SecretRef(**fields)


def test_a_fingerprint_sees_what_printing_hides():
    def config(secret):
        return Config(backend={"hot": BackendConfig(url="s3://b", access_key_id="k", secret_access_key=secret)})

    assert config("a").fingerprint() == config("a").fingerprint()
    assert config("a").fingerprint() != config("b").fingerprint()


def test_a_configuration_survives_pickling():
    config = Config(backend={"hot": BackendConfig(url="s3://b", access_key_id="k", secret_access_key="s")})
    assert pickle.loads(pickle.dumps(config)).fingerprint() == config.fingerprint()
