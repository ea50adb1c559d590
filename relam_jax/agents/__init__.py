"""Networks, SAC and replay."""
