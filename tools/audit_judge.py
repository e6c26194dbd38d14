"""Compares two judges, or a judge with labels: see `audit.main`, whose command this is."""

from audit.main import main, parser

from fgrpo_jax import command

if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
