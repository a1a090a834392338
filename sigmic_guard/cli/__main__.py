"""``python -m sigmic_guard.cli``."""

from sigmic_guard.cli import main

if __name__ == "__main__":
    main()
