"""What every other part may use: files, keyed randomness, processes, devices, signals, the console."""
