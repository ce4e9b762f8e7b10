"""The command `helmops`, also as `python -m helmops`."""


def main() -> None:
    """Run the command line and exit with its status."""
    from helmops.cli.app import run

    run()


if __name__ == "__main__":
    main()
