"""A stand-in of Kratos' Admin API, for tests and for benchmarks."""
