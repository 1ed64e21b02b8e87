"""From an open producer into the log: rows ordered, stamped, deduplicated, and reported durable."""
