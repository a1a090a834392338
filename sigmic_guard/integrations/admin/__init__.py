"""A page of the live tasks, with a cancel button for each.

:func:`admin_app` is one for ASGI, :func:`admin_subapp` for aiohttp.web.
"""

from sigmic_guard.integrations.admin.aiohttp_web import admin_subapp
from sigmic_guard.integrations.admin.asgi import admin_app

__all__ = ["admin_app", "admin_subapp"]
