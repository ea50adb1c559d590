"""Diffusion Reward: how sure a video model of demonstrations is of what comes next."""
