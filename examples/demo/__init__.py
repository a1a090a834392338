"""The demo: two acts, and for each two sets of books.

::

    stage ── starts ──> emulator    a Sigmic API; DELETEs and creates meet faults
      │                    ^
      │                    │ HTTP
      └──── starts ──> worker       a supervisor, some hundred tasks, Prometheus metrics
            SIGTERM

    stage ── starts ──> emulator    another one; creates hang, DELETEs meet faults
      │                    ^
      │                    │ HTTP
      ├──── starts ──> service ──┐  tasks are live, creates are in flight
      │     SIGKILL              ├─ one ledger
      └──── starts ──> service ──┘  the same program again, which reaps

* :mod:`.stage`: plays both, and has the last word,
* :mod:`.shutdown`: act one, the SIGTERM; :mod:`.death`: act two, the SIGKILL,
* :mod:`.worker`: the process of act one; it tells its metrics in lines of JSON,
* :mod:`.workload`: what its tasks are and what becomes of them,
* :mod:`.service`: the process of act two, which tells them likewise,
* :mod:`.processes`: how these are started and ended, and the emulator asked,
* :mod:`.counts`: what the lines of JSON hold, read from a Prometheus registry,
* :mod:`.verdict`: the supervisor's counts beside the emulator's truth,
* :mod:`.screens`: both of them in tables, :mod:`.display`: the terminal and the picture.
"""
