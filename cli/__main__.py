"""`./kdrift COMMAND ...`, where everything is installed: each command is the module of its name, but those that run pytest share one."""
import sys
from importlib import import_module

OF_PYTEST = ("validate", "pytest", "selftest")


def main(arguments: list[str]) -> int:
    command, *options = arguments
    if command in OF_PYTEST:
        status: int = import_module("cli.run").main(arguments)
    else:
        status = import_module(f"cli.{command}").main(options)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
