"""Errors a user can act on: each says in one sentence what is wrong and what to do."""


class CheckpointError(OSError):
    """A checkpoint on disk or on the hub cannot be read or written as asked."""


class ConfigError(ValueError):
    """A configuration that no model can be built from."""
