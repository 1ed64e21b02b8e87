"""The only sockets. Each door turns protocol words into core words."""
