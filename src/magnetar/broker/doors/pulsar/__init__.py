"""The door for Pulsar clients."""
