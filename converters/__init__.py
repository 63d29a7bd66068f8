"""A checkpoint becomes an artifact."""
