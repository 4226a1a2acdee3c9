"""The command: it composes the rooms into an instance and keeps its processes alive."""
