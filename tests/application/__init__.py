"""The application, with no infrastructure under it: ports are served by fakes."""
