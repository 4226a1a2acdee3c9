"""The subcommands, a file each, so that one loads only what it needs."""
