"""What Kratos answered about single identities, and who wants it to be asked."""
