"""What the application asks of the world, each as a protocol that an adapter implements."""
