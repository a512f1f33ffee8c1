"""The command line: parse, call one stage or chain, print one summary table."""

from pipeline.commands import models, plan, results  # each registers its commands
from pipeline.commands.app import app, run

__all__ = ["app", "models", "plan", "results", "run"]
