"""HTTP itself, and what processes say to each other by it. Knows no tenant and no topic."""
