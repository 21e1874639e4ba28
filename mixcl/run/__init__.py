"""A job on this machine: which jobs there are, their card, checkpoints, device, and what decides the bits."""
