"""All stack files of a git repository as one graph: labels, the files themselves, what changed, queries, builds."""
