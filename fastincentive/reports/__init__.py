"""Texts and tables that people read."""
