"""The last message of every key: made in two passes, kept as a view, read instead of the log."""
