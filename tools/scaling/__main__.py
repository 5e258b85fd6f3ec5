"""python -m tools.scaling"""

from tools.scaling.cli import main

if __name__ == "__main__":
    main()
