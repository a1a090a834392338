"""What the rows share: the contest, its processes, the judging and the report.

A row (``core/model.py``) says what is compared. The runner (``core/contest.py``) lets its
contestants take turns, each in a fresh process (``core/child.py``), against a server in a process
of its own (``benchmarks/server.py``). ``core/judging.py`` holds the goals against the medians.
"""
