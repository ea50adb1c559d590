"""Pinhole projection and farthest point sampling (numpy only)."""
