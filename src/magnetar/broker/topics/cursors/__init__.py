"""How far a log has been read and acknowledged, and how far it may be."""
