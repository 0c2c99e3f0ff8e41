"""What else one could write: short programs that do the same work with what people know."""
