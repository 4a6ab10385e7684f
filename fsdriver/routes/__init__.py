"""A path of the tree bound to a backend: its names, their changes, and reading and writing its files."""
