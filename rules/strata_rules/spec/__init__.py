"""The stack file: read, checked, and what it says of layers, modules and package indexes."""
