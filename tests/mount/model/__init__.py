"""A model of the tree: the same operations on a plain directory and through every face, compared after each step."""
