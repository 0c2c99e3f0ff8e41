"""HTTP: the web application and its endpoints."""
