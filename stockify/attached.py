"""The settings of a command that works with the running instance."""

import msgspec

from pipeline import config
from pipeline.config import PREFIX, Settings
from stockify.instance import StateDirectory


def attached_settings() -> Settings:
    """This process's settings, with the running instance's for what the environment leaves open.

    Without a running instance they are the environment's alone.
    """
    settings = config.load()
    running = StateDirectory(settings.state_path()).running()
    if running is None:
        return settings
    left_open = {
        name: running.environment[PREFIX + name.upper()]
        for name in ("redis_url", "database_url", "jwt_secret")
        if not getattr(settings, name) and PREFIX + name.upper() in running.environment
    }
    return msgspec.structs.replace(settings, **left_open)
