"""What tests of programs built on fsdriver can use: real servers and conformance suites."""
