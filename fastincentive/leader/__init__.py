"""What the leader sees of the followers, and what it earns."""
