"""What developing and testing exec-events needs, and using it does not."""
