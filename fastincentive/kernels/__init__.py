"""Numba kernels: arrays in, arrays out; no classes, no strings, no I/O."""
