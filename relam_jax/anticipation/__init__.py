"""Anticipation: from the first frame of an episode to its chain of subgoals."""
