"""Tests by layer: unit (no servers), service (real servers), mount (real kernel), consumers, conformance, packaging."""
