"""The sensor story: queues, streams and replay on real readings, and a killed broker."""
