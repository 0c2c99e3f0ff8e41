"""What the domain promises, without any infrastructure."""
