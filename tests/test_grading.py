"""The grader, which refuses what a host refuses and scores the rest, and the table of competitions that it makes."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from grading import METRICS, GradingError, Rules, check, grade
from sklearn import metrics as sk

from pipeline.base.errors import DataError, PodiumError

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import formats

IDS = ["b.png", "a.png", "c.png", "d.png"]


def write(path: Path, columns: dict[str, list[object]], index: bool = False) -> Path:
    pd.DataFrame(columns).to_csv(path, index=index)
    return path


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    sample = write(tmp_path / "sample.csv", {"id": IDS, "label": ["ant"] * 4})
    return Rules("label", "accuracy", sample, labels=("ant", "bee"))


def test_a_right_submission_is_joined_to_the_answers_by_id(tmp_path: Path, rules: Rules) -> None:
    given = write(tmp_path / "given.csv", {"id": IDS, "label": ["ant", "bee", "ant", "bee"]})
    answers = write(tmp_path / "answers.csv", {"id": sorted(IDS), "label": ["bee", "ant", "bee", "bee"]})
    assert grade(given, rules, answers) == 0.75


def test_the_answers_may_call_the_id_otherwise(tmp_path: Path, rules: Rules) -> None:
    given = write(tmp_path / "given.csv", {"id": IDS, "label": ["ant", "bee", "ant", "bee"]})
    answers = write(tmp_path / "answers.csv", {"image": sorted(IDS), "chain": [1, 1, 2, 2], "Label": ["bee"] * 4})
    assert grade(given, rules, answers) == 0.5
    strangers = write(tmp_path / "others.csv", {"image": ["x", "y"], "label": ["bee"] * 2})
    with pytest.raises(GradingError, match="no column with the ids"):
        grade(given, rules, strangers)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": IDS, "species": ["ant"] * 4}, "columns"),
        ({"label": ["ant"] * 4, "id": IDS}, "columns"),
        ({"id": IDS[:3], "label": ["ant"] * 3}, r"3 ids, the sample has 4.*d.png"),
        ({"id": [*IDS[:3], "e.png"], "label": ["ant"] * 4}, r"d.png.*e.png"),
        ({"id": [*IDS[:3], "a.png", "d.png"], "label": ["ant"] * 5}, r"5 ids.*a.png"),
        ({"id": sorted(IDS), "label": ["ant"] * 4}, "order"),
        ({"id": IDS, "label": ["ant", "", "ant", "bee"]}, r"'label', row 1.*empty"),
        ({"id": IDS, "label": ["ant", "bee", "yak", "bee"]}, r"row 2: 'yak'"),
    ],
)
def test_what_a_host_refuses(tmp_path: Path, rules: Rules, columns: dict[str, list[object]], message: str) -> None:
    given = write(tmp_path / "given.csv", columns)
    with pytest.raises(GradingError, match=message):
        check(given, rules)


def test_an_integer_column_stays_one(tmp_path: Path) -> None:
    sample = write(tmp_path / "sample.csv", {"id": [1, 2], "grade": [0, 0]})
    rules = Rules("label", "quadratic_kappa", sample)
    check(write(tmp_path / "whole.csv", {"id": [1, 2], "grade": [3, 4]}), rules)
    with pytest.raises(GradingError, match="holds integers"):
        check(write(tmp_path / "given.csv", {"id": [1, 2], "grade": [3.0, 4.0]}), rules)


def test_ids_are_text(tmp_path: Path) -> None:
    sample = write(tmp_path / "sample.csv", {"id": ["007", "08"], "y": ["1", "1"]})
    with pytest.raises(GradingError, match="007"):
        check(write(tmp_path / "given.csv", {"id": [7, 8], "y": [1, 2]}), Rules("values", "rmse", sample))


def test_an_unnamed_index_column_may_be_kept_or_left_out(tmp_path: Path) -> None:
    sample = write(tmp_path / "sample.csv", {"id": IDS, "label": ["ant"] * 4}, index=True)
    rules = Rules("label", "accuracy", sample)
    for index in (True, False):
        check(write(tmp_path / "given.csv", {"id": IDS, "label": ["bee"] * 4}, index), rules)


@pytest.mark.parametrize("cell", ["1.2", "-0.1", "nan", "inf", "", "much"])
def test_numbers_out_of_range(tmp_path: Path, cell: str) -> None:
    sample = write(tmp_path / "sample.csv", {"id": IDS, "p": ["0.5"] * 4})
    given = write(tmp_path / "given.csv", {"id": IDS, "p": ["0.5", cell, "0", "1"]})
    with pytest.raises(GradingError, match="row 1"):
        check(given, Rules("probability", "log_loss", sample))


def test_values_have_the_range_of_the_rules(tmp_path: Path) -> None:
    sample = write(tmp_path / "sample.csv", {"id": IDS, "y": [5] * 4})
    given = write(tmp_path / "given.csv", {"id": IDS, "y": [1, 100, 101, 50]})
    check(given, Rules("values", "rmse", sample))
    with pytest.raises(GradingError, match=r"row 2: '101'"):
        check(given, Rules("values", "rmse", sample, low=1, high=100))


def test_shares_of_a_row_sum_to_one(tmp_path: Path) -> None:
    sample = write(tmp_path / "sample.csv", {"id": IDS, "ant": [0.5] * 4, "bee": [0.5] * 4})
    rules = Rules("per_class", "log_loss", sample)
    given = write(tmp_path / "given.csv", {"id": IDS, "ant": [0.5] * 4, "bee": [0.5, 0.5, 0.4, 0.5]})
    check(given, rules)
    with pytest.raises(GradingError, match=r"row 2 sums to 0\.9"):
        check(given, replace(rules, sums_to_one=True))


@pytest.mark.parametrize(("cell", "is_fine"), [("1 2 3", True), ("1 1 2", False), ("1 2 3 4", False), ("1 9", False)])
def test_ranked_labels(tmp_path: Path, cell: str, is_fine: bool) -> None:
    sample = write(tmp_path / "sample.csv", {"id": [1], "top": ["1 2 3"]})
    given = write(tmp_path / "given.csv", {"id": [1], "top": [cell]})
    rules = Rules("top_k", "map_at_k", sample, labels=("1", "2", "3", "4"), k=3)
    if is_fine:
        check(given, rules)
    else:
        with pytest.raises(GradingError, match="row 0"):
            check(given, rules)


def test_answers_may_name_the_class_where_the_sample_has_a_column_for_each(tmp_path: Path) -> None:
    sample = write(tmp_path / "sample.csv", {"id": IDS, "ant": [0.5] * 4, "bee": [0.5] * 4})
    rules = Rules("per_class", "log_loss", sample)
    given = write(tmp_path / "given.csv", {"id": IDS, "ant": [0.8, 0.4, 0.5, 0.1], "bee": [0.2, 0.6, 0.5, 0.9]})
    named = write(tmp_path / "named.csv", {"id": IDS, "breed": ["ant", "bee", "bee", "bee"]})
    wide = write(tmp_path / "wide.csv", {"id": IDS, "bee": [0, 1, 1, 1], "ant": [1, 0, 0, 0]})
    expected = -np.mean(np.log([0.8, 0.6, 0.5, 0.9]))
    assert grade(given, rules, named) == pytest.approx(expected)
    assert grade(given, rules, wide) == pytest.approx(expected)


def test_answers_without_the_asked_column_are_named(tmp_path: Path, rules: Rules) -> None:
    given = write(tmp_path / "given.csv", {"id": IDS, "label": ["ant"] * 4})
    answers = write(tmp_path / "answers.csv", {"id": IDS, "colour": ["red"] * 4, "size": [1] * 4})
    with pytest.raises(GradingError, match="colour"):
        grade(given, rules, answers)


def table(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({name: [str(cell) for cell in np.asarray(cells)] for name, cells in columns.items()})


@pytest.fixture
def any_rules(tmp_path: Path) -> Rules:
    return Rules("label", "accuracy", tmp_path / "unused.csv")


def test_scores_are_those_of_scikit_learn(any_rules: Rules) -> None:
    rng = np.random.default_rng(0)
    truth, given = rng.integers(0, 5, 200), rng.integers(0, 5, 200)
    one, two = table(y=truth), table(y=given)
    assert METRICS["accuracy"](one, two, any_rules) == pytest.approx(sk.accuracy_score(truth, given))
    assert METRICS["micro_f1"](one, two, any_rules) == pytest.approx(sk.f1_score(truth, given, average="micro"))
    kappa = sk.cohen_kappa_score(truth, given, weights="quadratic")
    assert METRICS["quadratic_kappa"](one, two, any_rules) == pytest.approx(kappa)
    assert METRICS["rmse"](one, two, any_rules) == pytest.approx(np.sqrt(sk.mean_squared_error(truth, given)))


def test_scores_of_probabilities_are_those_of_scikit_learn(any_rules: Rules) -> None:
    rng = np.random.default_rng(1)
    truth, probs = rng.integers(0, 2, 100), np.round(rng.random(100), 1)  # with ties
    one, two = table(y=truth), table(y=probs)
    binary = replace(any_rules, cells="probability")
    clipped = np.clip(probs, 1e-15, 1 - 1e-15)
    assert METRICS["log_loss"](one, two, binary) == pytest.approx(sk.log_loss(truth, clipped))
    assert METRICS["mean_column_auc"](one, two, binary) == pytest.approx(sk.roc_auc_score(truth, probs))
    wide = rng.dirichlet(np.ones(3), 100)
    index = rng.integers(0, 3, 100)
    truths, givens = (
        table(**{f"c{n}": (index == n).astype(int) for n in range(3)}),
        table(**{f"c{n}": wide[:, n] for n in range(3)}),
    )
    per_class = replace(any_rules, cells="per_class")
    assert METRICS["log_loss"](truths, givens, per_class) == pytest.approx(sk.log_loss(index, wide))


def test_f1_of_several_labels_counts_labels_and_not_rows(any_rules: Rules) -> None:
    rules = replace(any_rules, cells="labels")
    one, two = table(y=["scab rust", "rust", "healthy"]), table(y=["rust scab", "rust frog", "scab"])
    assert METRICS["micro_f1"](one, two, rules) == pytest.approx(2 * 3 / (4 + 5))


def test_map_at_k_by_hand(any_rules: Rules) -> None:
    rules = replace(any_rules, cells="top_k", k=3)
    one, two = table(y=[7, 7, 7, 7]), table(y=["7 1 2", "1 7 2", "1 2 7", "1 2 3"])
    assert METRICS["map_at_k"](one, two, rules) == pytest.approx((1 + 1 / 2 + 1 / 3 + 0) / 4)


# -- the table of example competitions ---------------------------------------------------------------------------------


def competition(root: Path, name: str, answers: list[str]) -> formats.Contest:
    """Two classes in folders; the sample asks for two rows."""
    for label in ("ant", "red fox"):
        (root / name / "public/train" / label).mkdir(parents=True)
    write(root / name / "public/sample_submission.csv", {"file": ["1.png", "2.png"], "species": ["ant"] * 2})
    write(root / name / "answers.csv", {"file": ["2.png", "1.png"], "species": answers})
    rules = Rules("label", "accuracy", Path("sample_submission.csv"))
    return formats.Contest(name, rules, 0.9, labels_from_folders="train")


def always(label: str) -> formats.Auto:
    def auto(folder: Path, minutes: float, workspace: Path) -> Path:
        sample = pd.read_csv(folder / "sample_submission.csv")
        return write(workspace / "made.csv", {"file": list(sample["file"]), "species": [label] * len(sample)})

    return auto


def crash(folder: Path, minutes: float, workspace: Path) -> Path:
    raise ZeroDivisionError("by | nothing")


def refuse(folder: Path, minutes: float, workspace: Path) -> Path:
    raise DataError("holds no images")


@pytest.mark.parametrize(
    ("auto", "score", "fault"),
    [
        (always("red fox"), 1.0, ""),
        (always("ant"), 0.0, ""),
        (always("yak"), None, "GradingError: column 'species', row 0: 'yak'"),
        (crash, None, "crash, ZeroDivisionError: by | nothing"),
        (refuse, None, "DataError: holds no images"),
    ],
)
def test_what_becomes_of_a_competition(tmp_path: Path, auto: formats.Auto, score: float | None, fault: str) -> None:
    contest = competition(tmp_path / "data", "toy", ["red fox"] * 2)
    result = formats.run(contest, tmp_path / "data/toy", tmp_path / "work", 7, auto)
    assert result.score == score
    assert result.fault.startswith(fault)
    assert bool(result.fault) == bool(fault)
    assert result.is_good == (score == 1)


def test_a_late_submission_is_not_good() -> None:
    result = formats.Result("toy", "rmse", 7.9, 8.0, minutes=8.0)
    assert result.is_good
    assert not replace(result, minutes=8.1).is_good
    assert not replace(result, score=8.1).is_good
    assert replace(result, metric="accuracy", score=8.1).is_good


def test_the_pipeline_sees_the_public_files_and_not_the_answers(tmp_path: Path) -> None:
    contest = competition(tmp_path / "data", "toy", ["ant"] * 2)
    seen: list[str] = []

    def look(folder: Path, minutes: float, workspace: Path) -> Path:
        near = [path for level in (folder, *folder.parents[:3]) for path in level.rglob("*")]
        seen.extend(path.name for path in near if path.is_relative_to(tmp_path / "work"))
        assert not (folder / "../answers.csv").exists()
        (folder / "sample_submission.csv").write_text("spoiled")
        return always("ant")(tmp_path / "data/toy/public", minutes, workspace)

    assert formats.run(contest, tmp_path / "data/toy", tmp_path / "work", 7, look).score == 1
    assert "sample_submission.csv" in seen
    assert "answers.csv" not in seen


def test_the_table_counts_what_is_valid_and_what_is_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contests = [
        competition(tmp_path / "data", "good", ["ant"] * 2),
        competition(tmp_path / "data", "bad", ["red fox"] * 2),
    ]
    contests.append(replace(competition(tmp_path / "data", "none", ["ant"] * 2), labels_from_folders="absent"))
    monkeypatch.setattr(formats, "CONTESTS", tuple(contests))
    out = tmp_path / "results/formats.md"
    formats.main(["--data", f"{tmp_path}/data", "--root", f"{tmp_path}/work", "--out", f"{out}"], always("ant"))
    text = out.read_text()
    assert "2 of 3 valid, 1 as good as wanted within 8 minutes" in text
    assert "| good | accuracy | 1.0000 | >= 0.9 | 0.0 | good |" in text
    assert "| bad | accuracy | 0.0000 | >= 0.9 | 0.0 | not reached |" in text
    assert "| none | accuracy | none | >= 0.9 | 0.0 | crash, FileNotFoundError" in text
    lines = list(csv.DictReader(out.with_suffix(".csv").read_text().splitlines()))
    assert [line["score"] for line in lines] == ["1.0", "0.0", ""]


def test_what_the_table_cannot_be_made_of(tmp_path: Path) -> None:
    with pytest.raises(PodiumError, match=r"--only eeg-signal: unknown\. Did you mean 'eeg-signal-npz'"):
        formats.main(["--data", f"{tmp_path}", "--only", "eeg-signal"], always("ant"))
    with pytest.raises(DataError, match=r"digit-recognizer: holds no public/ and answers\.csv"):
        formats.main(["--data", f"{tmp_path}"], always("ant"))


def test_the_ten_competitions_have_scores_that_the_grader_knows() -> None:
    assert len({contest.name for contest in formats.CONTESTS}) == len(formats.CONTESTS) == 10
    assert {contest.rules.metric for contest in formats.CONTESTS} <= METRICS.keys()


def test_classes_of_a_table_are_split_where_cells_hold_several(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", {"image": ["1", "2"], "labels": ["scab rust", "healthy"]})
    contest = next(one for one in formats.CONTESTS if one.name.startswith("plant-pathology"))
    assert formats.rules_of(contest, tmp_path).labels == ("healthy", "rust", "scab")
    assert formats.rules_of(contest, tmp_path).sample == tmp_path / "sample_submission.csv"
