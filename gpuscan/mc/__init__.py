"""Monte Carlo chains on the device."""
