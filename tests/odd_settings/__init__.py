"""The suite's core on a database, and as a role, with settings that nobody would choose."""
