"""The loop: start, iterate a method, recover, refine, report."""
