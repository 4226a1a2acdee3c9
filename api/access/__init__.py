"""Who asks, what he may see and how often. Never serves data."""
