"""gunicorn's configuration, as `docs/operations.md` shows it."""

from sigmic_guard.integrations.metrics import child_exit

__all__ = ["child_exit"]
