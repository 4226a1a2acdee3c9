"""The provider's data into the raw stream, exactly as received."""
