"""The Pulsar binary protocol as bytes."""
