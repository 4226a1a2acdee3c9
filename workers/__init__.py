"""One module a process; workers never import each other."""
