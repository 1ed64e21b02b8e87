"""Small facts that must survive: tenants, namespaces, topics, ledgers, cursors."""
