"""The WebSocket door: Pulsar's WebSocket API over the port."""
