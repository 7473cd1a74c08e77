"""``python -m nwbflow.cli`` is the ``nwbflow`` command."""

from nwbflow.cli.app import main

raise SystemExit(main())
