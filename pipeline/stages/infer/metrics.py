"""Which metric scores the answers: as stated, as a text of the host says, else by what the sample asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pipeline.base.errors import ConfigError, listed, nearest
from pipeline.records.scores import METRICS
from pipeline.records.task import Format, Kind
from pipeline.stages.infer.findings import Finding
from pipeline.stages.infer.formats import DEFAULT_K
from pipeline.stages.infer.kinds import evenness
from pipeline.stages.infer.texts import read_texts

Wanted = str | dict[str, Any]
"""A metric by name, or a block with its options, as `metric:` of a task takes it."""

UNEVEN = 0.7
"""Below this evenness of the classes, macro F1 counts all of them alike where accuracy would see the largest only."""

HOST_WORDS: tuple[tuple[str, str], ...] = (
    (r"quadratic(ally)?[\s-]+weighted[\s-]+kappa|\bqwk\b|quadratic kappa|cohen'?s? kappa", "quadratic_kappa"),
    (r"mean[\s-]+average[\s-]+precision\s*(@|at)\s*(?P<k>\d+)|\bmap\s*@\s*(?P<k2>\d+)", "map_at_k"),
    (r"top[\s-]*(?P<k>\d+)[\s-]+accuracy|accuracy\s*@\s*(?P<k2>[2-9]|\d\d+)", "top_k_accuracy"),
    (
        r"mean[\s-]+column[\s-]*wise[\s-]+(roc[\s-]+)?auc|mean[\s-]+(column[\s-]+)?(roc[\s-]+)?auc"
        r"|average of the .{0,40}aucs?",
        "mean_column_auc",
    ),
    (r"kullback|kl[\s-]+divergence|\bkl[\s-]?div", "kl_divergence"),
    (r"log[\s-]*loss|cross[\s-]?entropy|logarithmic loss", "log_loss"),
    (r"area under the (roc|receiver)|roc[\s-]*auc|\bauc\b|\bauroc\b", "roc_auc"),
    (r"mean average precision|average precision", "average_precision"),
    (r"macro[\s-]*(averaged[\s-]+)?f[\s-]?1|f[\s-]?1[\s-]*(score)?[\s,(-]*macro|macro[\s-]+f[\s-]*score", "f1_macro"),
    (r"micro[\s-]*(averaged[\s-]+)?f[\s-]?1|f[\s-]?1[\s-]*(score)?[\s,(-]*micro|micro[\s-]+f[\s-]*score", "f1_micro"),
    (r"mean f[\s-]?1|samples?[\s-]*(averaged[\s-]+)?f[\s-]?1|mean f[\s-]*score", "f1_samples"),
    (r"balanced accuracy|balanced categori[sz]ation accuracy|mean (per[\s-]class )?recall", "balanced_accuracy"),
    (r"root[\s-]+mean[\s-]+squared?[\s-]+error|\brmse\b", "rmse"),
    (r"mean[\s-]+absolute[\s-]+error|\bmae\b", "mae"),
    (r"\br2\b|r[\s-]squared|coefficient of determination|r\^2", "r2"),
    (r"\bf[\s-]?1\b|\bf1[\s-]*score|f[\s-]score|f[\s-]measure", "f1"),
    (r"accuracy|percentage of (correct|images that are correctly)", "accuracy"),
)
"""What hosts call a score, the more special first."""
_FAR = 200
_NEAR = re.compile(r"evaluat|metric|scor|judged|ranked", re.IGNORECASE)


def metric_in_texts(paths: Iterable[Path]) -> list[tuple[Wanted, str]]:
    """Return the metrics that a README or description names, the likeliest first, each with the file's name.

    A name that stands near a word such as `evaluated` or `metric`, and behind it, counts before others.
    """
    found: list[tuple[int, Wanted, str]] = []
    for name_of_file, text in read_texts(paths):
        taken: list[tuple[int, int]] = []
        for pattern, name in HOST_WORDS:
            for hit in re.finditer(pattern, text, re.IGNORECASE):
                if any(start < hit.end() and hit.start() < stop for start, stop in taken):
                    continue  # `accuracy` inside `balanced accuracy`
                taken.append(hit.span())
                found.append((_distance(text, hit), _with_k(name, hit), name_of_file))
    return [(wanted, where) for _, wanted, where in sorted(found, key=lambda each: each[0])]


def find_metric(
    given: Wanted | None,
    told: Sequence[tuple[Wanted, str]],
    kind: Kind,
    form: Format,
    counts: Sequence[int],
    k: int | None,
) -> tuple[Wanted, Finding]:
    """Return the metric as a task states it.

    Args:
        given: what the user states.
        told: what texts of the host name, see `metric_in_texts`.
        kind: what is predicted.
        form: what a row of the submission holds.
        counts: rows of each class; empty where there are none.
        k: how many classes a top-k row lists.

    Raises:
        ConfigError: the stated metric is unknown or does not fit the kind.
    """
    if given is not None:
        _require_known(name_of(given), kind)
        return _with_own_k(given, k), Finding("metric", name_of(given), "as you said")
    for wanted, where in told:
        fitting = _fitting(wanted, kind)
        if fitting is not None:
            return _with_own_k(fitting, k), Finding("metric", name_of(fitting), f"{where} says so", "likely")
    name, reason = _by_form(kind, form, counts)
    return _with_own_k(name, k), Finding("metric", name, reason, "guess")


def name_of(metric: Wanted) -> str:
    """Return the name of a metric."""
    return metric if isinstance(metric, str) else str(metric.get("name", ""))


def _distance(text: str, hit: re.Match[str]) -> int:
    """Return how far a name stands behind a word such as `evaluated`; in front of one, or alone, is farther."""
    before = [found.end() for found in _NEAR.finditer(text, max(0, hit.start() - _FAR), hit.start())]
    if before:
        return hit.start() - before[-1]
    after = _NEAR.search(text, hit.end(), hit.end() + _FAR)
    return _FAR + (after.start() - hit.end() if after else 2 * _FAR + hit.start())


def _by_form(kind: Kind, form: Format, counts: Sequence[int]) -> tuple[str, str]:
    """Return the metric that what is asked for makes likely, and why."""
    if form in ("probability", "per_class", "array") and kind != "regression":
        return "log_loss", "probabilities are asked for; state --metric if the host says another"
    if form == "top_k":
        return "map_at_k", "lists of classes are asked for"
    if kind == "regression":
        return "rmse", "values are asked for"
    if kind == "ordinal":
        return "quadratic_kappa", "grades are asked for"
    if kind == "multilabel":
        return "f1_micro", "sets of labels are asked for"
    even = evenness(counts)
    if counts and even < UNEVEN:
        share = max(counts) / sum(counts)
        return "f1_macro", f"labels are asked for, and the classes are very uneven (the largest has {share:.0%})"
    return "accuracy", "labels are asked for"


def _fitting(wanted: Wanted, kind: Kind) -> Wanted | None:
    """Return a told metric if it fits the kind, or its sister for that kind (the AUC of several labels)."""
    name = name_of(wanted)
    sisters = {"roc_auc": "mean_column_auc", "mean_column_auc": "roc_auc", "f1": "f1_macro", "f1_samples": "f1_micro"}
    for candidate in (name, sisters.get(name, "")):
        if candidate in METRICS and METRICS[candidate].fits(kind):
            return wanted if candidate == name else candidate
    return None


def _require_known(name: str, kind: Kind) -> None:
    if ":" in name:
        return
    if name not in METRICS:
        raise ConfigError(
            f"--metric {name}: unknown.{nearest(name, METRICS)} Known: {listed(METRICS)}, or module:function"
        )
    if not METRICS[name].fits(kind):
        fitting = [other for other, info in METRICS.items() if info.fits(kind)]
        raise ConfigError(
            f"--metric {name}: does not fit {kind} tasks; these do: {listed(fitting)}. Say kind=... if it is another"
        )


def _with_k(name: str, hit: re.Match[str]) -> Wanted:
    groups = hit.groupdict()
    k = groups.get("k") or groups.get("k2")
    return {"name": name, "options": {"k": int(k)}} if k else name


def _with_own_k(metric: Wanted, k: int | None) -> Wanted:
    """Return a metric of lists with the length that the sample's lists have, unless it states one."""
    if name_of(metric) != "map_at_k" or not isinstance(metric, str) or k in (None, DEFAULT_K):
        return metric
    return {"name": metric, "options": {"k": k}}
