"""relam_jax: learn to manipulate from action-free videos through anticipated keypoints (ReLAM,
arXiv 2509.22402)."""

__version__ = "0.1.0"
