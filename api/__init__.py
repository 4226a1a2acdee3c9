"""The gateway: REST, WebSocket and the page. Stateless; imports no worker."""
