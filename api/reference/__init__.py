"""What the gateway says of itself: its routes as OpenAPI, its messages as AsyncAPI. No data."""
