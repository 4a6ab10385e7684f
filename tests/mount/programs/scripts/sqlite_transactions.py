"""sqlite_transactions.py MODE COUNT: transfers between accounts while another process adds them up."""

# ruff: noqa: T201  what is printed is what is compared

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys

READER = """
import sqlite3, sys
database = sqlite3.connect("test.db", timeout=60)
reads = 0
print("ready", flush=True)
while True:
    total, number = database.execute("select sum(amount), max(id) from transfer_sum").fetchone()
    assert total == 100_000, total
    reads += 1
    if number >= int(sys.argv[1]):
        break
"""


def main(mode: str, count: int) -> None:
    """Commit ``count`` transactions; every reader sees all of each or nothing."""
    database = sqlite3.connect("test.db", timeout=60, isolation_level=None)
    assert database.execute(f"pragma journal_mode = {mode}").fetchone()[0] == mode.lower()
    database.executescript(
        "create table account (name integer primary key, amount integer);"
        "create table transfer (id integer primary key, source integer, target integer, note blob);"
        "create view transfer_sum as select (select sum(amount) from account) as amount, "
        "(select coalesce(max(id), 0) from transfer) as id;"
    )
    database.executemany("insert into account values (?, 1000)", [(number,) for number in range(100)])
    reader = subprocess.Popen([sys.executable, "-c", READER, str(count)], stdout=subprocess.PIPE)
    assert reader.stdout is not None
    assert reader.stdout.readline() == b"ready\n"
    rng = random.Random(3)
    for number in range(1, count + 1):
        source, target, amount = rng.randrange(100), rng.randrange(100), rng.randrange(50)
        database.execute("begin immediate")
        database.execute("update account set amount = amount - ? where name = ?", (amount, source))
        database.execute("update account set amount = amount + ? where name = ?", (amount, target))
        database.execute("insert into transfer values (?, ?, ?, ?)", (number, source, target, rng.randbytes(200)))
        if number % 10 == 5:
            database.execute("rollback")
            database.execute("insert into transfer values (?, 0, 0, null)", (number,))
        else:
            database.execute("commit")
    assert reader.wait(60) == 0
    print(
        database.execute("pragma integrity_check").fetchone(), database.execute("select * from transfer_sum").fetchone()
    )
    database.execute("vacuum")
    database.close()


main(sys.argv[1], int(sys.argv[2]))
