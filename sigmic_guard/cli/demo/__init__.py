"""``sigmic-guard demo``: three processes, two sets of books.

::

    stage ── starts ──> emulator    a Sigmic API; DELETEs and creates meet faults
      │                    ^
      │                    │ HTTP
      └──── starts ──> worker       a supervisor, some hundred tasks, Prometheus metrics
            SIGTERM

* :mod:`.workload`: what the tasks are and what becomes of them,
* :mod:`.worker`: the process that runs them; it tells its metrics in lines of JSON,
* :mod:`.counts`: what those lines hold, read from a Prometheus registry,
* :mod:`.verdict`: the supervisor's counts beside the emulator's truth,
* :mod:`.display`: the screens,
* :mod:`.stage`: what starts the two others, sends the SIGTERM and has the last word.
"""
