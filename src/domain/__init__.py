"""What Kratos said, what we hold, and what follows; may know the standard library only."""
