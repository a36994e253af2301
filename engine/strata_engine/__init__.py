"""The build engine: content-hashed actions, a store, a scheduler. It knows nothing of Python environments."""
