"""Standalone: every process on one machine."""
