"""Benchmarks: frozen cases, certified answers, and timings beside what a user would pick instead.

The outermost room: only the command line and ``benchmarks/`` import it.
"""
