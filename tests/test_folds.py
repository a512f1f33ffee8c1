from __future__ import annotations

import csv
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.model_selection import KFold, StratifiedKFold

from pipeline.base.errors import ConfigError, DataError, LeakError, MismatchError
from pipeline.base.keyed import make_key
from pipeline.records.experiment import FoldSpec
from pipeline.records.folds import (
    Folds,
    balance_table,
    check_folds,
    grouping,
    load_folds,
    make_folds,
    resolve_scheme,
    save_folds,
)
from pipeline.records.rows import Rows
from pipeline.records.splitters import (
    by_appearance,
    deal_classes,
    deal_evenly,
    lone_rows,
    quantile_bins,
    stratify_labels,
)


def strings(values) -> np.ndarray:
    return np.array([str(value) for value in values], dtype=object)


def make_rows(targets, names=None, groups=None, **more) -> Rows:
    targets = np.asarray(targets)
    n_names = int(targets.max()) + 1 if targets.ndim == 1 else targets.shape[1]
    names = names or tuple("abcdefghijklmnopqrst"[:n_names])
    ids = strings(f"row{i:05d}" for i in range(len(targets)))
    groups = None if groups is None else strings(groups)
    return Rows(ids, tuple((i,) for i in range(len(ids))), tuple(names), targets, groups, **more)


def shuffled(rows: Rows, seed: int = 0) -> Rows:
    order = np.random.default_rng(seed).permutation(len(rows))
    taken = {
        name: None if (value := getattr(rows, name)) is None else value[order]
        for name in ("ids", "targets", "groups", "host_folds", "submission_ids")
    }
    return replace(rows, items=tuple(rows.items[i] for i in order), **taken)


def toy(scheme: str, n: int = 103, seed: int = 0) -> tuple[Rows, str]:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 30, n) if "group" in scheme else None
    if scheme == "quantile":
        return make_rows(rng.normal(size=(n, 1)).astype(np.float32)), "regression"
    if scheme == "multilabel":
        return make_rows((rng.random((n, 4)) < [0.5, 0.3, 0.2, 0.1]).astype(np.float32)), "multilabel"
    return make_rows(rng.choice(3, n, p=[0.6, 0.3, 0.1]), groups=groups), "multiclass"


SCHEMES = ["plain", "stratified", "group", "stratified_group", "multilabel", "quantile"]


def by_id(folds: Folds) -> dict[str, int]:
    return dict(zip(folds.ids, folds.fold.tolist(), strict=True))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_row_is_held_out_exactly_once(scheme):
    rows, kind = toy(scheme)
    folds = make_folds(rows, kind, FoldSpec(scheme=scheme))
    held_out = np.concatenate([folds.split(fold)[1] for fold in range(5)])
    assert sorted(held_out) == list(range(103))
    for fold in range(5):
        train, held_out = folds.split(fold)
        assert sorted([*train, *held_out]) == list(range(103))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_order_of_the_rows_changes_nothing(scheme):
    rows, kind = toy(scheme)
    spec = FoldSpec(scheme=scheme, holdout_frac=0.2)
    folds, again = make_folds(rows, kind, spec), make_folds(shuffled(rows), kind, spec)
    assert by_id(folds) == by_id(again)
    assert folds.table_hash == again.table_hash


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_seed_gives_one_table_and_another_seed_another(scheme):
    rows, kind = toy(scheme)
    first, again, other = (make_folds(rows, kind, FoldSpec(scheme=scheme, seed=seed)) for seed in (-1, -1, 2**40))
    assert first.fold.tolist() == again.fold.tolist()
    assert first.fold.tolist() != other.fold.tolist()


@pytest.mark.parametrize("scheme", ["plain", "stratified", "group", "stratified_group"])
def test_renamed_classes_give_the_same_folds(scheme):
    rows, kind = toy(scheme)
    renamed = replace(rows, targets=np.array([2, 0, 1])[rows.targets])
    spec = FoldSpec(scheme=scheme, holdout_frac=0.15)
    assert by_id(make_folds(rows, kind, spec)) == by_id(make_folds(renamed, kind, spec))


@pytest.mark.parametrize("scheme", ["plain", "stratified", "quantile"])
def test_sizes_of_folds_are_within_one(scheme):
    rows, kind = toy(scheme)
    sizes = np.bincount(make_folds(rows, kind, FoldSpec(scheme=scheme)).fold)
    assert sizes.max() - sizes.min() <= 1


def test_each_class_is_spread_over_the_folds_within_one():
    rows, kind = toy("stratified")
    folds = make_folds(rows, kind, FoldSpec()).aligned_to(rows.ids)
    for label in range(3):
        counts = np.bincount(folds.fold[rows.targets == label], minlength=5)
        assert counts.max() - counts.min() <= 1


def test_soft_targets_are_stratified_by_their_largest_share():
    rows, kind = toy("stratified")
    soft = replace(rows, targets=(0.8 * np.eye(3)[rows.targets] + 0.2 / 3).astype(np.float32))
    assert by_id(make_folds(soft, kind, FoldSpec())) == by_id(make_folds(rows, kind, FoldSpec()))


@pytest.mark.parametrize("scheme", ["group", "stratified_group"])
def test_no_group_stands_in_two_folds_nor_in_the_holdout_and_a_fold(scheme):
    rows, kind = toy(scheme)
    folds = make_folds(rows, kind, FoldSpec(scheme=scheme, holdout_frac=0.2)).aligned_to(rows.ids)
    assert {-2, 0, 1, 2, 3, 4} <= set(folds.fold)
    for group in set(rows.groups):
        assert len(set(folds.fold[rows.groups == group])) == 1


@pytest.mark.parametrize("frac", [0.05, 0.3, 0.7])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_holdout_has_its_share_and_is_in_no_split(scheme, frac):
    rows, kind = toy(scheme, n=400)
    folds = make_folds(rows, kind, FoldSpec(scheme=scheme, holdout_frac=frac, n_folds=3))
    holdout = np.flatnonzero(folds.fold == -2)
    assert abs(len(holdout) - frac * 400) <= (14 if "group" in scheme else 2)
    for fold in (0, 1, 2, "all"):
        assert not np.isin(holdout, np.concatenate(folds.split(fold))).any()


def test_the_holdout_is_stratified_within_one_row_per_class():
    rows, kind = toy("stratified", n=400)
    folds = make_folds(rows, kind, FoldSpec(holdout_frac=0.3)).aligned_to(rows.ids)
    for label in range(3):
        of_class = rows.targets == label
        assert abs((folds.fold[of_class] == -2).sum() - 0.3 * of_class.sum()) <= 1


def test_fold_minus_one_always_trains_and_fold_all_trains_everything_but_the_holdout():
    folds = Folds("x", strings("abcdef"), np.array([0, 1, -1, -2, 0, 1]), {}, "")
    assert [part.tolist() for part in folds.split(0)] == [[1, 2, 5], [0, 4]]
    assert [part.tolist() for part in folds.split("all")] == [[0, 1, 2, 4, 5], []]


@pytest.mark.parametrize("fold", [2, -1, -2])
def test_a_fold_that_is_not_there_is_named(fold):
    folds = Folds("x", strings("ab"), np.array([0, 1]), {}, "")
    with pytest.raises(ConfigError, match=f"there is no fold {fold}; there are 0..1 and 'all'"):
        folds.split(fold)


def test_a_class_with_one_row_always_trains():
    rows = make_rows([0] * 20 + [1] * 20 + [2])
    folds = make_folds(rows, "multiclass", FoldSpec())
    assert by_id(folds)["row00040"] == -1
    assert (folds.fold == -1).sum() == 1
    assert "class 'c': its 1 rows always train (fold -1), so no score covers it" in check_folds(
        folds, rows, "multiclass"
    )


def test_a_class_with_one_row_left_by_the_holdout_is_trained_on():
    rows = make_rows([0] * 40 + [1, 1])
    for seed in range(5):
        folds = make_folds(rows, "binary", FoldSpec(holdout_frac=0.5, seed=seed))
        check_folds(folds, rows, "binary")


def test_a_class_in_one_group_only_always_trains_with_its_group():
    groups = [i // 4 for i in range(40)]
    rows = make_rows([2 if group == 3 else i % 2 for i, group in enumerate(groups)], groups=groups)
    for scheme in ("group", "stratified_group"):
        folds = make_folds(rows, "multiclass", FoldSpec(scheme=scheme, n_folds=3))
        assert np.flatnonzero(folds.fold == -1).tolist() == [12, 13, 14, 15]
        check_folds(folds, rows, "multiclass")


def test_a_label_with_one_row_always_trains():
    targets = np.zeros((30, 2), np.float32)
    targets[::2, 0] = 1
    targets[7, 1] = 1
    folds = make_folds(make_rows(targets), "multilabel", FoldSpec())
    assert np.flatnonzero(folds.fold == -1).tolist() == [7]


def test_a_class_with_fewer_rows_than_folds_is_dealt_without_a_warning_and_reported():
    rows = make_rows([0] * 20 + [1] * 3)
    folds = make_folds(rows, "binary", FoldSpec())
    assert np.bincount(folds.fold[20:]).max() == 1
    assert check_folds(folds, rows, "binary") == ["class 'b' has 3 rows for 5 folds: some hold out none of it"]


def test_lone_rows_are_those_of_units_that_alone_hold_a_class():
    units = np.array([0, 0, 1, 2, 2, 3])
    among = np.array([True, True, True, True, True, False])
    classes = np.array([0, 1, 0, 2, 2, 2])
    assert lone_rows(classes, units, among).tolist() == [True, True, False, True, True, False]
    assert lone_rows(np.eye(3)[classes], units, among).tolist() == [True, True, False, True, True, False]


def slow_stratification(labels, n_parts, order, lots):
    """Sechidis 2011, figure 1, with lists."""
    left = set(range(len(labels)))
    lacks_rows = [len(labels) / n_parts] * n_parts
    lacks = [[sum(column) / n_parts] * n_parts for column in zip(*labels, strict=True)]
    part = [0] * len(labels)
    while left:
        counts = {k: sum(labels[i][k] for i in left) for k in range(len(lacks))}
        counts = {k: count for k, count in counts.items() if count}
        label = min(counts, key=counts.get) if counts else None
        for i in [i for i in order if i in left and (label is None or labels[i][label])]:
            need = lacks_rows if label is None else lacks[label]
            best = max(range(n_parts), key=lambda p, i=i, need=need: (need[p], lacks_rows[p], lots[i][p]))
            part[i] = best
            lacks_rows[best] -= 1
            for k in range(len(lacks)):
                lacks[k][best] -= labels[i][k]
            left.remove(i)
    return part


def test_iterative_stratification_equals_the_algorithm_in_plain_lists():
    from pipeline.base.keyed import permutation, uniforms

    rng = np.random.default_rng(0)
    labels = (rng.random((80, 5)) < [0.5, 0.3, 0.2, 0.1, 0.05]).astype(int)
    order = permutation(7, 80).tolist()
    lots = uniforms(make_key("lots", 7), np.arange(80, dtype=np.uint64), 4).tolist()
    expected = slow_stratification(labels.tolist(), 4, order, lots)
    assert stratify_labels(labels, np.full(4, 0.25), 7).tolist() == expected


def test_labels_are_spread_better_than_by_chance():
    rng = np.random.default_rng(0)
    labels = (rng.random((2000, 20)) < np.linspace(0.01, 0.4, 20)).astype(np.float32)
    rows = make_rows(labels)
    folds = {scheme: make_folds(rows, "multilabel", FoldSpec(scheme=scheme)) for scheme in ("multilabel", "plain")}
    spread = {name: [labels[table.fold == k].sum(axis=0) for k in range(5)] for name, table in folds.items()}
    assert np.std(spread["multilabel"], axis=0).mean() < 0.25 * np.std(spread["plain"], axis=0).mean()
    sizes = np.bincount(folds["multilabel"].fold)
    assert sizes.max() - sizes.min() <= 20


def test_quantile_bins_are_equal_in_size_and_monotone():
    values = np.random.default_rng(0).exponential(size=(100, 1))
    bins = quantile_bins(values, 10)
    assert np.bincount(bins).tolist() == [10] * 10
    assert (np.diff(bins[np.argsort(values[:, 0])]) >= 0).all()


def test_equal_values_share_a_bin():
    values = np.array([[0.0]] * 50 + [[1.0]] * 30 + [[2.0]] * 20)
    bins = quantile_bins(values, 10)
    assert len(set(zip(values[:, 0], bins, strict=True))) == len(set(bins.tolist())) == 3


def test_means_of_targets_are_closer_with_quantiles_than_without():
    values = np.random.default_rng(0).exponential(size=(300, 2)).astype(np.float32)
    rows = make_rows(values)
    spread = {
        scheme: np.mean(
            [
                np.std(
                    [
                        values[make_folds(rows, "regression", FoldSpec(scheme=scheme, seed=s)).fold == k].mean()
                        for k in range(5)
                    ]
                )
                for s in range(3)
            ]
        )
        for scheme in ("quantile", "plain")
    }
    assert spread["quantile"] < 0.7 * spread["plain"]


def test_a_handful_of_values_and_a_constant_target_can_be_dealt():
    for values in (np.arange(7), np.ones(7)):
        rows = make_rows(values[:, None].astype(np.float32))
        assert np.bincount(make_folds(rows, "regression", FoldSpec()).fold).tolist() == [2, 2, 1, 1, 1]


@pytest.mark.parametrize(
    ("kind", "has_groups", "expected"),
    [
        ("regression", False, "quantile"),
        ("regression", True, "group"),
        ("multilabel", False, "multilabel"),
        ("multilabel", True, "group"),
        ("binary", False, "stratified"),
        ("ordinal", True, "stratified_group"),
    ],
)
def test_auto_follows_the_kind_and_the_groups(kind, has_groups, expected):
    assert resolve_scheme("auto", kind, has_groups) == expected


@pytest.mark.parametrize(
    ("scheme", "kind", "message"),
    [
        ("stratified", "regression", "'stratified' does not fit regression tasks; these do: auto, plain, .* quantile"),
        ("quantile", "multiclass", "'quantile' does not fit multiclass tasks"),
        ("group", "binary", r"'group' needs groups; name their column in the task \(group:\)"),
    ],
)
def test_schemes_that_do_not_fit_are_refused(scheme, kind, message):
    with pytest.raises(ConfigError, match=message):
        resolve_scheme(scheme, kind, has_groups=False)


@pytest.mark.parametrize(
    ("targets", "groups", "message"),
    [
        ([0, 1, 0], None, "folds.n_folds = 5, but there are only 3 rows to deal|only 2 rows to deal"),
        ([0, 0, 0, 1, 1, 1], None, "the largest class has only 3 rows to deal"),
        ([0, 1] * 10, [0, 0, 1, 1] * 5, "there are only 2 groups to deal"),
    ],
)
def test_more_folds_than_rows_or_groups_is_an_error(targets, groups, message):
    with pytest.raises(ConfigError, match=message):
        make_folds(make_rows(targets, groups=groups), "binary", FoldSpec())


def test_rows_submitted_under_one_id_are_a_group():
    rows = make_rows([0, 1] * 30, submission_ids=strings(i // 3 for i in range(60)))
    folds = make_folds(rows, "binary", FoldSpec())
    assert folds.spec["resolved"] == "stratified_group"
    assert (folds.fold.reshape(20, 3) == folds.fold.reshape(20, 3)[:, :1]).all()


def test_submission_ids_that_no_rows_share_are_no_groups():
    assert grouping(make_rows([0, 1], submission_ids=strings("xy"))) is None


def test_groups_and_shared_submission_ids_are_merged():
    rows = make_rows([0] * 6, groups="bacdde", submission_ids=strings([1, 1, 2, 2, 3, 4]))
    assert grouping(rows).tolist() == ["a", "a", "c", "c", "c", "e"]


def test_host_folds_are_renumbered_in_their_order():
    rows = make_rows([0, 1] * 4, host_folds=np.array([7, 7, 3, 3, -1, -1, -2, -2]))
    folds = make_folds(rows, "binary", FoldSpec(scheme="column", n_folds=2))
    assert folds.fold.tolist() == [1, 1, 0, 0, -1, -1, -2, -2]
    assert by_id(make_folds(shuffled(rows), "binary", FoldSpec(scheme="column", n_folds=2))) == by_id(folds)


@pytest.mark.parametrize(
    ("host_folds", "more", "error", "message"),
    [
        (None, {}, ConfigError, "needs the host's folds"),
        ([0, 1, 2, 2], {}, ConfigError, r"n_folds = 2, but the column holds 3 folds \(0, 1, 2\); set n_folds: 3"),
        ([0, 1, -3, 0], {}, DataError, "fold_column: found -3"),
        ([0, 1, 1, 0], {"holdout_frac": 0.1}, ConfigError, "holdout_frac: is not read by scheme: column"),
    ],
)
def test_host_folds_that_cannot_be_used_are_refused(host_folds, more, error, message):
    rows = make_rows([0, 1, 0, 1], host_folds=None if host_folds is None else np.array(host_folds))
    with pytest.raises(error, match=message):
        make_folds(rows, "binary", FoldSpec(scheme="column", n_folds=2, **more))


def table(rows: Rows, fold) -> Folds:
    return Folds("x", rows.ids, np.array(fold), {"seed": 0, "resolved": "plain"}, "")


def test_a_class_that_is_held_out_but_never_trained_on_is_refused():
    rows = make_rows([0, 0, 1, 0, 0, 1])
    with pytest.raises(DataError, match="fold 1 holds out the class 'b' and never trains on it"):
        check_folds(table(rows, [0, 1, 1, 0, 0, 1]), rows, "binary")
    with pytest.raises(DataError, match="fold -2 holds out the class 'b'"):
        check_folds(table(rows, [0, 1, -2, 0, 1, -2]), rows, "binary")
    check_folds(table(rows, [0, 1, -1, 0, 0, 1]), rows, "binary")


@pytest.mark.parametrize("fold", [[0, 1, 0, 1], [0, -1, 1, 1], [0, -2, 1, 1]])
def test_a_group_in_two_folds_is_a_leak(fold):
    rows = make_rows([0, 0, 0, 0], groups=["ann", "ann", "bob", "bob"])
    with pytest.raises(LeakError, match="stand in more than one fold, such as 'ann' in "):
        check_folds(table(rows, fold), rows, "binary")


def test_an_empty_fold_is_refused():
    rows = make_rows([0, 0, 0, 0])
    with pytest.raises(DataError, match="no row in fold 1; use fewer folds"):
        check_folds(table(rows, [0, 2, 0, 2]), rows, "binary")


def test_unequal_folds_the_holdout_and_an_empty_class_are_noted():
    rows = make_rows([0] * 10, names=("a", "b"))
    assert check_folds(table(rows, [0, 0, 0, 0, 0, 1, -1, -2, -2, -2]), rows, "binary") == [
        "3 rows are the holdout (fold -2)",
        "1 rows always train (fold -1)",
        "folds differ in size: 1 to 5 rows",
        "class 'b' has no row",
    ]


def test_the_balance_table_counts_classes_labels_and_means():
    rows = make_rows([0, 0, 1, 1, 1])
    balance = balance_table(table(rows, [0, 1, 0, 1, -1]), rows, "binary")
    assert balance.columns.tolist() == ["rows", "a", "b"]
    assert balance.reset_index().to_numpy().tolist() == [[-1, 1, 0, 1], [0, 2, 1, 1], [1, 2, 1, 1]]
    rows = make_rows(np.array([[1, 0], [1, 1], [0, 0]], np.float32))
    assert balance_table(table(rows, [0, 1, 1]), rows, "multilabel").to_numpy().tolist() == [[1, 1, 0], [2, 1, 1]]
    rows = make_rows(np.array([[1], [2], [4]], np.float32), names=("rows",))
    assert balance_table(table(rows, [0, 1, 1]), rows, "regression").to_numpy().tolist() == [[1, 1], [2, 3]]


def test_a_saved_table_comes_back_equal(tmp_path):
    rows, kind = toy("stratified")
    ids = strings(["007", "NA", 'a,"b"', " x ", "1e5", *rows.ids[5:]])
    folds = make_folds(replace(shuffled(replace(rows, ids=ids))), kind, FoldSpec(seed=3, holdout_frac=0.1))
    path = tmp_path / "new" / f"{folds.name}.csv"
    save_folds(path, folds)
    again = load_folds(path)
    assert again.ids.tolist() == folds.ids.tolist() == sorted(ids)
    assert again.fold.tolist() == folds.fold.tolist()
    assert (again.name, again.spec, again.made_with) == (folds.name, folds.spec, folds.made_with)
    assert (again.ids_hash, again.table_hash) == (folds.ids_hash, folds.table_hash)
    about = json.loads(path.with_suffix(".json").read_text())
    assert (about["seed"], about["scheme"], about["n_rows"]) == (3, "stratified", 103)
    assert folds.name == "stratified5-seed3"
    assert folds.made_with.startswith("scikit-learn 1.")
    with path.open(newline="") as file:
        assert list(itertools.islice(csv.reader(file), 1)) == [["id", "fold"]]


def test_an_edited_table_is_refused(tmp_path):
    rows, kind = toy("stratified")
    path = tmp_path / "f.csv"
    save_folds(path, make_folds(rows, kind, FoldSpec()))
    lines = path.read_text().splitlines()
    lines[1] = "row00000," + str((int(lines[1].split(",")[1]) + 1) % 5)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(MismatchError, match=r"f\.csv: the table was edited .* f\.json"):
        load_folds(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,kfold\na,0\n", "expected the header id,fold, found id, kfold"),
        ("id,fold\na,0\nb,x\n", "found the line 'b,x'"),
        ("id,fold\na\n", "found the line 'a'"),
        ("", "found nothing"),
    ],
)
def test_a_file_that_is_no_fold_table_is_refused(tmp_path, text, message):
    (tmp_path / "f.csv").write_text(text)
    (tmp_path / "f.json").write_text("{}")
    with pytest.raises(DataError, match=message):
        load_folds(tmp_path / "f.csv")


def test_a_missing_table_or_json_says_how_to_make_it(tmp_path):
    with pytest.raises(DataError, match=r"f\.csv: no such file; make the folds with `podium folds CONFIG`"):
        load_folds(tmp_path / "f.csv")
    (tmp_path / "f.csv").write_text("id,fold\na,0\n")
    with pytest.raises(DataError, match=r"f\.json: no such file"):
        load_folds(tmp_path / "f.csv")
    (tmp_path / "f.json").write_text("{}")
    with pytest.raises(DataError, match="not the JSON of a fold table"):
        load_folds(tmp_path / "f.csv")


def test_a_table_is_brought_into_any_order_of_the_same_ids():
    folds = Folds("x", strings("abc"), np.array([0, 1, 2]), {}, "")
    turned = folds.aligned_to(["c", "a", "b"])
    assert turned.fold.tolist() == [2, 0, 1]
    assert turned.table_hash == folds.table_hash
    assert turned.ids_hash == folds.ids_hash


def test_ids_that_do_not_fit_are_named_with_the_way_out():
    folds = Folds("x", strings("abcdefgh"), np.zeros(8, np.int64), {}, "")
    message = r"2 ids are not in the table \(y, z\); 7 ids are in the table only \(b, c, d, e, f, ... \(2 more\)\)"
    with pytest.raises(MismatchError, match=message):
        folds.aligned_to(["a", "y", "z"])
    with pytest.raises(MismatchError, match=r"1 ids of the data are doubled.*podium folds CONFIG"):
        folds.aligned_to([*"abcdefgh", "a"])


def test_hashes_tell_ids_and_folds_apart():
    one = Folds("x", strings("ab"), np.array([0, 1]), {}, "")
    other = Folds("x", strings("ab"), np.array([1, 0]), {}, "")
    assert one.ids_hash == other.ids_hash
    assert one.table_hash != other.table_hash


@pytest.mark.parametrize(
    ("n", "n_classes", "n_folds"), [(10, 1, 2), (103, 4, 5), (400, 7, 3), (157, 12, 8), (20, 1, 10)]
)
@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_rows_are_dealt_as_scikit_learn_deals_them(n, n_classes, n_folds, seed):
    classes = by_appearance(np.random.default_rng(n).integers(0, n_classes, n) ** 2)
    for dealt, splitter in (
        (deal_evenly(n, n_folds, seed), KFold),
        (deal_classes(classes, n_folds, seed), StratifiedKFold),
    ):
        parts = splitter(n_folds, shuffle=True, random_state=seed).split(np.zeros(n), classes)
        for number, (_, held_out) in enumerate(parts):
            assert np.flatnonzero(dealt == number).tolist() == held_out.tolist()
