"""`python -m label2label`."""

import sys

from label2label.cli import main

if __name__ == "__main__":
    sys.exit(main())
