"""What users hold: the supervisor, its blocks and handles, and the wiring behind them."""
