"""A page of the live tasks, with a cancel button for each: :func:`admin_app`."""

from sigmic_guard.integrations.admin.app import admin_app

__all__ = ["admin_app"]
