"""What a user would pick instead: started, loaded and stopped by the same runner as Magnetar."""
