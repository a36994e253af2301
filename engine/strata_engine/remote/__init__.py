"""Remote caches: blobs and results of actions, shared over protocols and servers that already exist."""
