"""A stack of tiers as one store: which of them hold which version of an object, and what moves between them."""
