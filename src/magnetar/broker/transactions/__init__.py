"""Transactions: opening, deciding and finishing them. What topics do for them is in `topics`."""
