"""The bridge to a cluster: the official Pulsar client and admin REST, thinly."""
