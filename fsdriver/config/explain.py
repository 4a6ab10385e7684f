"""Turns errors of TOML and of the models into a `ConfigError` that names file, line, key and the nearest valid key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias, get_args

from pydantic import BaseModel, ValidationError

from fsdriver.config.values import REFERENCE, WRITTEN
from fsdriver.errors import ConfigError

Where: TypeAlias = tuple[str | int, ...]

_HEADER: Final = re.compile(r"\s*(\[\[?)\s*([^\[\]#]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY: Final = re.compile(
    r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*="""
)
_PART: Final = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a part of the configuration was written.

    Attributes
    ----------
    name : str
        A path, or what else the text came from (``environment``, ``-o``).
    text : str
        TOML, to find out what was written here; empty where that is not known.
    numbered : bool
        Whether the lines of ``text`` mean something to a reader.
    first_route : int
        Index, in the merged list of routes, of the first route written here.
    """

    name: str
    text: str = ""
    numbered: bool = True
    first_route: int = 0

    def line(self, where: Where) -> tuple[int, int]:
        """How many steps of ``where`` were written here, and the line of the last of them, from 1; (0, 0) for none."""
        if len(where) > 1 and where[0] == "route" and isinstance(where[1], int):
            where = ("route", where[1] - self.first_route, *where[2:])
        positions = dict(_positions(self.text))
        for length in range(len(where), 0, -1):
            if where[:length] in positions:
                return length, positions[where[:length]]
        return 0, 0


def _positions(text: str) -> Iterable[tuple[Where, int]]:
    """Every table and key of a TOML text with its line; the first place where a name is written counts."""
    table: Where = ()
    counts: dict[Where, int] = {}
    seen: set[Where] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = tuple(part.strip("\"'") for part in _PART.findall(header[2]))
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = (*table, counts[table])
            found = table
        elif key := _KEY.match(line):
            found = (*table, *(part.strip("\"'") for part in _PART.findall(key[1])))
        else:
            continue
        for length in range(1, len(found) + 1):
            if found[:length] not in seen:
                seen.add(found[:length])
                yield found[:length], number


def explain_syntax(path: Path, error: ValueError | RecursionError) -> ConfigError:
    """For a file that is no TOML; the parser's own words name line and column."""
    return ConfigError(f"this is not valid TOML: {error}", str(path))


def explain_model(
    error: ValidationError, model: type[BaseModel], sources: Sequence[Source], prefix: Where = ()
) -> ConfigError:
    """For values that the models refuse; every finding has its own line.

    Parameters
    ----------
    model : type
        The model that was validated, for the names of its keys.
    sources : sequence of Source
        In the order they were merged: of several that name a key, the last is to blame.
    prefix : tuple
        Where in the configuration the model sits.
    """
    findings: list[str] = []
    name: str | None = None
    for detail in error.errors(include_url=False, include_input=False):
        where = prefix + _without_branches(tuple(detail.get("ctx", {}).get("where", detail["loc"])))
        source, line = _blame(where, sources)
        place = f"line {line}: " if line is not None else ""
        if name is None:
            name = source
        elif source != name:
            place = f"{source}: {place}"
        text = f"{place}{_dotted(where)}: {_cause(detail, model, where[len(prefix) :])}"
        if text not in findings:
            findings.append(text)
    return ConfigError("; ".join(findings) if len(findings) == 1 else "\n  " + "\n  ".join(findings), name)


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean …?"``, or the list of what is possible."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; possible are {', '.join(names)}" if names else ""


def _cause(detail: Any, model: type[BaseModel], where: Where) -> str:
    if detail["type"] == "extra_forbidden":
        owner = _model_at(model, where[:-1])
        return "unknown key" + nearest(str(where[-1]), owner.model_fields if owner is not None else ())
    if detail["type"] == "missing":
        return "this key is required"
    if detail["type"] == "literal_error":
        return f"must be {detail['ctx']['expected']}"
    message: str = detail["msg"].removeprefix("Value error, ")
    return message[0].lower() + message[1:] if message.startswith("Input should") else message


def _without_branches(where: Where) -> Where:
    """Pydantic names the branch of a union as a step: no key of the configuration."""
    return tuple(step for step in where if step not in {WRITTEN, REFERENCE, "[key]"})


def _model_at(model: type[BaseModel], where: Where) -> type[BaseModel] | None:
    """The model of the table that ``where`` leads to."""
    current: type[BaseModel] | None = model
    for step in where:
        if isinstance(step, int) or current is None:
            continue
        info = current.model_fields.get(step)
        if info is None:
            continue  # the free name of a backend or policy
        current = next(_models_in(info.annotation), None)
    return current


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _blame(where: Where, sources: Sequence[Source]) -> tuple[str | None, int | None]:
    """The source that wrote most of the key, the later of two that wrote as much, and the line."""
    name, line, most = sources[-1].name if sources else None, None, 1
    for source in sources:
        steps, number = source.line(where)
        if steps >= most:
            name, line, most = source.name, number if source.numbered else None, steps
    return name, line


def _dotted(where: Where) -> str:
    text = ""
    for step in where:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text or "the whole"
