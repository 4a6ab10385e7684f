"""What exists below one route: listings, lookups, walks, and what is remembered of them."""
