"""How fast the service is, measured from outside: real commands, real servers, real webhooks."""
