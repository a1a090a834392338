"""The command line: ``sigmic-guard``, or ``python -m sigmic_guard.cli``.

It needs the extra ``cli``. What the exit codes mean stands in :mod:`sigmic_guard.cli.codes`.
"""

from __future__ import annotations

import sys
from importlib import import_module

#: What the extra brings.
_EXTRA = frozenset({"click", "rich", "typer"})


def main() -> None:
    """Run the command line and exit."""
    try:
        import_module("sigmic_guard.cli.app").main()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        sys.stderr.write(
            f"sigmic-guard: {missing} is missing; "
            "the command line needs it: pip install 'sigmic-guard[cli]'\n"
        )
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
