"""N environments on the CPU: one-environment simulations spread over worker processes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from relam_jax.envs.maniskill.description import Description, Frame
from relam_jax.envs.maniskill.processes import WorkerDiedError, shared_workers

_GROUPS = itertools.count()
_MAX_DEATHS = 3


class CpuSimulator:
    """Steps N simulations; what a dead worker had is rebuilt from seeds and actions.

    An episode is a function of its seed and its actions, so a rebuilt simulation is the same.
    """

    def __init__(self, env_id: str, num_envs: int, num_workers: int, reward: bool) -> None:
        """Raises ValueError if there is no such task, or ManiSkill is missing."""
        self._workers = shared_workers(min(num_workers, num_envs))
        self._env_id, self._reward, self._group = env_id, reward, next(_GROUPS)
        self._rows = np.array_split(np.arange(num_envs), len(self._workers))
        self._opened = [-1] * len(self._workers)
        self._seeds = np.full(num_envs, -1)
        self._actions: list[list[tuple[np.ndarray, int]]] = [[] for _ in range(num_envs)]
        self.num_deaths = 0
        first = self._workers[0]
        first.send("describe", 0, env_id)
        self.description: Description = first.receive()

    def reset(self, mask: np.ndarray, seeds: Int[np.ndarray, " N"]) -> Frame:
        """Start new episodes where `mask`; the other rows of the result are 0."""
        requests = [(rows[mask[rows]], (seeds,)) for rows in self._rows]
        frame = self._call("reset", requests)
        for row in np.flatnonzero(mask).tolist():
            self._seeds[row], self._actions[row] = seeds[row], []
        whole = Frame(*(np.zeros((len(mask), *x.shape[1:]), x.dtype) for x in frame))
        for all_rows, new in zip(whole, frame, strict=True):
            all_rows[mask] = new
        return whole

    def step(self, action: Float[np.ndarray, "N A"], repeats: Int[np.ndarray, " N"]) -> Frame:
        """Apply each action for its number of env_steps."""
        action = np.asarray(action, np.float32)
        frame = self._call("step", [(rows, (action, repeats)) for rows in self._rows])
        for row in np.flatnonzero(repeats).tolist():
            self._actions[row].append((action[row].copy(), int(repeats[row])))
        return frame

    def states(self) -> Float[np.ndarray, "N S"]:
        """ManiSkill's flat state vectors."""
        return self._call("states", [(rows, ()) for rows in self._rows])

    def snapshot(self, longest: int) -> dict[str, np.ndarray]:
        """The running episodes, of at most `longest` agent steps: seeds (N,), actions (N, T, A) and
        repeats (N, T), 0 where an episode has not come so far."""
        num_envs = len(self._seeds)
        actions = np.zeros((num_envs, longest, self.description.action_dim), np.float32)
        repeats = np.zeros((num_envs, longest), np.int64)
        for row, taken in enumerate(self._actions):
            for t, (action, times) in enumerate(taken):
                actions[row, t], repeats[row, t] = action, times
        return {"seeds": self._seeds.copy(), "actions": actions, "repeats": repeats}

    def restore(self, snapshot: dict[str, np.ndarray]) -> None:
        """Bring all environments to where `snapshot` found them, by doing it all again."""
        seeds, repeats = snapshot["seeds"], snapshot["repeats"]
        self.reset(np.ones(len(seeds), bool), seeds)
        for t in range(int((repeats > 0).any(0).sum())):
            self.step(snapshot["actions"][:, t], repeats[:, t])

    def close(self) -> None:
        """Free the simulations; the processes stay for the next environments."""
        for worker, generation in zip(self._workers, self._opened, strict=True):
            if generation == worker.generation:
                try:
                    worker.send("close", self._group)
                    worker.receive()
                except WorkerDiedError:
                    pass

    def _call(self, method: str, requests: list[tuple[np.ndarray, tuple[Any, ...]]]) -> Any:
        """The same method on every worker's rows, at once; arguments are indexed by row."""
        asked: list[int] = []
        for index, (rows, arguments) in enumerate(requests):
            if len(rows):
                self._send(index, method, rows, arguments)
                asked.append(index)
        answers = [self._receive(index, method, *requests[index]) for index in asked]
        if isinstance(answers[0], Frame):
            return Frame(*(np.concatenate(parts) for parts in zip(*answers, strict=True)))
        return np.concatenate(answers)

    def _send(self, index: int, method: str, rows: np.ndarray, arguments: tuple[Any, ...]) -> None:
        worker = self._workers[index]
        local = (rows - self._rows[index][0]).tolist()
        mine = tuple(a[rows] for a in arguments)
        if method == "reset":
            mine = (mine[0].tolist(),)
        for _ in range(_MAX_DEATHS):
            try:
                if self._opened[index] != worker.generation:
                    self._rebuild(index)
                return worker.send(method, self._group, local, *mine)
            except WorkerDiedError:
                self.num_deaths += 1
                worker.restart()
        raise OSError(
            "a simulation process dies again and again: is there enough memory? "
            "Use fewer environments (--num_envs)"
        )

    def _receive(self, index: int, method: str, rows: np.ndarray, arguments: tuple) -> Any:
        for _ in range(_MAX_DEATHS):
            try:
                return self._workers[index].receive()
            except WorkerDiedError:
                self.num_deaths += 1
                self._workers[index].restart()
                self._send(index, method, rows, arguments)
        raise OSError(f"a simulation process dies whenever it is asked to {method}")

    def _rebuild(self, index: int) -> None:
        """Make a worker's simulations anew and bring them to where they were."""
        worker, rows = self._workers[index], self._rows[index]
        worker.send("open", self._group, self._env_id, len(rows), self._reward)
        worker.receive()
        started = [r for r in rows.tolist() if self._seeds[r] >= 0]
        if started:
            local = [r - rows[0] for r in started]
            worker.send("reset", self._group, local, self._seeds[started].tolist())
            worker.receive()
        for t in range(max((len(self._actions[r]) for r in started), default=0)):
            going = [r for r in started if len(self._actions[r]) > t]
            actions = np.stack([self._actions[r][t][0] for r in going])
            repeats = np.array([self._actions[r][t][1] for r in going])
            worker.send("step", self._group, [r - rows[0] for r in going], actions, repeats)
            worker.receive()
        self._opened[index] = worker.generation
