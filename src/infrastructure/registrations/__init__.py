"""The projection that CountRegistrations keeps."""
