"""Writes docs/configuration.md from the models, and docs/features.md from the rows of the specification and the tests.

``--check`` writes nothing and exits with status 1 when a page is stale.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from fsdriver.config import BackendConfig, CacheConfig, CatalogConfig, PolicyConfig, RouteConfig, TierPolicyConfig
from fsdriver.config.storage import S3Table
from fsdriver.config.values import Key, Secret, parse_duration, parse_mode, parse_size

ROOT: Final = Path(__file__).parents[1]
ROWS: Final = ROOT / "tests" / "data" / "features.json"
TABLES: Final[tuple[tuple[str, type[BaseModel]], ...]] = (
    ("[cache]", CacheConfig),
    ("[catalog]", CatalogConfig),
    ("[backend.NAME]", BackendConfig),
    ("[[route]]", RouteConfig),
    ("[policy.NAME]", PolicyConfig),
    ("[policy.NAME.tier.BACKEND]", TierPolicyConfig),
)
PARSERS: Final = {parse_size: "size", parse_duration: "duration", parse_mode: "mode"}
SETS: Final = {
    "S0": "Brokered storage",
    "S1": "Segments",
    "S2": "Tiers, cache and content addressing",
    "S3": "Datasets",
    "S4": "Storage interface, writers, checkpoints and loaders",
}
EXAMPLE: Final = """\
```toml
[cache]
size = "20 GiB"

[backend.hot]
url = "s3://bucket/prefix"
access_key_id = { env = "HOT_KEY" }
secret_access_key = { file = "/etc/fsdriver/hot.secret" }

[[route]]
path = "/data"
tiers = ["hot"]
ttl = "10s"
```
"""
FOUND: Final = """\
## Where it is read from

The first of these that exists: the file given with `--config`, the file in `FSDRIVER_CONFIG`,
`~/.config/fsdriver/config.toml` (`$XDG_CONFIG_HOME`), and all of `/etc/fsdriver/*.toml`, merged in the order of their
names. Without any, a URL alone is a whole tree: `fsdriver mount s3://bucket/prefix DIR -o ttl=30s,region=eu-west-1`;
`-o` takes every key of a route, a backend or the cache.

`FSDRIVER__CACHE__SIZE=5G` in the environment overrides a key of the files; routes are counted:
`FSDRIVER__ROUTE__0__TTL`. `FSDRIVER_CACHE_DIR`, `FSDRIVER_STATE_DIR` and `FSDRIVER_RUNTIME_DIR` name the folders of
the cache, of catalog and journal, and of the sockets; `FSDRIVER_SHARED_DIR` those where root's daemons
[offer their cache](operating.md#one-cache-for-all-users). The standard variables of the services count where a backend
does not say otherwise: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_PROFILE`,
`AWS_REGION`, `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`.

`fsdriver config check [FILE]` names every mistake with its line and the nearest valid key.

## Values

A **size** is a number of bytes or a text: `"512 MiB"`, `"20G"` (powers of 1024), `"20 GB"` (powers of 1000). A
**duration** is a number of seconds or a text: `"250ms"`, `"30s"`, `"5m"`, `"2h"`, `"7d"`. A **mode** is a text of
octal digits: `"0644"`. A **secret** is a text, which is never printed, or better a reference: `{ env = "NAME" }` or
`{ file = "/path" }`, read at use.
"""
STORAGE: Final = """\
## `[storage.s3]`

The table of earlier programs is accepted as it stands. It becomes the backend `s3` and, unless a route `/` is
configured, the route `/` over it.
"""


def configuration() -> str:
    """Text of docs/configuration.md."""
    parts = [_header("Configuration", "fsdriver/config/models.py"), EXAMPLE, FOUND]
    for name, model in TABLES:
        summary = (model.__doc__ or "").partition(": ")[2]
        parts.append(f"## `{name}`\n\n{summary[0].upper()}{summary[1:]}\n\n{_table(model)}")
    parts.append(f"{STORAGE}\n{_table(S3Table, described=False)}")
    return "\n".join(parts)


def features() -> str:
    """Text of docs/features.md."""
    proofs = defaultdict(list)
    for row, test in sorted(set(_marks())):
        proofs[row].append(test)
    rows = json.loads(ROWS.read_text(encoding="utf-8"))
    unknown = proofs.keys() - {row["id"] for row in rows}
    if unknown:
        raise SystemExit(f"tests prove rows the specification does not have: {', '.join(sorted(unknown))}")
    parts = [
        _header("Features", "tests/data/features.json and the tests' `feature` marks"),
        f"A row is done when a test proves it. Done: {len(proofs)} of {len(rows)}.\n",
    ]
    for prefix, title in SETS.items():
        lines = [f"## {prefix}: {title}\n", "| row | feature | state | proved by |", "|---|---|---|---|"]
        for row in rows:
            if row["id"].startswith(f"{prefix}-"):
                tests = "<br>".join(f"`{test}`" for test in proofs[row["id"]])
                state = "done" if tests else "open"
                lines.append(f"| {row['id']} | {_cell(row['feature'])} | {state} | {tests} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


PAGES: Final = {"docs/configuration.md": configuration, "docs/features.md": features}


def stale() -> list[str]:
    """Pages that are not what would be generated now."""
    return [
        name
        for name, make in PAGES.items()
        if not (ROOT / name).is_file() or (ROOT / name).read_text("utf-8") != make()
    ]


def _header(title: str, source: str) -> str:
    return f"# {title}\n\n<!-- Generated by `make docs` from {source}. -->\n"


def _table(model: type[BaseModel], *, described: bool = True) -> str:
    lines = (
        ["| key | type | default | meaning |", "|---|---|---|---|"]
        if described
        else ["| key | type | default |", "|---|---|---|"]
    )
    for name, field in model.model_fields.items():
        cells = [f"`{name}`", _type(field), _default(field)]
        if described:
            cells.append(_cell(" ".join((field.description or "").split())))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _type(field: FieldInfo) -> str:
    annotation: Any = field.annotation
    if any(item in (Secret, Key) for item in _leaves(annotation)):
        return "secret"
    for validator in (*field.metadata, *_metadata(annotation)):
        if isinstance(validator, BeforeValidator) and validator.func in PARSERS:
            return (
                PARSERS[validator.func]
                if get_origin(annotation) is not dict
                else f"table of {PARSERS[validator.func]}s"
            )
    kinds = [item for item in _leaves(annotation) if item is not NoneType]
    for kind in kinds:
        if get_origin(kind) is Literal:
            return ", ".join(f"`{choice}`" for choice in get_args(kind))
    names = {bool: "true or false", int: "integer", float: "number", str: "text", Path: "path"}
    (kind,) = kinds
    if get_origin(kind) is list:
        return "list of texts"
    return "table" if get_origin(kind) is dict else names[kind]


def _leaves(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in {Union, UnionType}:
        for item in get_args(annotation):
            yield from _leaves(item)
    else:
        yield annotation


def _metadata(annotation: Any) -> Iterator[Any]:
    yield from getattr(annotation, "__metadata__", ())
    if get_origin(annotation) is not Literal:
        for item in get_args(annotation):
            yield from _metadata(item)


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or field.is_required():
        return "required"
    if value is None:
        return ""
    kind = _type(field)
    if kind == "mode":
        return f'`"{value:04o}"`'
    if kind == "size":
        return f'`"{value >> 30} GiB"`' if value >= 1 << 30 else f'`"{value >> 20} MiB"`'
    if kind == "duration":
        return f'`"{value:g}s"`'
    return f"`{json.dumps(value)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _marks() -> Iterator[tuple[str, str]]:
    """Rows and the tests that name them, ``(row, "tests/…py::test")``; a module or class can carry a mark too."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        name = str(path.relative_to(ROOT))
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            yield from _marks_in(node, name)


def _marks_in(node: ast.AST, owner: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        owner = f"{owner}::{node.name}"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "feature":
        for argument in node.args:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield argument.value, owner
    for child in ast.iter_child_nodes(node):
        yield from _marks_in(child, owner)


def main() -> int:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 when a page is stale")
    if parser.parse_args().check:
        names = stale()
        if names:
            print(f"stale, run `make docs`: {', '.join(names)}", file=sys.stderr)
        return 1 if names else 0
    for name, make in PAGES.items():
        path = ROOT / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(make(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
