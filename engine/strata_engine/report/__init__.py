"""Reports: what is known of one build, as one HTML page that needs nothing beside it."""
