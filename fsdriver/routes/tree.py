"""The tree: all routes as one namespace, resolved by the longest path prefix."""

from __future__ import annotations

from collections.abc import Sequence

from fsdriver.errors import NotFound
from fsdriver.routes.route import Route


class Tree:
    """Routes by path; the deepest one that contains a path answers for it.

    Parameters
    ----------
    routes : sequence of Route
        Their paths differ.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = sorted(routes, key=lambda route: len(route.path), reverse=True)

    def resolve(self, path: str) -> tuple[Route, str]:
        """Route of a tree path and the path within it.

        Raises
        ------
        NotFound
            No route contains it.
        """
        clean = "/" + path.strip("/")
        for route in self.routes:
            if route.path == "/":
                return route, clean[1:]
            if clean == route.path or clean.startswith(f"{route.path}/"):
                return route, clean[len(route.path) + 1 :]
        known = ", ".join(sorted(route.path for route in self.routes)) or "none"
        raise NotFound(f"no route contains this path; routes: {known}", clean)

    def covering(self, path: str) -> list[tuple[Route, str]]:
        """The route that holds a path, with the path inside it, and every route below; raises NotFound."""
        clean = "/" + path.strip("/")
        below = [(route, "") for route in self.routes if f"{route.path}/".startswith(f"{clean.rstrip('/')}/")]
        if any(route.path == clean for route, _ in below):
            return below
        return [self.resolve(path), *below] if not below or clean != "/" else below

    def children(self, path: str) -> Sequence[str]:
        """Names that must show in a directory because routes hang at or below them."""
        clean = "/" + path.strip("/")
        prefix = clean if clean.endswith("/") else f"{clean}/"
        below = {route.path[len(prefix) :].split("/")[0] for route in self.routes if route.path.startswith(prefix)}
        return sorted(below - {""})
