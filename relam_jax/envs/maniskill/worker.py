"""A process full of CPU simulations: `python -m relam_jax.envs.maniskill.worker FD`.

Answers requests `(method, group, arguments)` on the socket FD with `(True, result)` or `(False,
sentence)`, until the other end closes.
"""

from __future__ import annotations

import signal
import sys
from multiprocessing.connection import Connection
from typing import Any


def main(descriptor: int) -> None:
    """Serve until the other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that asks
    channel = Connection(descriptor)
    import torch  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(1)
    from relam_jax.envs.maniskill.simulations import Simulations, describe

    groups: dict[int, Simulations] = {}

    def serve(method: str, group: int, arguments: tuple[Any, ...]) -> Any:
        if method == "describe":
            return describe(*arguments)
        if method == "open":
            groups[group] = Simulations(*arguments)
            return None
        if method == "close":
            return groups.pop(group, None) and None
        return getattr(groups[group], method)(*arguments)

    while True:
        try:
            request = channel.recv()
        except (EOFError, OSError):
            return
        try:
            answer = (True, serve(*request))
        except Exception as error:
            answer = (False, (str(error).strip() or type(error).__name__).splitlines()[0])
        try:
            channel.send(answer)
        except OSError:
            return


if __name__ == "__main__":
    main(int(sys.argv[1]))
