"""Imported first by every launcher: the code, and so conf/, comes from the checkout that the launcher is in.

Without it a launcher of a second checkout would run the code and the settings of the one that is installed.
The ranks find their modules by Python's own search, so they get the same folder through PYTHONPATH.
"""

import os
import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[1])

sys.path.insert(0, ROOT)
others = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path not in ("", ROOT)]
os.environ["PYTHONPATH"] = os.pathsep.join([ROOT, *others])
