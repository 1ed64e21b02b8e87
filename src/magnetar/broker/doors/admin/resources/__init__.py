"""What can be asked about each noun: one file for each, one function for each call."""
