"""The broker: keeps the log, answers the protocols. Nothing outside imports it."""
