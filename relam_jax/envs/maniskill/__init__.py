"""ManiSkill 3 behind the batched protocol: GPU simulation, or many CPU simulations in processes."""
