"""The load generator: sends the interactions of a file to a running API, at a given rate."""
