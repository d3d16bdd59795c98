"""`python -m ce_align` is `ce-align`."""

from ce_align.cli import main

if __name__ == "__main__":
    main()
