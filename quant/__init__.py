"""A checkpoint becomes smaller."""
