"""The settings of a command that works with the running instance."""

from pipeline import config
from pipeline.config import Settings
from stockify.instance import StateDirectory


def attached_settings() -> Settings:
    """This process's settings, with the running instance's for what the environment leaves open.

    Without a running instance they are the environment's alone.
    """
    settings = config.load()
    running = StateDirectory(settings.state_path()).running()
    return config.load(running.environment) if running else settings
