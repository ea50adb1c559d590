"""See cli.py."""

from preprocess_torch.cli import main

raise SystemExit(main())
