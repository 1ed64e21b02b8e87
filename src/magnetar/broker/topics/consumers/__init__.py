"""Who gets which entry, and how it is handed over: by subscription type."""
