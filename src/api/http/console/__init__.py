"""The console: is our copy right, what is wrong, and put it right. For operators, in a browser."""
