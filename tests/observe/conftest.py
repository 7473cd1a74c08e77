"""Makes the made-up runs importable: tests are imported one by one, without packages."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
