"""The keypoint reward and its stage machine."""
