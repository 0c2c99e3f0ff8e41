"""A team's Kratos configuration: the hooks it should have, and what is wrong with it."""
