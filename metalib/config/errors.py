"""What is raised for settings that cannot be used."""

from metalib.errors import MetalibError


class ConfigError(MetalibError):
    """A settings file is missing, unreadable, or holds a value that is not allowed."""
