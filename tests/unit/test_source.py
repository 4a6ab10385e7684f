"""The source itself: nothing in it turns foreign bytes into code, or text into a command of a shell."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(
    file
    for room in ("fsdriver", "cache", "fuse_mount")
    for file in (ROOT / room).rglob("*.py")
    if "testing" not in file.parts
)
MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "yaml", "imp", "diskcache", "xmlrpc"}
CALLS = {"eval", "exec", "compile", "__import__", "mktemp", "system", "popen", "unpickle", "tempnam"}
METHODS_OF_OTHERS = {("re", "compile")}


def _findings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (f"import {one.name}" for one in node.names if one.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            yield f"from {node.module}"
        elif isinstance(node, ast.Call):
            function = node.func
            owner = (
                function.value.id
                if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name)
                else ""
            )
            name = (
                function.attr
                if isinstance(function, ast.Attribute)
                else function.id
                if isinstance(function, ast.Name)
                else ""
            )
            if name in CALLS and (owner, name) not in METHODS_OF_OTHERS:
                yield f"{owner}.{name}()"
            for keyword in node.keywords:
                if keyword.arg == "shell" and not (
                    isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                ):
                    yield "shell="


@pytest.mark.parametrize(
    "text", ["import pickle", "from yaml import load", "eval(x)", "os.system(x)", "run(x, shell=True)"]
)
def test_what_is_looked_for_is_found(text: str) -> None:
    assert list(_findings(ast.parse(text)))


def test_nothing_is_unpickled_evaluated_or_given_to_a_shell() -> None:
    assert len(FILES) > 150
    found = {
        str(file.relative_to(ROOT)): list(_findings(ast.parse(file.read_text(encoding="utf-8")))) for file in FILES
    }
    assert {file: findings for file, findings in found.items() if findings} == {}
