"""What the files that deploy us promise, read as text: no test here needs Docker or a network."""
