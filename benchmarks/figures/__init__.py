"""One module a figure; `benchmarks.harness.figures` imports them all."""
