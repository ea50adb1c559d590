"""What the command lines share: one clear sentence and a non-zero exit code where a user can help
it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


def run(main: Callable[[], None]) -> None:
    """Call `main`; expected errors become one sentence on stderr and exit code 2.

    ValueError, FileNotFoundError and the like are what the project raises for wrong input, OSError
    for a full disk, FloatingPointError for NaN. RELAM_DEBUG=1 shows the traceback.
    """
    try:
        main()
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("RELAM_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    except KeyboardInterrupt:
        print("interrupted; what was saved is kept, train.py --resume goes on", file=sys.stderr)
        raise SystemExit(130) from None
