"""What authors of consumers test with."""
