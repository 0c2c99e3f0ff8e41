"""Kratos' Admin API: asked over HTTP, with everything bounded."""
