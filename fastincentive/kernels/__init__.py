"""Numba kernels: arrays (and NamedTuples of arrays) in, arrays out; no classes, strings, I/O."""
