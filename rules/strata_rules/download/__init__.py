"""Downloads by SHA-256: resumed, retried, and never with a login for another host."""
