"""The history of the application's schema."""
