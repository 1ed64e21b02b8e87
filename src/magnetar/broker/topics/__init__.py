"""The core: topics, subscriptions, cursors. Speaks no protocol, opens no file."""
