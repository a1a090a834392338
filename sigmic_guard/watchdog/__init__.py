"""``Supervisor(watchdog=True)``: a helper process that ends a dead process's tasks at once.

* :mod:`.parent`: keeps a helper running, :mod:`.process`: one helper, as its parent has it,
* :mod:`.messages`: what the parent tells it,
* :mod:`.helper`: what runs in the helper's process,
* :mod:`.reaping`: how it reaps, as do ``sigmic-guard exec`` and ``sigmic-guard reap``.
"""
