"""What a bucket and the places of a tree hold, looked at without fsdriver."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.crash.manifest import Names
from tests.crash.programs.writer import digest


def bucket_names(client: Any, url: str) -> Names:
    """Files of an S3 bucket as the tree has them, without what fsdriver keeps for itself and without directories."""
    where = urlsplit(url)
    prefix = where.path.strip("/") + "/"
    found: Names = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=where.netloc, Prefix=prefix):
        for item in page.get("Contents", []):
            name = item["Key"].removeprefix(prefix)
            if not name.startswith(".fsdriver/") and not name.endswith("/"):
                found[name] = digest(client.get_object(Bucket=where.netloc, Key=item["Key"])["Body"].read())
    return found


def unfinished_uploads(client: Any, url: str) -> list[str]:
    """Keys of uploads in parts that were begun and neither completed nor aborted."""
    answer = client.list_multipart_uploads(Bucket=urlsplit(url).netloc)
    return [one["Key"] for one in answer.get("Uploads", [])]


def left_on_host(places: Path) -> dict[str, list[str]]:
    """What should be gone once everything is in the store: staging files, and rows of the catalog."""
    left = {"staging": sorted(path.name for path in (places / "cache" / ".staging").iterdir())}
    with sqlite3.connect(places / "state" / "catalog.db") as database:
        for table in ("pending", "attributes", "uploads", "sent"):
            left[table] = [str(row) for row in database.execute(f"SELECT * FROM {table}")]
    database.close()
    return {name: found for name, found in left.items() if found}
