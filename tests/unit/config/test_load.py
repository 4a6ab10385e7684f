"""Finding, merging, overriding and explaining configuration files."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsdriver.config import find_config, from_url, load
from fsdriver.errors import ConfigError

STORAGE_FULL = """\
[storage.s3]
bucket = "my-scribe-bucket"
region = "us-east-1"
# Optional: For MinIO or custom S3 endpoints
endpoint = "http://localhost:9000"
access_key_id = "minioadmin"
secret_access_key = "minioadmin"
path_style = true
pool_size = 10
timeout_secs = 30
max_retries = 3
"""
STORAGE_LOCAL = """\
[storage.s3]
bucket = "test-bucket"
region = "us-east-1"
endpoint = "http://localhost:9000"
access_key_id = "minioadmin"
secret_access_key = "minioadmin"
path_style = true  # Required for MinIO
"""
STORAGE_AWS = """\
[storage.s3]
bucket = "production-scribe-bucket"
region = "us-west-2"
# Credentials can be omitted if using IAM roles
# access_key_id = "YOUR_ACCESS_KEY"
# secret_access_key = "YOUR_SECRET_KEY"
"""


@pytest.fixture
def write(tmp_path):
    def write_file(text: str, name: str = "config.toml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write_file


def refused(path: Path, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, environ)
    return str(caught.value)


@pytest.mark.feature("S1-01")
@pytest.mark.parametrize(
    ("text", "url", "region", "path_style", "keys"),
    [
        (STORAGE_FULL, "s3://my-scribe-bucket", "us-east-1", True, True),
        (STORAGE_LOCAL, "s3://test-bucket", "us-east-1", True, True),
        (STORAGE_AWS, "s3://production-scribe-bucket", "us-west-2", False, False),
    ],
)
def test_the_storage_table_becomes_a_backend_and_a_route(write, text, url, region, path_style, keys):
    config = load(write(text), {})
    backend = config.backend["s3"]
    assert (backend.url, backend.region, backend.path_style) == (url, region, path_style)
    assert (backend.pool_size, backend.timeout, backend.retries) == (10, 30.0, 3)
    assert (backend.access_key_id is not None) is keys
    assert [(route.path, route.tiers) for route in config.route] == [("/", ["s3"])]


@pytest.mark.feature("S1-01")
def test_the_storage_table_is_optional_and_its_unknown_keys_are_reported(write):
    assert load(write(""), {}).backend == {}
    assert load(write("[storage]\n"), {}).backend == {}
    message = refused(write('[storage.s3]\nbucket = "b"\npool_sise = 3\n'))
    assert "line 3: storage.s3.pool_sise: unknown key; did you mean 'pool_size'?" in message
    assert "storage.s3.bucket: this key is required" in refused(write("[storage.s3]\n"))


@pytest.mark.feature("S1-01")
def test_the_storage_table_beside_the_dialect(write):
    text = STORAGE_LOCAL + '[backend.other]\nurl = "file:///srv"\n[[route]]\npath = "/"\ntiers = ["other", "s3"]\n'
    config = load(write(text), {})
    assert [route.tiers for route in config.route] == [["other", "s3"]]


def test_no_file_is_an_empty_configuration(tmp_path, monkeypatch):
    monkeypatch.setattr("fsdriver.config.loading.SYSTEM_DIRECTORY", tmp_path / "none")
    config = load(environ={"HOME": str(tmp_path)})
    assert config.route == []
    assert config.cache.size is None


def test_where_files_are_found(tmp_path, write, monkeypatch):
    monkeypatch.setattr("fsdriver.config.loading.SYSTEM_DIRECTORY", tmp_path / "etc")
    home = {"HOME": str(tmp_path / "home")}
    second, first = write("", "etc/b.toml"), write("", "etc/a.toml")
    assert find_config(environ=home) == [first, second]
    user = write("", "home/.config/fsdriver/config.toml")
    assert find_config(environ=home) == [user]
    named = write("", "named.toml")
    assert find_config(environ={**home, "FSDRIVER_CONFIG": str(named)}) == [named]
    assert find_config(first, {"FSDRIVER_CONFIG": str(named)}) == [first]


def test_a_named_file_must_exist(tmp_path):
    assert "named by --config" in refused(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="named by FSDRIVER_CONFIG"):
        load(environ={"FSDRIVER_CONFIG": str(tmp_path / "none.toml")})


def test_system_files_are_merged_in_name_order(tmp_path, write, monkeypatch):
    monkeypatch.setattr("fsdriver.config.loading.SYSTEM_DIRECTORY", tmp_path / "etc")
    write(
        '[cache]\nsize = 1\nmin_free = 2\n[backend.a]\nurl = "/a"\n[[route]]\npath = "/a"\ntiers = ["a"]\n',
        "etc/10.toml",
    )
    write('[cache]\nsize = 3\n[backend.b]\nurl = "/b"\n[[route]]\npath = "/b"\ntiers = ["b"]\n', "etc/20.toml")
    config = load(environ={"HOME": str(tmp_path)})
    assert (config.cache.size, config.cache.min_free) == (3, 2)
    assert [route.path for route in config.route] == ["/a", "/b"]


def test_an_error_names_the_file_it_is_in(tmp_path, write, monkeypatch):
    monkeypatch.setattr("fsdriver.config.loading.SYSTEM_DIRECTORY", tmp_path / "etc")
    write('[backend.a]\nurl = "/a"\n[[route]]\npath = "/a"\ntiers = ["a"]\n', "etc/10.toml")
    wrong = write('# comment\n[[route]]\npath = "/b"\ntiers = ["b"]\n', "etc/20.toml")
    write("[cache]\nsize = 1\n", "etc/30.toml")
    with pytest.raises(ConfigError) as caught:
        load(environ={"HOME": str(tmp_path)})
    assert str(caught.value) == f"{wrong}: line 4: route[1].tiers: there is no backend 'b'; known are a"


def test_every_mistake_is_named_with_line_and_nearest_key(write):
    message = refused(
        write(
            '[cache]\nsise = 1\n\n[backend.hot]\nurl = "s3://b"\nenigne = "auto"\naccess_key_id = { evn = "X" }\n'
            'secret_access_key = "hunter2"\ntimeout = "soon"\n\n[[route]]\npath = "/"\ntiers = ["hot"]\n'
            '[[route]]\npath = "/b"\ntiers = ["hot"]\nposix = "of"\n[polcy.x]\n'
        )
    )
    assert "line 2: cache.sise: unknown key; did you mean 'size'?" in message
    assert "line 6: backend.hot.enigne: unknown key; did you mean 'engine'?" in message
    assert "line 7: backend.hot.access_key_id.evn: unknown key; did you mean 'env'?" in message
    assert "line 9: backend.hot.timeout: 'soon' is no duration" in message
    assert "line 17: route[1].posix: must be 'full' or 'off'" in message
    assert "line 18: polcy: unknown key; did you mean 'policy'?" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[cache]\nsize 3\n", "line 2"),
        ('[[route]]\ntiers = ["hto"]\n[backend.hot]\nurl="/x"\n', "line 2: route[0].tiers: there is no backend 'hto'"),
        ('[backend.a]\nurl="/a"\n[[route]]\ntiers=["a"]\n[[route]]\ntiers=["a"]\n', "two routes have the path /"),
        ('[backend.a]\nurl="/a"\n[[route]]\ntiers=["a"]\nack=2\n', "line 5: route[0].ack: 2 is more"),
        (
            '[backend.a]\nurl="/a"\n[[route]]\ntiers=["a"]\npolicy="x"\n',
            "line 5: route[0].policy: there is no policy 'x'",
        ),
        ("[[route]]\ntiers=[]\n", "line 2: route[0].tiers"),
        ("[backend.a]\n", "line 1: backend.a.url: this key is required"),
        ("cache = 3\n", "line 1: cache: input should be"),
    ],
)
def test_mistakes(write, text, words):
    path = write(text)
    message = refused(path)
    assert words in message
    assert message.startswith(f"{path}: ")


def test_a_file_that_cannot_be_read(tmp_path):
    binary = tmp_path / "x.toml"
    binary.write_bytes(b"\xff\xfe")
    assert "not UTF-8" in refused(binary)


def test_environment_overrides(write):
    path = write('[backend.my-hot]\nurl = "/data"\n[[route]]\ntiers = ["my-hot"]\n')
    config = load(
        path,
        {
            "FSDRIVER__CACHE__SIZE": "5G",
            "FSDRIVER__BACKEND__MY_HOT__TIMEOUT": "2m",
            "FSDRIVER__ROUTE__0__READ_ONLY": "true",
            "FSDRIVER_CACHE_DIR": "/fast",
        },
    )
    assert config.cache.size == 5 << 30
    assert config.cache.dir == Path("/fast")
    assert config.backend["my-hot"].timeout == 120
    assert config.route[0].read_only is True


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("FSDRIVER__CACHE__SISE", "1", "FSDRIVER__CACHE__SISE: cache.sise: unknown key; did you mean 'size'?"),
        ("FSDRIVER__CACHE__SIZE", "much", "FSDRIVER__CACHE__SIZE: cache.size: 'much' is no size"),
        ("FSDRIVER__ROUTE__3__TTL", "1", "no number '3'"),
        ("FSDRIVER__BACKEND__A__URL__X", "1", "leads into a value"),
    ],
)
def test_wrong_overrides_name_the_variable(write, variable, value, words):
    path = write('[backend.a]\nurl = "/data"\n[[route]]\ntiers = ["a"]\n')
    assert words in refused(path, **{variable: value})


def test_a_url_alone_is_a_whole_tree():
    config = from_url("s3://bucket/prefix")
    assert config.backend["default"].url == "s3://bucket/prefix"
    assert [(route.path, route.tiers) for route in config.route] == [("/", ["default"])]


def test_options_of_a_url_reach_route_backend_and_cache(write):
    base = load(write("[cache]\nmin_free = 7\n[policy.slow]\nage_threshold = '1d'\n"), {})
    config = from_url(
        "s3://b",
        {
            "ttl": "3s",
            "read_only": "",
            "region": "eu-west-1",
            "cache.size": "1 GiB",
            "secret_access_key.env": "S",
            "access_key_id.env": "K",
            "storage_options.token": "t",
            "policy": "slow",
        },
        base,
    )
    route, backend = config.route[0], config.backend["default"]
    assert (route.ttl, route.read_only, route.policy) == (3.0, True, "slow")
    assert backend.region == "eu-west-1"
    assert reveal_env(backend) == ("K", "S")
    assert backend.storage_options == {"token": "t"}
    assert (config.cache.size, config.cache.min_free) == (1 << 30, 7)


def reveal_env(backend):
    return backend.access_key_id.env, backend.secret_access_key.env


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tll": "1"}, "tll: unknown option; did you mean 'ttl'?"),
        ({"ttl": "x"}, "no duration"),
        ({"ttl": ""}, "ttl: this option needs a value; write ttl=VALUE"),
        ({"cache.size": ""}, "write cache.size=VALUE"),
        ({"tiers": "x"}, "tiers"),
    ],
)
def test_wrong_options_of_a_url(options, words):
    with pytest.raises(ConfigError) as caught:
        from_url("s3://b", options)
    assert words in str(caught.value)
