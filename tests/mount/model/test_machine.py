"""Random operations on a plain directory and on the tree, through the mount, fsspec and the store, compared after each.

One tree is mounted for all examples of a variant; each example works in a fresh directory of it. At the end all examples
are compared again: mounted anew with what this host had kept, and as another host mounts it, with empty cache and state.

The search is the same in every run. ``FSDRIVER_MODEL=examples=500,steps=60,seed=7`` searches longer and elsewhere.
"""

from __future__ import annotations

import itertools
import os
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.mount.model.comparison import SLOTS
from tests.mount.model.looking import differences, look
from tests.mount.model.sides import Sides
from tests.mount.model.world import APPEND, COLD_SIZES, MODES, PATHS, READ, SIZES, UPDATE, WRITE, World

EXAMPLES = {"local": 40, "daemon": 25, "s3": 8, "tiers": 15}
STEPS = 40

paths = st.sampled_from(PATHS[:2] * 4 + PATHS[2:6] * 2 + PATHS[6:])
sizes = st.sampled_from(SIZES)
offsets = st.sampled_from((0, 3, 4096, 5001, 200_000))
slots = st.integers(0, SLOTS - 1)
modes = st.sampled_from(MODES)
flags = st.sampled_from(
    (
        READ,
        WRITE,
        UPDATE,
        APPEND,
        UPDATE | os.O_CREAT,
        WRITE | os.O_CREAT | os.O_TRUNC,
        WRITE | os.O_CREAT | os.O_EXCL,
        UPDATE | os.O_TRUNC,
    )
)


class Model(RuleBasedStateMachine):
    """Every rule is one step of `World`, which compares what both sides answered."""

    sides: ClassVar[Sides]
    numbers: ClassVar[itertools.count]

    @initialize()
    def begin(self):
        self.world = World(self.sides, f"example-{next(self.numbers)}")

    # -- names ---------------------------------------------------------------------------------------------------------

    @rule(name=paths, size=sizes)
    def write(self, name, size):
        self.world.write(name, size)

    @rule(name=paths, size=sizes)
    def create(self, name, size):
        self.world.create(name, size)

    @rule(name=paths, size=sizes)
    def append(self, name, size):
        self.world.append(name, size)

    @rule(name=paths, offset=offsets, size=sizes)
    def write_at(self, name, offset, size):
        self.world.write_at(name, offset, size)

    @rule(name=paths, size=sizes)
    def truncate(self, name, size):
        self.world.truncate(name, size)

    @rule(name=paths)
    def mkdir(self, name):
        self.world.mkdir(name)

    @rule(name=paths)
    def rmdir(self, name):
        self.world.rmdir(name)

    @rule(name=paths)
    def unlink(self, name):
        self.world.unlink(name)

    @rule(one=paths, other=paths)
    def rename(self, one, other):
        self.world.rename(one, other)

    @rule(one=paths, other=paths)
    def rename_again(self, one, other):
        self.world.rename(one, other)

    @rule(one=paths, other=paths)
    def link(self, one, other):
        self.world.link(one, other)

    @rule(leads_to=paths, name=paths)
    def symlink(self, leads_to, name):
        self.world.symlink(leads_to, name)

    @rule(name=paths)
    def fifo(self, name):
        self.world.fifo(name)

    @rule(name=paths, mode=modes)
    def chmod(self, name, mode):
        self.world.chmod(name, mode)

    @rule(name=paths, seconds=st.sampled_from((1, 86400, 999_999_999)))
    def utime(self, name, seconds):
        self.world.utime(name, seconds)

    @rule(name=paths, value=st.integers(0, 2))
    def setxattr(self, name, value):
        self.world.setxattr(name, value)

    @rule(name=paths)
    def removexattr(self, name):
        self.world.removexattr(name)

    # -- open files ----------------------------------------------------------------------------------------------------

    @rule(slot=slots, name=paths, how=flags)
    def open(self, slot, name, how):
        self.world.open(slot, name, how)

    @rule(slot=slots)
    def close(self, slot):
        self.world.close(slot)

    @rule(slot=slots, offset=offsets, size=sizes)
    def handle_write(self, slot, offset, size):
        self.world.handle_write(slot, offset, size)

    @rule(slot=slots, size=sizes)
    def handle_truncate(self, slot, size):
        self.world.handle_truncate(slot, size)

    @rule(slot=slots, mode=modes)
    def handle_chmod(self, slot, mode):
        self.world.handle_chmod(slot, mode)

    @rule(slot=slots)
    def handle_fsync(self, slot):
        self.world.handle_fsync(slot)

    @rule(slot=slots)
    def handle_dup_close(self, slot):
        self.world.handle_dup_close(slot)

    # -- fsspec --------------------------------------------------------------------------------------------------------

    @rule(name=paths, size=sizes)
    def fs_write(self, name, size):
        self.world.fs_write(name, size)

    @rule(name=paths, size=sizes)
    def fs_append(self, name, size):
        self.world.fs_append(name, size)

    @rule(name=paths, start=offsets, end=offsets)
    def fs_read(self, name, start, end):
        self.world.fs_read(name, start, end)

    @rule(one=paths, other=paths)
    def fs_copy(self, one, other):
        self.world.fs_copy(one, other)

    @rule(one=paths, other=paths)
    def fs_move(self, one, other):
        self.world.fs_move(one, other)

    @rule(name=paths)
    def fs_remove(self, name):
        self.world.fs_remove(name)

    @rule(name=paths)
    def fs_mkdir(self, name):
        self.world.fs_mkdir(name)

    @rule(name=paths)
    def fs_rmdir(self, name):
        self.world.fs_rmdir(name)

    @rule()
    def fs_compare(self):
        self.world.check_fsspec()

    # -- the store -----------------------------------------------------------------------------------------------------

    @rule(name=paths, size=sizes)
    def foreign_put(self, name, size):
        self.world.foreign_put(name, size)

    @rule(name=paths)
    def foreign_delete(self, name):
        self.world.foreign_delete(name)

    @rule(
        slot=slots,
        name=paths,
        other=paths,
        size=st.sampled_from(COLD_SIZES),
        how=st.sampled_from(("unlink", "replace", "rename", "rename and unlink")),
    )
    def cold_reader(self, slot, name, other, size, how):
        self.world.cold_reader(slot, name, other, size, how)

    @rule(name=paths, to=st.integers(0, 1))
    def move(self, name, to):
        self.world.move(name, to)

    @rule()
    def sync(self):
        self.world.sync()

    @invariant()
    def agree(self):
        self.world.check()

    def teardown(self):
        self.world.end()
        self.world.check()
        self.world.check_fsspec()
        self.world.check_store()


@pytest.mark.timeout(600)
def test_tree_behaves_as_a_plain_directory(sides, profile, request):
    kind = request.node.callspec.params["sides"].partition("-")[0]

    class Here(Model):
        pass

    Here.sides, Here.numbers = sides, itertools.count()
    seed = profile.get("seed")
    machine = Here if seed is None else seeded(seed)(Here)
    budget = settings(
        max_examples=profile.get("examples", EXAMPLES[kind]),
        stateful_step_count=profile.get("steps", STEPS),
        derandomize=seed is None,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    run_state_machine_as_test(machine, settings=budget)
    for _ in _remounts(sides):
        for plain in sorted(sides.plain.glob("example-*")):
            assert differences(look(str(plain)), look(str(sides.tree.root / plain.name))) == [], plain.name


def _remounts(sides):
    """Mounted again with what this host kept, and then as another host does."""
    sides.tree.umount()
    yield sides.tree.mount()
    sides.tree.umount()
    sides.fs.invalidate_cache()
    sides.tree.forget_everything()
    yield sides.tree.mount()
