"""The figures of the project: ratios against what the machine does without fsdriver, measured in interleaved pairs.

``python -m benchmarks`` runs all of them, ``python -m benchmarks --list`` names them. A figure is one small file in
``benchmarks/figures``; `benchmarks.harness` measures, `benchmarks.environment` supplies servers, mounts and data.
"""
