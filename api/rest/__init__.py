"""REST below `/v1`: routes, how they are asked, how they are answered. Holds no state."""
