"""Comparing our rows with Kratos' listing, in the database."""
