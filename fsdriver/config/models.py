"""The configuration as pydantic models: every key, its type, its unit and its default.

``docs/configuration.md`` is generated from the descriptions here.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, Field, SecretStr, field_serializer, field_validator, model_validator

from fsdriver.config.policies import PolicyConfig, TierPolicyConfig, check_policy
from fsdriver.config.table import Table, wrong
from fsdriver.config.values import Key, Mode, Seconds, Secret, SecretRef, Size, reveal

__all__ = [
    "BackendConfig",
    "CacheConfig",
    "CatalogConfig",
    "Config",
    "PolicyConfig",
    "RouteConfig",
    "SecretRef",
    "TierPolicyConfig",
]

MAX_ID: Final = 2**32 - 2
LEVELS: Final = {"zstd": (1, 22), "lz4": (0, 16), "gzip": (1, 9)}
MASK: Final = "**********"
_SECRET_NAME: Final = re.compile(r"key|secret|token|pass|credential|sas|auth|connection_string", re.IGNORECASE)


class CacheConfig(Table):
    """``[cache]``: the bytes kept near, shared by all processes of one user."""

    dir: Path | None = None
    """Folder of the disk cache; by default `$XDG_CACHE_HOME/fsdriver`, for root `/var/cache/fsdriver`."""
    size: Size | None = None
    """Most bytes on disk (`"20 GiB"`); by default 20 GiB or a tenth of the disk, whichever is smaller."""
    min_free: Size = 1 << 30
    """Bytes always left free on the disk of the cache."""
    entries: Annotated[int, Field(ge=1)] = 2_000_000
    """Most files on disk, whole and in part."""
    memory: Size = 64 << 20
    """Most bytes of small files (up to 1 MiB) that a Python process keeps in its memory; 0 turns that off. A mount keeps none:
    the kernel does."""
    metadata: Size = 64 << 20
    """Most bytes of memory that a process spends on the names and attributes of one route: about 500 a file, and 600 more
    for one whose mode, owner or times were set. A single directory may take more while its listing is fresh."""
    encryption_key: Key | None = None
    """Encrypt cached files with this key (AES-256-GCM; extra `crypto`): 32 bytes as 64 hexadecimal digits or in base64, best by
    reference: `{ env = "NAME" }` or `{ file = "/path" }`. Names, sizes, and files that are being written are not encrypted."""
    isolate: bool = False
    """Keep files read with different credentials apart, for several people who share one uid. Not acted on yet."""


class BackendConfig(Table):
    """``[backend.NAME]``: one storage service behind one adapter."""

    url: str
    """Container and prefix, e.g. `s3://bucket/prefix`, `file:///data`, `direct:///data` (past the page cache), or any URL fsspec
    knows."""
    engine: Literal["auto", "fsspec"] = "auto"
    """`auto` takes the fastest client for the scheme, `fsspec` the fsspec file system of that scheme."""
    timeout: Annotated[Seconds, Field(gt=0)] = 30.0
    """Deadline of one operation with all its retries (`"30s"`)."""
    connect_timeout: Annotated[Seconds, Field(gt=0)] = 5.0
    """Longest wait for a connection."""
    retries: int = Field(default=3, ge=0, le=100)
    """Further attempts after a temporary failure."""
    pool_size: int = Field(default=10, ge=1, le=10_000)
    """Most connections to the service at a time."""
    region: str | None = None
    """Region of the service; by default `AWS_REGION` or `AWS_DEFAULT_REGION`, else `us-east-1`."""
    endpoint: str | None = None
    """URL of an S3-compatible service; by default `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`, else Amazon's."""
    access_key_id: Secret | None = None
    """Key id, or a reference: `{ env = "NAME" }` or `{ file = "/path" }`; by default the service's standard chain."""
    secret_access_key: Secret | None = None
    """Secret key, or a reference; given together with `access_key_id` or not at all."""
    session_token: Secret | None = None
    """Token that goes with temporary keys, or a reference."""
    path_style: bool | None = None
    """Bucket in the path of the URL rather than in the host name; by default as the endpoint needs it."""
    anonymous: bool = False
    """Send unsigned requests, for public buckets."""
    checksums: bool = True
    """Send SHA-256 sums along with uploads to S3, which the service checks and keeps; false for one that refuses them."""
    compression: Literal["none", "zstd", "lz4", "gzip"] = "none"
    """Compress objects on the store, in a format that its own tools read (`zstd` and `lz4`: extra `codecs`). What gains less than
    a twentieth is stored as it is. All objects are readable, whatever this says."""
    compression_level: int | None = None
    """Level of the format: zstd 1 to 22 (3), lz4 0 to 16 (0), gzip 1 to 9 (6)."""
    encryption_key: Key | None = None
    """Encrypt objects before they are sent (AES-256-GCM; extra `crypto`): 32 bytes as 64 hexadecimal digits or in base64, best by
    reference. It wraps the data key of each object."""
    decryption_keys: list[Key] = Field(default_factory=list)
    """Further keys to read with: earlier ones, after a change of `encryption_key`."""
    storage_options: dict[str, Any] = Field(default_factory=dict, repr=False)
    """Arguments of the fsspec file system, for `engine = "fsspec"` and other schemes; a value may be a reference."""

    @field_validator("url")
    @classmethod
    def _has_scheme(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            raise ValueError("the URL holds a user name or password; give them as keys of the backend, by reference")
        if "\0" in unquote(url):
            raise ValueError("the URL holds a NUL, which no name has")
        if not parts.scheme and not url.startswith("/"):
            raise ValueError(f"{url!r} has no scheme; write e.g. s3://bucket/prefix or file:///data")
        return url if parts.scheme else f"file://{url}"

    @field_validator("endpoint")
    @classmethod
    def _is_http(cls, endpoint: str | None) -> str | None:
        if endpoint is None:
            return None
        parts = urlsplit(endpoint)
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                "the endpoint holds a user name or password; give keys as keys of the backend, by reference"
            )
        if parts.scheme in {"http", "https"}:
            return endpoint
        raise ValueError(f"{endpoint!r} is no http:// or https:// URL")

    @field_serializer("storage_options", when_used="json")
    def _mask_options(self, options: dict[str, Any]) -> dict[str, Any]:
        return {name: MASK if _SECRET_NAME.search(name) else value for name, value in options.items()}

    def has_written_secret(self) -> bool:
        """Whether any secret is written out, and not given by reference."""
        keys = (
            self.access_key_id, self.secret_access_key, self.session_token, self.encryption_key, *self.decryption_keys,
        )  # fmt: skip
        named = (value for name, value in self.storage_options.items() if _SECRET_NAME.search(name))
        return any(isinstance(key, SecretStr) for key in keys) or any(isinstance(value, str) for value in named)

    def resolved_options(self, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
        """`storage_options` with the references among its values replaced by the secrets they name."""
        return {
            name: reveal(SecretRef.model_validate(value), environ) if _is_reference(value) else value
            for name, value in self.storage_options.items()
        }

    @property
    def is_coded(self) -> bool:
        """Objects are compressed or encrypted, or there are keys to read such."""
        return self.compression != "none" or self.encryption_key is not None or bool(self.decryption_keys)

    @model_validator(mode="after")
    def _coding_makes_sense(self) -> BackendConfig:
        if self.compression_level is not None:
            low, high = LEVELS.get(self.compression, (0, -1))
            if not low <= self.compression_level <= high:
                known = (
                    f"{self.compression} has levels from {low} to {high}" if high >= low else "nothing is compressed"
                )
                raise ValueError(f"compression_level = {self.compression_level}: {known}")
        scheme = self.url.partition(":")[0].lower()
        if self.is_coded and scheme == "direct":
            raise ValueError(
                "direct:// is for bytes that go to the disk as they are: take file:// with compression or keys"
            )
        if scheme in {"http", "https"} and (self.compression != "none" or self.encryption_key is not None):
            raise ValueError(
                f"{scheme}:// is only read: compression and encryption_key are for stores that are written"
            )
        return self

    @model_validator(mode="after")
    def _whole_credentials(self) -> BackendConfig:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            given = "access_key_id" if self.secret_access_key is None else "secret_access_key"
            wanted = "secret_access_key" if self.secret_access_key is None else "access_key_id"
            raise ValueError(
                f"{given} is given without {wanted}; give both, or neither for the standard credential chain"
            )
        if self.anonymous and self.access_key_id is not None:
            raise ValueError("anonymous = true and access_key_id exclude each other")
        return self


class RouteConfig(Table):
    """``[[route]]``: a path of the tree bound to a stack of tiers."""

    path: str = "/"
    """Where the route hangs in the tree; the longest path that matches wins."""
    tiers: list[str] = Field(min_length=1)
    """Names of backends, hot to cold; see `docs/tiers.md`."""
    write: Literal["back", "through"] | None = None
    """When close() returns: `through`, the tiers have it; `back`, the journal has it. By default `back` in a mount,
    `through` in fsspec and Python."""
    fsync: Literal["local", "remote"] = "local"
    """What fsync() waits for: the local disk, or the tiers."""
    ack: int | None = Field(default=None, ge=1)
    """How many tiers must have a write before it counts as stored; by default one tier, and all of `replicate`."""
    ttl: Seconds = 10.0
    """How long attributes and listings are trusted (`"10s"`)."""
    negative_ttl: Seconds = 1.0
    """How long the absence of a name is trusted."""
    immutable: bool = False
    """Objects never change once written: what is cached is never asked for again."""
    read_only: bool = False
    """Refuse every change."""
    posix: Literal["full", "off"] = "full"
    """`full` keeps modes, owners, times, links and xattrs on the store; `off` writes nothing there but the objects."""
    replicate: list[str] = Field(default_factory=list)
    """Names of backends that receive a copy of every file."""
    policy: str = "default"
    """Name of the `[policy.NAME]` that moves data between the tiers."""
    mode: Mode = 0o644
    """Permission bits of files that carry none (`"0644"`)."""
    dir_mode: Mode = 0o755
    """Permission bits of directories that carry none (`"0755"`)."""
    uid: int | None = Field(default=None, ge=0, le=MAX_ID)
    """Owner of what carries none; by default the process that mounts."""
    gid: int | None = Field(default=None, ge=0, le=MAX_ID)
    """Group of what carries none; by default the process that mounts."""
    foreign_metadata: bool = False
    """Ask for the metadata of objects another tool wrote: one request for each."""
    quota: Size | None = None
    """Size that statfs reports; by default 1 PiB."""

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: str) -> str:
        segments = path.split("/")
        if not path.startswith("/") or any(segment in {".", ".."} for segment in segments):
            raise ValueError(f"{path!r} is no absolute path without . and .. segments; write e.g. /data")
        return "/" + "/".join(segment for segment in segments if segment)


class CatalogConfig(Table):
    """``[catalog]``: which tiers hold what, for routes with several. Hosts that share such routes need the same Redis."""

    url: str | None = None
    """`redis://host:6379/0`, `rediss://…` for TLS, or `unix:///path`: Redis 7 or later; by default SQLite in the folder of
    the state."""
    username: str | None = None
    """Name of the Redis user; by default `default`."""
    password: Secret | None = None
    """Its password, or a reference: `{ env = "NAME" }` or `{ file = "/path" }`."""
    prefix: Annotated[str, Field(min_length=1)] = "fsdriver"
    """What the names of all keys in Redis begin with: trees that share a server and nothing else have different ones."""
    timeout: Annotated[Seconds, Field(gt=0)] = 5.0
    """Longest wait for Redis (`"5s"`)."""
    tls_ca: Path | None = None
    """Certificates that the server's is checked against, in PEM form; by default the system's."""
    tls_certificate: Path | None = None
    """Certificate of this client, for servers that ask for one; given together with `tls_key`."""
    tls_key: Path | None = None
    """Key of that certificate."""

    @field_validator("url")
    @classmethod
    def _is_redis(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            raise ValueError("the URL holds a user name or password; give them as keys of the table, by reference")
        if parts.query:
            raise ValueError("the URL holds options; what can be set has a key of its own in this table")
        if parts.scheme not in {"redis", "rediss", "unix"}:
            raise ValueError(f"{url!r} is no redis://, rediss:// or unix:// URL")
        return url

    @model_validator(mode="after")
    def _belongs_together(self) -> CatalogConfig:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key are given together or not at all")
        if self.tls_ca is not None and not (self.url or "").startswith("rediss:"):
            raise ValueError("tls_ca is for rediss:// URLs only")
        return self


class Config(Table):
    """A whole configuration: cache, catalog, backends, routes and policies."""

    cache: CacheConfig = Field(default_factory=CacheConfig)
    catalog: CatalogConfig = Field(default_factory=CatalogConfig)
    backend: dict[str, BackendConfig] = Field(default_factory=dict)
    route: list[RouteConfig] = Field(default_factory=list)
    policy: dict[str, PolicyConfig] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _references_exist(self) -> Config:
        paths: set[str] = set()
        for index, route in enumerate(self.route):
            if route.path in paths:
                raise wrong(
                    ("route", index, "path"), f"two routes have the path {route.path}; a path belongs to one route"
                )
            paths.add(route.path)
            for key, names in (("tiers", route.tiers), ("replicate", route.replicate)):
                for name in names:
                    if name not in self.backend:
                        raise wrong(("route", index, key), f"there is no backend {name!r}{_known(self.backend)}")
            if route.policy != "default" and route.policy not in self.policy:
                raise wrong(("route", index, "policy"), f"there is no policy {route.policy!r}{_known(self.policy)}")
            if route.ack is not None and route.ack > len(route.tiers) + len(route.replicate):
                raise wrong(("route", index, "ack"), f"{route.ack} is more than the tiers and replicas of this route")
        for name, policy in self.policy.items():
            routes = [(route.tiers, route.replicate) for route in self.route if route.policy == name]
            check_policy(name, policy, self.backend, routes)
        return self

    def has_written_secret(self) -> bool:
        """Whether any secret is written out, and not given by reference."""
        own = (self.cache.encryption_key, self.catalog.password)
        return any(isinstance(secret, SecretStr) for secret in own) or any(
            backend.has_written_secret() for backend in self.backend.values()
        )

    def fingerprint(self) -> str:
        """Digest of all values, secrets written out among them: equal for configurations that behave alike."""
        return hashlib.sha256("\n".join(_flatten("", self)).encode("utf-8", "surrogateescape")).hexdigest()


def _known(names: Mapping[str, object]) -> str:
    return f"; known are {', '.join(sorted(names))}" if names else "; none is configured"


def _is_reference(value: object) -> bool:
    return isinstance(value, dict) and len(value) == 1 and set(value) <= {"env", "file"}


def _flatten(prefix: str, value: object) -> Iterator[str]:
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, dict):
        for name in sorted(value, key=str):
            yield from _flatten(f"{prefix}.{name}", value[name])
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _flatten(f"{prefix}[{index}]", item)
    else:
        yield f"{prefix}={value.get_secret_value() if isinstance(value, SecretStr) else repr(value)}"
