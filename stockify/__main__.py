"""`python -m stockify` is the console script."""

from stockify.cli import main

if __name__ == "__main__":
    main()
