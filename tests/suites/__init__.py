"""One suite for each port, which its fake and its real adapter both pass."""
