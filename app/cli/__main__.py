"""`python -m app.cli`, which is how the supervisor starts the service's own processes."""

from app.cli import main

if __name__ == "__main__":
    main()
