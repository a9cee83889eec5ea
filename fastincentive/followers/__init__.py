"""Followers: tabular models, how they answer, and what their policies are worth."""
