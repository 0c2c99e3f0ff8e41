"""The whole service, as the processes it is run as."""
