"""A stack of tiers does what every backend does, wherever its objects lie."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdriver.backends import open_backend
from fsdriver.config.models import BackendConfig
from fsdriver.tiers.records import Move
from fsdriver.tiers.sqlite_catalog import SqliteCatalog
from fsdriver.tiers.stack import Stack
from fsdriver.tiers.tier import Tier
from tests.service.backend_suite import BackendSuite, MarkerSuite, MetadataSuite, run
from tests.service.test_backends import s3_config

pytestmark = pytest.mark.service


def s3_tier(name: str, server) -> Tier:
    config = s3_config(server, server.create_bucket(), url="s3://none")
    config = config.model_copy(update={"url": f"s3://{server.create_bucket()}/{name}"})
    return Tier(name, *open_backend(name, config))


def local_tier(name: str, root: Path) -> Tier:
    root.mkdir()
    return Tier(name, *open_backend(name, BackendConfig(url=f"file://{root}")))


@pytest.fixture
def make_stack(tmp_path: Path) -> Iterator[object]:
    made: list[Stack] = []

    def make(*tiers: Tier, **options: object) -> Stack:
        stack = Stack(tiers, SqliteCatalog(tmp_path / f"tiers-{len(made)}.db"), tmp_path, **options)
        made.append(stack)
        return stack

    yield make
    for stack in made:
        run(stack.close())
        run(stack.catalog.close())


class _Suites(BackendSuite, MarkerSuite, MetadataSuite):
    flat_listings_in_key_order = True

    @pytest.fixture
    def prefix(self):
        return "in/side/"

    def test_check_and_identity(self, backend, prefix):
        run(backend.check())
        assert backend.identity.startswith("stack|")


class TestS3OverS3(_Suites):
    @pytest.fixture
    def backend(self, make_stack, s3_server):
        return make_stack(s3_tier("hot", s3_server), s3_tier("cold", s3_server))


class TestLocalOverS3(_Suites):
    file_and_directory = False

    @pytest.fixture
    def backend(self, make_stack, s3_server, tmp_path):
        return make_stack(local_tier("nvme", tmp_path / "nvme"), s3_tier("cold", s3_server))


class Demoting(Stack):
    """Whatever is written goes to the last tier at once."""

    async def put(self, key, source, **options):
        info = await super().put(key, source, **options)
        *_, last = self.tiers
        assert await self.mover.carry_out(Move(key, info.version, last, (self.entry.name,), "test", info.size))
        record = await self.catalog.get(self.identity, key)
        assert record.holders() == [last]
        return info


class TestEverythingCold(_Suites):
    """Objects that were moved behave as those that were not."""

    @pytest.fixture
    def backend(self, s3_server, tmp_path):
        stack = Demoting(
            [s3_tier("hot", s3_server), s3_tier("cold", s3_server)], SqliteCatalog(tmp_path / "tiers.db"), tmp_path
        )
        yield stack
        run(stack.close())
        run(stack.catalog.close())
