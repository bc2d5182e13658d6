"""Day-to-day commands behind `./spark`."""
