"""The command line: parse, call one stage or chain, print one summary table."""

from pipeline.commands import data, init, models, plan, results, study  # each registers its commands
from pipeline.commands.app import app, run

__all__ = ["app", "data", "init", "models", "plan", "results", "run", "study"]
