"""Schemas: which versions a topic has, and whether one more goes with them."""
