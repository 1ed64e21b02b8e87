"""Measurements. Each program here starts what it measures, and prints what it saw."""
