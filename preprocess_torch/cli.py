"""`python -m preprocess_torch`: exit code 0, 1 (videos failed, disk full) or 2 (the command is
wrong)."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import tyro

from preprocess_torch.config import PreprocessConfig
from preprocess_torch.discover import find_data_sets
from preprocess_torch.errors import UsageError, printable
from preprocess_torch.run import Summary, run_data_set

PROG = "python -m preprocess_torch"
DESCRIPTION = """Videos → keypoint records.

`python -m preprocess_torch inspect data/<task>` makes a page that shows them."""
FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk is full",
    errno.EFBIG: "a file may not grow so large here (ulimit -f)",
}


def main(args: list[str] | None = None) -> int:
    """Parse `args` (default: the command line), run, return the exit code."""
    args = sys.argv[1:] if args is None else args
    try:
        return _inspect(args[1:]) if args[:1] == ["inspect"] else _preprocess(args)
    except OSError as error:
        if error.errno in FULL:
            print(
                f"error: {FULL[error.errno]}; finished videos are kept: free some space and run "
                "the same command again",
                file=sys.stderr,
            )
        else:
            print(printable(f"error: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _preprocess(args: list[str]) -> int:
    config = tyro.cli(PreprocessConfig, args=args, prog=PROG, description=DESCRIPTION)
    summaries, wrong = preprocess(config)
    for message in wrong:
        print(printable(f"error: {message}"), file=sys.stderr)
    none_done = any(summary.done + summary.skipped == 0 for summary in summaries)
    any_failed = any(summary.failed for summary in summaries)
    return 2 if wrong else int(none_done or (config.strict and any_failed))


def _inspect(args: list[str]) -> int:
    from preprocess_torch.inspection import InspectConfig, inspect  # matplotlib takes a while

    config = tyro.cli(InspectConfig, args=args, prog=f"{PROG} inspect")
    try:
        print(f"open {inspect(config, args)}")
    except UsageError as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return 2
    return 0


def preprocess(config: PreprocessConfig) -> tuple[list[Summary], list[str]]:
    """Every data set that `config.data` holds, one after the other.

    Returns what came of them, and why those that could not be begun could not.
    """
    try:
        data_sets = find_data_sets(config.data)
    except UsageError as error:
        return [], [str(error)]
    summaries, wrong = [], []
    for folder, below in data_sets:
        if below == Path():
            out = config.out or Path("data") / folder.resolve().name
        else:
            out = (config.out or Path("data")) / below
        try:
            summaries.append(run_data_set(config, folder, out))
            print(printable(str(summaries[-1])))
        except UsageError as error:
            wrong.append(str(error))
    return summaries, list(dict.fromkeys(wrong))
