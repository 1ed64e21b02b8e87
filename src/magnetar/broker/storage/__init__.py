"""Durable bytes. Knows entries and ledgers, not topics."""
