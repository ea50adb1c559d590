"""Keypoint records, selection and keyframes (numpy; importing this never imports jax)."""
