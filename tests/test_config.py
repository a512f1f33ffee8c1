import math
from datetime import date

import pytest
import yaml
from pydantic import ValidationError

from pipeline.base.errors import ConfigError
from pipeline.records.augmentation import Affine, Augment, Flip
from pipeline.records.config import difference, load_config, load_task, merge, read_yaml, validate
from pipeline.records.experiment import (
    BinaryCrossEntropy,
    ChannelStats,
    Cosine,
    CrossEntropy,
    Experiment,
    OneCycle,
    Step,
)
from pipeline.records.machine import Machine
from pipeline.records.record import Record, tuples
from pipeline.records.task import Source, Task, template_parts

TASK = {
    "name": "toy",
    "data": "data/toy",
    "kind": "multiclass",
    "metric": "accuracy",
    "id": "id",
    "target": "label",
    "train": {"table": "train.csv", "files": "train/{id}.png"},
    "test": {"table": "test.csv", "files": "test/{id}.png"},
}
NET = {"task": "task.yaml", "model": {"name": "mlp"}}


def folder_with(tmp_path, **files):
    """A folder with task.yaml and one YAML file for each argument: a mapping, or text as it is."""
    for name, content in {"task": TASK, **files}.items():
        text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def load(tmp_path, values, overrides=()):
    return load_config(folder_with(tmp_path, net=values) / "net.yaml", overrides)


def experiment(**values):
    return validate(Experiment, {"model": {"name": "mlp"}} | values, "net.yaml")


def task(**values):
    merged = TASK | values
    return validate(Task, {key: value for key, value in merged.items() if value != "absent"}, "task.yaml")


def fault(make, **values):
    """The message for wrong values, which must be one line for one fault and name the file first."""
    with pytest.raises(ConfigError) as caught:
        make(**values)
    message = str(caught.value)
    where = "net.yaml" if make is experiment else "task.yaml"
    assert message.startswith(f"{where}:")
    for words in ("Input", "tag", "literal", "valid dictionary", "instance of", "tuple", "Value error", "=block"):
        assert words not in message
    return message.removeprefix(f"{where}:").strip()


# -- files, bases, overrides -------------------------------------------------------------------------------------------


def test_a_config_is_task_experiment_and_the_name_of_its_file(tmp_path):
    config = load(tmp_path, NET | {"train": {"epochs": 3}})
    assert config.run_name == "net"
    assert config.task == task()
    assert config.experiment == experiment(train={"epochs": 3})


def test_a_variant_states_only_its_difference(tmp_path):
    base = NET | {"train": {"epochs": 7, "batch_size": 16}, "ema": {"decay": 0.9}, "seeds": [1, 2]}
    folder = folder_with(tmp_path, base=base, net={"base": "base.yaml", "train": {"epochs": 9}, "ema": False})
    loaded = load_config(folder / "net.yaml").experiment
    assert (loaded.train.epochs, loaded.train.batch_size, loaded.seeds) == (9, 16, (1, 2))
    assert loaded.ema is None


def test_later_bases_lie_over_earlier_ones_and_bases_have_bases(tmp_path):
    files = {
        "a": NET | {"train": {"epochs": 1, "batch_size": 1}, "seeds": [1]},
        "b": {"base": "a.yaml", "train": {"epochs": 2}},
        "c": {"train": {"batch_size": 3}},
        "net": {"base": ["b.yaml", "c.yaml"], "seeds": [5]},
    }
    loaded = load_config(folder_with(tmp_path, **files) / "net.yaml").experiment
    assert (loaded.train.epochs, loaded.train.batch_size, loaded.seeds) == (2, 3, (5,))


def test_another_name_drops_the_options_of_the_old_variant_and_the_same_name_keeps_them(tmp_path):
    base = NET | {"loss": {"name": "cross_entropy", "label_smoothing": 0.1}, "model": {"name": "mlp", "hidden": 8}}
    folder = folder_with(tmp_path, base=base, net={"base": "base.yaml", "loss": {"name": "bce"}, "model": {"depth": 2}})
    loaded = load_config(folder / "net.yaml").experiment
    assert loaded.loss == BinaryCrossEntropy(name="bce")
    assert (loaded.model.name, loaded.model.options) == ("mlp", {"hidden": 8, "depth": 2})


def test_only_variants_are_replaced_by_another_name():
    old, new = {"folds": {"scheme": "group", "name": "a"}}, {"folds": {"name": "b"}}
    assert merge(old, new) == {"folds": {"scheme": "group", "name": "b"}}
    assert old == {"folds": {"scheme": "group", "name": "a"}}


def test_overrides_are_yaml_values_and_lie_over_the_file(tmp_path):
    overrides = ["train.epochs=3", "optimizer.lr=1e-2", "seeds=[4, 5]", "ema=off", "input.normalize=none"]
    loaded = load(tmp_path, NET | {"ema": {"decay": 0.5}, "train": {"epochs": 1, "batch_size": 8}}, overrides)
    assert (loaded.experiment.train.epochs, loaded.experiment.train.batch_size) == (3, 8)
    assert (loaded.experiment.optimizer.lr, loaded.experiment.seeds) == (0.01, (4, 5))
    assert (loaded.experiment.ema, loaded.experiment.input.normalize) == (None, "none")


def test_the_order_of_overrides_does_not_matter(tmp_path):
    overrides = ["model.hidden=4", "model.name=other", "train.epochs=2"]
    values = NET | {"model": {"name": "mlp", "depth": 3}}
    loaded = [load(tmp_path, values, some).experiment for some in (overrides, overrides[::-1])]
    assert loaded[0] == loaded[1]
    assert loaded[0].model.options == {"hidden": 4}


def test_the_task_lies_beside_the_file_that_names_it(tmp_path):
    (tmp_path / "deep").mkdir()
    folder_with(tmp_path, base=NET)
    (tmp_path / "deep" / "net.yaml").write_text("base: ../base.yaml\n")
    assert load_config(tmp_path / "deep" / "net.yaml").task.name == "toy"
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(TASK | {"name": "other"}))
    assert load(tmp_path, {"model": {"name": "mlp"}}, ["task=other.yaml"]).task.name == "other"


def test_run_names_are_file_names_that_tell_overrides_apart(tmp_path):
    assert load(tmp_path, NET, ["train.epochs=3", "seeds=[0, 1]"]).run_name == "net-train.epochs=3-seeds=_0_1_"
    long = [load(tmp_path, NET, [f"seeds={list(range(60))}", f"train.epochs={n}"]).run_name for n in (1, 2)]
    assert long[0] != long[1]
    assert all(len(name) < 120 and "/" not in name for name in long)


def test_numbers_with_an_exponent_are_numbers(tmp_path):
    for text, value in [("1e-3", 1e-3), ("1E2", 100), ("+2.5e+1", 25), (".5e0", 0.5), ("3", 3), ("1.", 1)]:
        (tmp_path / "x.yaml").write_text(f"a: {text}\n")
        assert read_yaml(tmp_path / "x.yaml") == {"a": value}
    (tmp_path / "x.yaml").write_text("a: 1e5x\nb: '1e5'\n")
    assert read_yaml(tmp_path / "x.yaml") == {"a": "1e5x", "b": "1e5"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "x.yaml: expected `key: value` lines, found an empty file"),
        ("- a\n- b\n", "x.yaml: expected `key: value` lines, found list"),
        ("a: 1\nb: [1, 2\n", "x.yaml, line 3: expected ',' or ']'"),
        ("a:\n\tb: 1\n", "x.yaml, line 2: found character '\\t' that cannot start any token; YAML indents with spaces"),
        ("a: 1\nb: 2\na: 3\n", "x.yaml, line 3: doubled key a"),
        ("a:\n  b: 1\n  b: 2\n", "x.yaml, line 3: doubled key b"),
        ("a: 1\nema:\n", "x.yaml, line 2: ema: has no value; `off` switches a block off, `{}` takes its defaults"),
        ("a:\n  # b: 1\nc: 2\n", "x.yaml, line 1: a: has no value"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "x.yaml, line 3: `<<` is not read here; use base:"),
        ("a: !!python/object:os.system {}\n", "x.yaml, line 1: could not determine a constructor"),
    ],
)
def test_broken_yaml_is_named_with_its_line(tmp_path, content, message):
    (tmp_path / "x.yaml").write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_yaml(tmp_path / "x.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_null_and_aliases_are_read(tmp_path):
    (tmp_path / "x.yaml").write_text("a: null\nb: ~\nc: &c [1]\nd: *c\ne: ''\n")
    assert read_yaml(tmp_path / "x.yaml") == {"a": None, "b": None, "c": [1], "d": [1], "e": ""}


def test_a_missing_file_a_folder_and_no_text_are_named(tmp_path):
    folder_with(tmp_path, net=NET)
    with pytest.raises(ConfigError, match=r"nett\.yaml: no such file\. Did you mean 'net\.yaml'\?"):
        load_config(tmp_path / "nett.yaml")
    with pytest.raises(ConfigError, match=r"none/net\.yaml: no such file\.$"):
        load_config(tmp_path / "none" / "net.yaml")
    with pytest.raises(ConfigError, match=r"is a folder; give a file of it \(net\.yaml, task\.yaml\)"):
        load_config(tmp_path)
    (tmp_path / "b.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(ConfigError, match=r"b\.yaml: cannot be read as YAML: 'utf-8' codec"):
        load_config(tmp_path / "b.yaml")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": {"name": "mlp"}}, r"net\.yaml: task: must name the task file.*found: missing\)$"),
        (NET | {"task": 3}, r"task: must name the task file, such as `task: task\.yaml` \(found: 3\)"),
        (TASK, r"found: missing\); this looks like a task file itself, give an experiment"),
        (NET | {"task": "tsk.yaml"}, r"tsk\.yaml: no such file\. Did you mean 'task\.yaml'"),
        (NET | {"base": 3}, r"base: must be a file name or a list of them \(found: 3\)"),
        (NET | {"base": [1]}, r"base: must be a file name or a list of them \(found: \[1\]\)"),
        (NET | {"base": "net.yaml"}, r"base: leads back to this file \(net\.yaml\)"),
        (NET | {"base": "none.yaml"}, r"none\.yaml: no such file"),
    ],
)
def test_a_wrong_task_or_base_is_named(tmp_path, values, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, values)


def test_a_circle_of_bases_is_named_with_its_way(tmp_path):
    folder_with(tmp_path, a={"base": "b.yaml"}, b={"base": "a.yaml"})
    with pytest.raises(ConfigError, match=r"base: leads back to this file \(a\.yaml -> b\.yaml\)"):
        load_config(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", "'train.epochs': overrides have the form key=value"),
        ("=3", "'=3': overrides have the form key=value"),
        ("train..epochs=3", "overrides have the form key=value"),
        ("ema=", "'ema=': has no value; `off` switches a block off"),
        ("seeds=[1", "'seeds=[1', line 1: expected ',' or ']'"),
        ("train.epoch=3", "train.epoch: unknown key. Did you mean 'epochs'?"),
        ("trian.epochs=3", "trian: unknown key. Did you mean 'train'?"),
        ("train.epochs=many", 'train.epochs: must be a whole number (found: "many")'),
    ],
)
def test_a_wrong_override_is_named(tmp_path, override, message):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, NET, [override])
    assert message in str(caught.value)


def test_several_faults_are_one_line_each(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, NET | {"train": {"epochs": 0, "epoch": 3}, "sedes": [1]})
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("net.yaml:")
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["train.epochs", "train.epoch", "sedes"]


def test_a_difference_is_one_line_per_value():
    old, new = {"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 1, "c": 3}, "e": None, "d": [1]}
    assert difference(old, new) == ["a.c: 2 -> 3"]
    assert difference({"a": {"b": 1}}, {"a": None}) == ["a: {'b': 1} -> None"]
    assert difference(old, old) == []


# -- what was saved comes back -----------------------------------------------------------------------------------------


FULL = {
    "folds": {"scheme": "group", "n_folds": 3, "seed": -1, "holdout_frac": 0.1, "name": "mine"},
    "input": {"size": [32, 48], "channels": 3, "resize": "crop", "normalize": {"mean": [1, 2, 3], "std": [1.5]}},
    "augment": {"affine": {"max_scale": 0.1}, "shift": {"max_px": 2}, "flip": {}, "time_shift": {"max_samples": 3}},
    "model": {"name": "mlp", "hidden": 8, "sizes": [1, 2]},
    "loss": {"name": "cross_entropy", "class_weights": {"a": 1, "b": 2}},
    "optimizer": {"name": "sgd", "lr": 1, "options": {"betas": [0.9, 0.99]}},
    "schedule": {"name": "step", "milestones": [2, 3.5]},
    "train": {"clip_norm": 1, "weights": "ema"},
    "ema": {},
    "seeds": [0, 3],
}


def test_saved_records_come_back_equal(tmp_path):
    clip = {"format": "values", "clip": [0, 1.5]}
    for record in (
        experiment(**FULL),
        experiment(),
        task(),
        task(kind="regression", target=["u", "v"], submission=clip),
        task(id="absent", train={"array": {"file": "x.npz", "key": "x"}, "labels": {"file": "y.npy"}}, test=False),
        Machine(device="cuda:1", jobs=2),
    ):
        assert validate(type(record), record.plain(), "run.json") == record


def test_lists_become_tuples_at_any_depth_and_numbers_floats_where_floats_are_meant():
    loaded = experiment(**FULL)
    assert loaded.model.options == {"hidden": 8, "sizes": (1, 2)}
    assert loaded.input.normalize == ChannelStats(mean=(1.0, 2.0, 3.0), std=(1.5,))
    assert isinstance(loaded.optimizer.lr, float)
    assert tuples({"a": [1, [2, {"b": [3]}]]}) == {"a": (1, (2, {"b": (3,)}))}


def test_records_are_frozen_and_closed():
    loaded = experiment()
    with pytest.raises(ValidationError, match="frozen"):
        loaded.seeds = (3,)
    with pytest.raises(ValidationError, match="Extra inputs"):
        Flip(sideways=True)


def test_off_drops_optional_blocks_and_values():
    values = {
        "loss": False,
        "ema": False,
        "augment": dict.fromkeys(("affine", "shift", "flip", "time_shift"), False),
        "train": {"clip_norm": False},
        "input": {"size": False},
    }
    assert experiment(**values) == experiment()
    weights = {"name": "cross_entropy", "class_weights": False}
    assert experiment(loss=weights).loss == CrossEntropy(name="cross_entropy")
    assert task(test=False).test is None


def test_one_number_is_a_square_and_one_name_a_list():
    assert experiment(input={"size": 32}).input.size == (32, 32)
    assert task().target == ("label",)
    assert task().train.files == ("train/{id}.png",)
    assert task(metric={"name": "map_at_k", "options": {"k": 3}}).metric.options == {"k": 3}


def test_every_key_is_documented():
    def undocumented(record):
        for name, field in record.model_fields.items():
            if not field.description and not (name == "name" and "Literal" in str(field.annotation)):
                yield f"{record.__name__}.{name}"

    def records(base):
        for record in base.__subclasses__():
            yield record
            yield from records(record)

    mine = [record for record in records(Record) if record.__module__.startswith("pipeline.records.")]
    assert len(mine) > 25
    assert [name for record in mine for name in undocumented(record)] == []


def test_the_form_of_a_submission_follows_the_kind_unless_stated():
    expected = {"binary": "probability", "multiclass": "label", "regression": "values", "ordinal": "label"}
    assert {kind: task(kind=kind).format for kind in expected} == expected
    assert task(kind="multilabel").format == "labels"
    assert task(submission={"format": "per_class"}).format == "per_class"


# -- what a user may write wrongly: experiments ------------------------------------------------------------------------


def test_unknown_keys_are_named_with_the_nearest_and_all_allowed():
    allowed = ", ".join(Experiment.model_fields)
    message = f"modle: unknown key. Did you mean 'model'? Allowed here: {allowed}"
    assert fault(experiment, modle={"name": "x"}) == message
    allowed = ", ".join(Augment.model_fields)
    message = f"augment.shft: unknown key. Did you mean 'shift'? Allowed here: {allowed}"
    assert fault(experiment, augment={"shft": {"max_px": 1}}) == message


def test_a_key_at_the_wrong_place_is_sent_to_the_right_one():
    assert "epochs: unknown key here; it belongs to train.epochs. Allowed here" in fault(experiment, epochs=3)
    assert "train.lr: unknown key here; it belongs to optimizer.lr." in fault(experiment, train={"lr": 1})
    assert "kind: unknown key here; it belongs to the task's kind." in fault(experiment, kind="binary")
    assert "epochs: unknown key here; it belongs to the experiment's train.epochs." in fault(task, epochs=3)
    assert "write one block within the other" in fault(experiment, **{"train.epochs": 3})
    both = fault(experiment, optimizer={"batch_size": 3})
    assert "it belongs to train.batch_size or predict.batch_size." in both


def test_an_option_of_another_variant_is_never_read_and_its_variant_is_named():
    message = "schedule.rise_frac: unknown key here; it belongs to schedule.rise_frac (name: one_cycle). Allowed here: "
    assert fault(experiment, schedule={"name": "cosine", "rise_frac": 0.1}).startswith(message)
    message = fault(experiment, train={"warmup_epochs": 1})
    assert "it belongs to schedule.warmup_epochs (name: constant or cosine or step)" in message
    message = fault(experiment, loss={"name": "mse", "label_smoothing": 0.1})
    assert "loss.label_smoothing (name: cross_entropy or bce). Allowed here: log_target, name" in message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"schedule": {"name": "cos"}},
            """schedule.name: "cos" is unknown. Did you mean 'cosine'? Allowed: constant, cosine, one_cycle, step""",
        ),
        ({"schedule": {"name": 5}}, "schedule.name: 5 is unknown. Allowed: constant, cosine, one_cycle, step"),
        (
            {"schedule": {"warmup_epochs": 1}},
            "schedule: must have a name, one of constant, cosine, one_cycle, step (found: ",
        ),
        ({"schedule": "cosine"}, 'schedule: must be a block of keys, such as {name: cosine} (found: "cosine")'),
        ({"model": "mlp"}, 'model: must be a block of keys, such as {name: mlp} (found: "mlp")'),
        (
            {"input": {"normalize": "mesured"}},
            """input.normalize: "mesured" is unknown. Did you mean 'measured'? Allowed: measured, robust, """
            "pretrained, none, or a block {mean: ..., std: ...}",
        ),
        (
            {"input": {"normalize": False}},
            "input.normalize: false is unknown. Allowed: measured, robust, pretrained, none, or",
        ),
        ({"input": {"normalize": {"mean": [1], "std": [0]}}}, "input.normalize.std[0]: must be > 0 (found: 0)"),
        ({"input": {"normalize": {"mean": [], "std": [1]}}}, "input.normalize.mean: must hold 1 or more values"),
        ({"input": {"normalize": {"mean": 1, "std": [1]}}}, "input.normalize.mean: must be a list, such as [1]"),
        (
            {"loss": {"name": "cross_entropy", "class_weights": "balance"}},
            "loss.class_weights: \"balance\" is unknown. Did you mean 'balanced'? Allowed: balanced, or a block {name:",
        ),
        (
            {"loss": {"name": "cross_entropy", "class_weights": {"cat": -1, "dog": 1}}},
            "loss.class_weights.cat: must be > 0 (found: -1)",
        ),
        (
            {"loss": {"name": "cross_entropy", "class_weights": {0: 1, "b": 2}}},
            "loss.class_weights: the key 0 is no text; put it in quotes",
        ),
        ({"loss": {"name": "cross_entropy", "class_weights": {}}}, "loss.class_weights: must hold 1 or more values"),
        ({"loss": {"name": "bce", "label_smoothing": 1}}, "loss.label_smoothing: must be < 1 (found: 1)"),
        ({"loss": True}, "loss: must be a block of keys, such as {name: ...} (found: true)"),
        ({"input": {"size": 0}}, "input.size[0]: must be >= 1 (found: 0); 1 more like it"),
        ({"input": {"size": [32]}}, "input.size: has too few values (found: [32])"),
        ({"input": {"size": [1, 2, 3]}}, "input.size: must hold 2 or fewer values (found: [1, 2, 3])"),
        ({"input": {"channels": 2}}, "input.channels: 2 is unknown. Allowed: 1, 3, 4"),
        ({"input": {"channels": "3"}}, 'input.channels: "3" is unknown. Allowed: 1, 3, 4'),
        ({"input": {"resize": "crop"}}, "input.resize: crop is never read without size:"),
        ({"input": None}, "input: must be a block of keys, such as {notch: ..., band_pass: ...} (found: null)"),
        ({"augment": {"flip": 2}}, "augment.flip: must be a block of keys, such as {horizontal: ..., vertical: ...}"),
        ({"schedule": {"name": "step"}}, "schedule.milestones: is missing (Epochs at which the rate falls)"),
        ({"augment": {"flip": {"horizontal": "yes"}}}, 'augment.flip.horizontal: must be true or false (found: "yes")'),
        ({"augment": {"flip": {"horizontal": False}}}, "augment.flip: changes nothing; set horizontal: or vertical:"),
        ({"augment": {"affine": {}}}, "augment.affine: changes nothing; set max_rotate_deg:"),
        ({"augment": ["flip"]}, "augment: must be a block of keys, such as {albumentations: ..., "),
        ({"optimizer": {"lr": "fast"}}, 'optimizer.lr: must be a number (found: "fast")'),
        ({"optimizer": {"lr": True}}, "optimizer.lr: must be a number (found: true)"),
        ({"optimizer": {"lr": math.nan}}, "optimizer.lr: must be a finite number (found: NaN)"),
        ({"optimizer": {"lr": math.inf}}, "optimizer.lr: must be a finite number (found: Infinity)"),
        ({"optimizer": {"options": 0.9}}, "optimizer.options: must be a block of keys, such as {key: value}"),
        ({"schedule": {"name": "step", "milestones": []}}, "schedule.milestones: must hold 1 or more values"),
        ({"schedule": {"name": "step", "milestones": [3, 3]}}, "schedule.milestones: holds 3.0 more than once"),
        ({"train": {"epochs": 2.5}}, "train.epochs: must be a whole number (found: 2.5)"),
        ({"train": {"epochs": 0}}, "train.epochs: must be >= 1 (found: 0)"),
        ({"train": {"clip_norm": "off"}}, 'train.clip_norm: must be a number (found: "off")'),
        ({"train": {"weights": "emma"}}, "train.weights: \"emma\" is unknown. Did you mean 'ema'? Allowed: last, best"),
        ({"train": {3: 4}}, "train: the key 3 is no text; put it in quotes"),
        ({"ema": True}, "ema: must be a block of keys, such as {decay: ..., warmup: ...} (found: true)"),
        ({"seeds": 3}, "seeds: must be a list, such as [3] (found: 3)"),
        ({"seeds": []}, "seeds: must hold 1 or more values (found: [])"),
        ({"seeds": [0.5, "a"]}, "seeds[0]: must be a whole number (found: 0.5); 1 more like it"),
        ({"seeds": [1, 1]}, "seeds: holds 1 more than once"),
        ({"folds": {"name": "a/b"}}, "folds.name: may hold letters, digits and . _ - only"),
        ({"folds": {"holdout_frac": 1}}, "folds.holdout_frac: must be < 1 (found: 1)"),
        ({"model": {"hidden": 3}}, "model.name: is missing (One of the project's own nets, or any model name of timm)"),
        ({"model": {"name": None}}, "model.name: must be text (found: null)"),
        ({"model": {"name": date(2024, 1, 1)}}, 'model.name: must be text (found: "2024-01-01")'),
        ({"predict": {"batch_size": "x" * 200}}, "xxx...)"),
    ],
)
def test_a_wrong_value_of_an_experiment_is_one_line(values, message):
    found = fault(experiment, **values)
    assert message in found
    assert "\n" not in found


def test_a_missing_model_is_named():
    with pytest.raises(ConfigError, match=r"^x: model: is missing \(The network\)$"):
        validate(Experiment, {}, "x")


# -- what a user may write wrongly: tasks ------------------------------------------------------------------------------


def files(*templates):
    return {"table": "train.csv", "files": list(templates)}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"kind": "absent"},
            "kind: is missing (What is predicted). Allowed: binary, multiclass, multilabel, ordinal, regression",
        ),
        ({"kind": "multi"}, "kind: \"multi\" is unknown. Did you mean 'multilabel'? Allowed: binary, multiclass,"),
        (
            {"classes": [0, 1]},
            "classes[0]: must be text; put it in quotes, exactly as the tables have it (found: 0); 1",
        ),
        ({"classes": ["a", True]}, "classes[1]: must be text; put it in quotes, exactly as the tables have it"),
        ({"classes": ["a", "b", "a"]}, "classes: holds 'a' more than once"),
        ({"target": 3}, "target: must be a name or a list of names, each in quotes where it is no word (found: 3)"),
        ({"target": "absent"}, "target: is missing: name a column of the training table, or give train.labels:"),
        ({"exclude": [7]}, "exclude[0]: must be text; put it in quotes"),
        (
            {"name": "a b"},
            'name: may hold letters, digits and . _ - only, and starts with a letter or digit (found: "a',
        ),
        ({"group": ["a"]}, 'group: must be text (found: ["a"])'),
        ({"metric": {"nam": "x"}}, "metric.name: is missing"),
        ({"train": "train.csv"}, "train: must be a block of keys, such as {table: ..., files: ...}"),
        ({"train": {"table": "t.csv"}}, "train: give exactly one of files, pixels, array (found: none)"),
        (
            {"train": files("a/{id}") | {"array": {"file": "x.npy"}}},
            "train: give exactly one of files, pixels, array (found: files, array)",
        ),
        ({"train": {"files": "{id}.png"}}, "train: give a table, or an array whose first axis counts the rows"),
        ({"train": {"table": "t.csv", "file": "x"}}, "train.file: unknown key. Did you mean 'files'?"),
        ({"train": files("train/id.png")}, "train.files: 'train/id.png' must name a column of the table in braces"),
        ({"train": files("train/{id.png")}, "train.files: 'train/{id.png' is no path template: "),
        ({"train": files("{}.png")}, "train.files: '{}.png' must name a column"),
        ({"train": files("{id:05d}.png")}, "train.files: '{id:05d}.png' is no path template: Unknown format code 'd'"),
        ({"train": files("{id:05}.png")}, "fills up on the wrong side; write {id:0>5} for zeros on the left"),
        ({"train": files("{id}", "{id}")}, "train.files: holds '{id}' more than once"),
        (
            {"train": {"table": "t", "pixels": {"columns": "p*", "shape": [784]}}},
            "train.pixels.shape: must hold 2 or more values (found: [784])",
        ),
        (
            {"train": {"table": "t", "pixels": {"columns": "p*", "shape": [0, 4]}}},
            "train.pixels.shape[0]: must be >= 1 (found: 0)",
        ),
        ({"submission": {"sampel": "s.csv"}}, "submission.sampel: unknown key. Did you mean 'sample'?"),
        ({"submission": {"clip": [0]}}, "submission.clip: has too few values (found: [0])"),
        ({"submission": {"clip": [1, 0]}}, "submission.clip: the lower end comes first (found: 1, 0)"),
        ({"submission": {"threshold": 2}}, "submission.threshold: must be <= 1 (found: 2)"),
        ({"submission": {"separator": ""}}, 'submission.separator: must not be empty (found: "")'),
        ({"rules": {"pseudo_labels": False}}, "rules.pseudo_labels: false is unknown. Allowed: allowed, forbidden"),
        ({"sample_rate_hz": 0, "input": "signal"}, "sample_rate_hz: must be > 0 (found: 0)"),
    ],
)
def test_a_wrong_value_of_a_task_is_one_line(values, message):
    found = fault(task, **values)
    assert found.startswith(message) or message in found
    assert len(found.splitlines()) <= (3 if "metric" in values else 1)


ARRAYS = {"array": {"file": "x.npy"}, "labels": {"file": "y.npy"}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ordinal": "regression"}, "ordinal: is read only by kind: ordinal"),
        ({"target_separator": ","}, "target_separator: is read only by kind: multilabel with one target column"),
        ({"sample_rate_hz": 250}, "sample_rate_hz: is read only by input: signal"),
        ({"kind": "regression", "classes": ["a", "b"]}, "classes: is read only by kinds with classes"),
        ({"kind": "multilabel", "classes": ["a", "b"], "target": ["a", "b"]}, "classes: is read only by kinds"),
        ({"first_id": 1}, "first_id: is read only where rows are numbered, and id: names a column"),
        ({"train": ARRAYS, "test": {"array": {"file": "t.npy"}}}, "id: is read only with a table, and there is none"),
        ({"train": ARRAYS, "id": "absent", "group": "g"}, "group: is read only with train.table, which is not given"),
        ({"train": ARRAYS, "fold_column": "f"}, "fold_column: is read only with train.table"),
        ({"train": ARRAYS, "submission": {"row_id": "p"}}, "submission.row_id: is read only with train.table"),
        ({"test": ARRAYS}, "test.labels: is read only in train"),
        ({"submission": {"k": 3}}, "submission.k: is read only by submission.format: top_k"),
        ({"submission": {"separator": ","}}, "submission.separator: is read only by submission.format: labels and"),
        ({"submission": {"empty": "none"}}, "submission.empty: is read only by submission.format: labels"),
        ({"submission": {"clip": [0, 1]}}, "submission.clip: is read only by formats with numbers"),
    ],
)
def test_a_key_that_the_task_never_reads_is_an_error(values, message):
    assert fault(task, **values).startswith(message)


def test_the_same_keys_are_taken_where_they_are_read():
    assert task(kind="ordinal", ordinal="regression").ordinal == "regression"
    assert task(kind="multilabel", target_separator=",", classes=["a", "b"]).classes == ("a", "b")
    assert task(classes=["a", "b"], target=["a", "b"]).classes == ("a", "b")
    assert task(input="signal", sample_rate_hz=250).sample_rate_hz == 250
    assert task(id="absent", first_id=1).first_id == 1
    assert task(train=ARRAYS).id == "id"  # the test table has it
    assert task(submission={"format": "top_k", "k": 3, "separator": ","}).submission.k == 3
    assert task(kind="multilabel", submission={"empty": "none", "separator": ";"}).submission.empty == "none"
    assert task(kind="regression", submission={"clip": [0, 1]}).submission.clip == (0, 1)


def test_a_path_template_is_cut_at_its_columns():
    parts = [("train/", "id", "0>5"), ("_", "view", ""), (".png", "", "")]
    assert template_parts("train/{id:0>5}_{view}.png") == parts
    assert template_parts("{{x}}{id}") == [("{", "", ""), ("x}", "", ""), ("", "id", "")]


def test_a_source_of_other_rows_is_checked_alike(tmp_path):
    (tmp_path / "rows.yaml").write_text("table: t.csv\nfile: x\n")
    with pytest.raises(ConfigError, match=r"^rows: file: unknown key"):
        validate(Source, read_yaml(tmp_path / "rows.yaml"), "rows")


def test_a_task_file_is_loaded_alone_with_its_name_in_errors(tmp_path):
    folder_with(tmp_path)
    assert load_task(tmp_path / "task.yaml") == task()
    (tmp_path / "task.yaml").write_text("name: x\n")
    with pytest.raises(ConfigError, match=r"task\.yaml:\n  data: is missing"):
        load_task(tmp_path / "task.yaml")


def test_defaults_that_matter():
    loaded = experiment()
    assert loaded.schedule == Cosine(name="cosine")
    assert (loaded.seeds, loaded.loss, loaded.ema, loaded.train.weights) == ((0,), None, None, "last")
    assert loaded.folds.n_folds == 5
    assert OneCycle(name="one_cycle").final_frac == 0
    assert Step(name="step", milestones=(1.0,)).gamma == 0.1
    assert Affine(max_scale=0.1).max_rotate_deg == 0
