"""The standard AWS variables beside the keys of a backend."""

from __future__ import annotations

import pytest

from fsdriver.config import BackendConfig
from fsdriver.config.aws import aws_environment, s3_settings

KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "hunter2", "AWS_SESSION_TOKEN": "hunter3"}


def test_an_endpoint_from_the_environment_implies_path_style():
    settings = s3_settings(BackendConfig(url="s3://b"), {"AWS_ENDPOINT_URL": "http://a", "AWS_DEFAULT_REGION": "eu"})
    assert (settings.endpoint, settings.path_style, settings.region) == ("http://a", True, "eu")


def test_the_service_variable_goes_first_and_both_can_be_ignored():
    environ = {"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://s3"}
    assert aws_environment(environ).endpoint == "http://s3"
    assert aws_environment({**environ, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "TRUE"}).endpoint is None


def test_keys_of_the_backend_go_before_the_environment():
    backend = BackendConfig(
        url="s3://b", endpoint="http://c", path_style=False, region="r", access_key_id="k", secret_access_key="s"
    )
    settings = s3_settings(backend, {**KEYS, "AWS_ENDPOINT_URL": "http://a", "AWS_REGION": "eu"})
    assert (settings.endpoint, settings.path_style, settings.region) == ("http://c", False, "r")
    assert (settings.access_key_id, settings.secret_access_key, settings.session_token) == ("k", "s", None)


@pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_half_a_pair_is_left_to_the_chain(missing):
    settings = aws_environment({name: value for name, value in KEYS.items() if name != missing})
    assert (settings.access_key_id, settings.secret_access_key, settings.session_token) == (None, None, None)


def test_anonymous_takes_no_keys():
    settings = s3_settings(BackendConfig(url="s3://b", anonymous=True), KEYS)
    assert settings.anonymous
    assert settings.access_key_id is None


def test_settings_are_never_printed_with_secrets():
    settings = aws_environment(KEYS)
    assert settings.secret_access_key == "hunter2"
    assert "hunter" not in repr(settings)
