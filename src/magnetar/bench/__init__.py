"""A load generator for any broker that speaks the Pulsar protocol, and what its runs have cost."""
