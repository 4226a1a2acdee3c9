"""The settings of a command that works with the running instance."""

from pipeline import config
from pipeline.config import Settings
from stockify.instance import StateDirectory


def attached_settings() -> Settings:
    """The running instance's settings, its addresses included, unless the environment differs.

    Without a running instance they are this process's alone.
    """
    settings = config.load()
    running = StateDirectory(settings.state_path()).running()
    return settings if running is None else config.load(running.environment)
