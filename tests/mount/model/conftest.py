"""Trees with all their faces, one for all tests of a module."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.mount.conftest import TreeMaker, make_tree
from tests.mount.model.sides import Foreign, ForeignFiles, ForeignObjects, ForeignTiers, Sides


@pytest.fixture(
    scope="module", params=["local-back", "local-through", "s3-back", "s3-through", "daemon-back", "tiers-back"]
)
def sides(request, module_trees, tmp_path_factory) -> Iterator[Sides]:
    """A mounted tree, the same tree through fsspec in this process, its store, and a plain directory beside it.

    ``daemon`` is a local tree whose reads and writes the daemon answers, without passthrough.
    """
    kind, write = request.param.split("-")
    if kind == "tiers":
        made = over_tiers(module_trees, tmp_path_factory.mktemp("tiers"), tmp_path_factory.mktemp("plain"))
        yield made
        made.end()
        return
    tree = make_tree(kind, module_trees, request)
    tree.options = (*tree.options, f"write={write}")
    tree.mount()
    url = urlsplit(tree.url)
    foreign: Foreign = ForeignFiles(Path(url.path))
    if url.scheme == "s3":
        client = request.getfixturevalue("s3_server").client()
        foreign = ForeignObjects(client, url.netloc, url.path.strip("/"))
    made = Sides(tree, foreign, tmp_path_factory.mktemp("plain"))
    yield made
    made.end()


def over_tiers(trees: TreeMaker, places: Path, plain: Path) -> Sides:
    """A mounted tree over two directories, between which the model moves files."""
    tree = trees()
    (places / "hot").mkdir()
    (places / "cold").mkdir()
    backends = {name: {"url": f"file://{places}/{name}"} for name in ("hot", "cold")}
    config = tree.places / "config.toml"
    tables = [f'[backend.{name}]\nurl = "{backend["url"]}"\n' for name, backend in backends.items()]
    config.write_text("".join(tables) + '[[route]]\npath = "/"\ntiers = ["hot", "cold"]\n')
    tree.url = ""
    tree.mount()
    foreign = ForeignTiers(places / "hot", places / "cold")
    return Sides(tree, foreign, plain, {"backend": backends, "route": [{"path": "/", "tiers": ["hot", "cold"]}]})


@pytest.fixture
def profile() -> dict[str, int]:
    """``FSDRIVER_MODEL=examples=500,steps=60,seed=7`` makes the model search longer, and elsewhere."""
    given = os.environ.get("FSDRIVER_MODEL", "")
    return {name: int(value) for name, _, value in (pair.partition("=") for pair in given.split(",") if pair)}
