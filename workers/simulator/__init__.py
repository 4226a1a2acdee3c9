"""A simulated exchange behind the provider's own REST interface."""
