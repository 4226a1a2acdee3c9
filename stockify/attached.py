"""The settings of a command that works with the running instance."""

from pipeline.attached import attached_settings

__all__ = ["attached_settings"]
