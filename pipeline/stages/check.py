"""A self-test of a config on the user's own data, in about a minute. `podium check CONFIG`.

Every check is a function from the same context to a finding. One that fails, or breaks, never stops the others. All of
it happens on a sample in a temporary folder; in the workspace only the picture is written.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.base.errors import PodiumError, StopRequestedError
from pipeline.records.config import Config
from pipeline.records.runs import Workspace
from pipeline.stages.checks.context import Context, Finding
from pipeline.stages.checks.options import READ, check_options
from pipeline.stages.checks.outputs import COMPLETE, check_outputs
from pipeline.stages.checks.overfit import OVERFIT, check_overfit
from pipeline.stages.checks.sample import take_sample
from pipeline.stages.checks.seen import LABELS, SAME, check_labels, check_same_inputs
from pipeline.stages.checks.shuffled import SHUFFLED, check_shuffled
from pipeline.stages.contact_sheet import SHEET, draw_contact_sheet
from pipeline.stages.machines import Wishes, resolve_machine
from pipeline.training.device import count_cores, threads
from pipeline.training.misfits import try_parts, warnings_of

Say = Callable[[str], None]
Check = Callable[[Context], Finding]

CHECKS: tuple[tuple[str, Check], ...] = (
    (SAME, check_same_inputs),
    (LABELS, check_labels),
    (READ, check_options),
    (OVERFIT, check_overfit),
    (SHUFFLED, check_shuffled),
    (COMPLETE, check_outputs),
)
"""In the order of what rests on what: labels that go astray explain a batch that is not learned."""


LIMIT_SEC = 12.0
"""What a check may take by default, some twice that."""


@dataclass(frozen=True)
class Report:
    """What the checks of a config found."""

    findings: tuple[Finding, ...]
    n_rows: int
    """Rows of the sample."""
    n_all: int
    """Labelled rows of the competition."""
    seconds: float

    @property
    def failed(self) -> list[Finding]:
        """Return the findings that failed."""
        return [finding for finding in self.findings if finding.verdict == "fail"]

    def lines(self) -> list[list[str]]:
        """Return verdict, name and what was found, with advice below it, as they are printed."""
        return [
            [finding.verdict, finding.name, "\n".join(filter(None, (finding.detail, finding.advice)))]
            for finding in self.findings
        ]


def check_config(
    workspace: Workspace,
    config: Config,
    wishes: Wishes,
    say: Say,
    out: Path | None = None,
    limit_sec: float = LIMIT_SEC,
    checks: Sequence[tuple[str, Check]] = CHECKS,
) -> Report:
    """Try a config on a sample of its data and return what was found.

    Args:
        workspace: where everything lies; read only.
        config: what to check.
        wishes: device, threads and workers.
        say: gets a line before each check.
        out: the picture; by default `runs/<task>/<run>-check/augmented.png`.
        limit_sec: see `LIMIT_SEC`.
        checks: which, by name.

    Raises:
        PodiumError: the config does not fit the data, or the data cannot be read, so there is nothing to try.
    """
    started = time.monotonic()
    cores = wishes.threads or count_cores()
    machine = resolve_machine(workspace, config, replace(wishes, jobs=1, threads=cores))
    picture = out or workspace.run(config.task, f"{config.run_name}-check") / "augmented.png"
    with tempfile.TemporaryDirectory(prefix="podium-check-") as folder, threads(machine.threads):
        sample = take_sample(workspace, config, Path(folder), machine.workers, say)
        say(f"checking on {len(sample.rows)} of {sample.n_all} rows")
        try_parts(config.task, config.experiment, sample.array.shape[1:], sample.rows)
        context = Context(sample, machine, limit_sec)
        findings = [_found(name, check, context, say) for name, check in checks]
        findings.append(_found(SHEET, lambda context: draw_contact_sheet(context, picture), context, say))
        findings += [Finding("config", "note", note) for note in [*warnings_of(config.experiment), *_left_out(config)]]
    return Report(tuple(findings), len(sample.rows), sample.n_all, time.monotonic() - started)


def _left_out(config: Config) -> list[str]:
    """Return what is not tried, because it needs more than the sample."""
    experiment = config.experiment
    named = {
        "pseudo:": experiment.pseudo is not None,
        "consistency:": experiment.consistency is not None,
        "model.weights": "weights" in experiment.model.options,
        "train.compile": experiment.train.compile,
    }
    return [f"{key} is left out of this check" for key, is_there in named.items() if is_there]


def _found(name: str, check: Check, context: Context, say: Say) -> Finding:
    """Return what a check found; where it broke, that is the finding."""
    say(f"checking: {name}")
    try:
        return check(context)
    except StopRequestedError:
        raise
    except PodiumError as error:
        return Finding(name, "fail", str(error), "the message above says what to do")
    except Exception as error:
        return Finding(name, "fail", f"{type(error).__name__}: {error}", "the check broke here; so may a training")
