"""Bytes to commands and back, per protocol. Pure: no socket, clock, thread or log line."""
