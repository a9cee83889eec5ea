"""What proves an answer, by other code than found it."""
