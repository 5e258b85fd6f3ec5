"""python -m tools.upgrading"""

from tools.upgrading.cli import main

if __name__ == "__main__":
    main()
