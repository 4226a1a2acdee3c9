"""The live feed: sockets, the fan-out behind them, and what they say. Reads no database."""
