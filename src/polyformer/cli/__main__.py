"""`python -m polyformer.cli` does what `polyformer` does."""

import sys

from polyformer.cli import main

if __name__ == "__main__":
    sys.exit(main())
