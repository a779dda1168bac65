"""Read, frame and write datasets in a common schema, for the programs in `datasets_scripts/`."""

import sys

try:
    import datasets  # noqa: F401
    import label2label  # noqa: F401
    import pyarrow  # noqa: F401
except ImportError as error:
    sys.exit(f"error: {error.name} is missing: pip install 'label2label[train]'")
