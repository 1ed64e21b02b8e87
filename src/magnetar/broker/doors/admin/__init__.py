"""The door for administrators: REST over HTTP."""
