"""Benchmarks of fastincentive, run by asv and by pytest-benchmark."""
