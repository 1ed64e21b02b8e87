"""What a topic may do and keep: policies, rates, quotas' arithmetic. Pure; clocks are arguments."""
