"""A subscription: its cursor and its consumers joined, made durable, counted and shown."""
