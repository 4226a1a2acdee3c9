"""Claims about the command and its rooms."""
