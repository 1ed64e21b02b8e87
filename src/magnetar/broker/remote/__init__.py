"""The port once more, for topics that another process owns."""
