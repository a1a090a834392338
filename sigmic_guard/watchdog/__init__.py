"""``Supervisor(watchdog=True)``: a helper process that ends a dead process's tasks at once.

* :mod:`.parent`: starts the helper, and keeps it running,
* :mod:`.helper`: the helper process itself.
"""
