"""How objects look on a store that compresses or encrypts them."""
