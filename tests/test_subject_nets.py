"""Nets that know whom a signal was recorded from: the layer, what travels with a batch, and a whole competition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from toys import make_toy, train_toy

from pipeline import api
from pipeline.augment.mixing import Mix, mix_batch
from pipeline.base.errors import ConfigError
from pipeline.base.files import read_json
from pipeline.models.build import build_model
from pipeline.models.max_norm import MaxNormNet
from pipeline.models.subjects import N_EMBEDDED, SubjectLayer, add_subjects
from pipeline.models.weights import read_weights
from pipeline.records.experiment import ModelSpec
from pipeline.training.subjects import UNKNOWN_PROB, SubjectsOfRows, with_known

NETS = ("conv1d", "eegnet", "eegnet_v4", "deepconvnet", "deep4net", "meg_basic", "meg_residual")
SHAPE = (3, 512)


def make_net(name: str, n_subjects: int = 4, shape: tuple[int, ...] = SHAPE, **options: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    options = ({"width": 8} if name.startswith("meg") else {}) | options
    return build_model(ModelSpec(name=name, **options), shape, 2, n_subjects=n_subjects)


def signals(n: int = 5, shape: tuple[int, int] = SHAPE) -> torch.Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(1))


def n_parameters(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


# -- the layer ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_every_net_of_signals_takes_either_layer(name: str) -> None:
    subjects = torch.tensor([1, 2, 3, 4, 0])
    plain = make_net(name)
    for how in ("embedding", "layer"):
        net = make_net(name, subject=how)
        assert net(add_subjects(signals(), subjects, 4)).shape == (5, 2)
        assert next(iter(dict(net.named_children()))) == "subjects"
        assert list(dict(net.named_children()))[1:] == list(dict(plain.named_children()))
        assert type(net) is type(plain)
        if isinstance(net, MaxNormNet):
            net.constrain()
    assert n_parameters(make_net(name, subject="layer")) == n_parameters(plain) + 5 * 3 * 3


def test_an_embedding_adds_channels_and_nothing_else() -> None:
    wide = make_net("meg_basic", shape=(3 + N_EMBEDDED, 512))
    assert n_parameters(make_net("meg_basic", subject="embedding")) == n_parameters(wide) + 5 * N_EMBEDDED


def test_the_layer_starts_as_no_layer() -> None:
    net, plain = make_net("meg_basic", subject="layer").eval(), make_net("meg_basic")
    plain.load_state_dict({name: tensor for name, tensor in net.state_dict().items() if "subjects" not in name})
    given = add_subjects(signals(), torch.tensor([1, 2, 3, 4, 0]), 4)
    torch.testing.assert_close(net(given), plain.eval()(signals()))


def test_each_subject_has_maps_of_its_own_and_half_of_two_gives_their_mean() -> None:
    layer = SubjectLayer("layer", 3, 2)
    with torch.no_grad():
        layer.maps.copy_(torch.randn(3, 3, 3))
    x = signals(1)
    one, two = (layer(add_subjects(x, torch.tensor([number]), 2)) for number in (1, 2))
    torch.testing.assert_close(one[0], layer.maps[1] @ x[0])
    half = (add_subjects(x, torch.tensor([1]), 2) + add_subjects(x, torch.tensor([2]), 2)) / 2
    torch.testing.assert_close(layer(half), (one + two) / 2)


@pytest.mark.parametrize("how", ["embedding", "layer"])
def test_signals_without_subjects_are_of_nobody_known(how: Any) -> None:
    torch.manual_seed(0)
    layer = SubjectLayer(how, 3, 2)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    torch.testing.assert_close(layer(signals()), layer(add_subjects(signals(), None, 2)))
    torch.testing.assert_close(layer(signals()), layer(add_subjects(signals(), torch.zeros(5, dtype=torch.int64), 2)))
    assert not torch.allclose(layer(signals()), layer(add_subjects(signals(), torch.ones(5, dtype=torch.int64), 2)))


def test_subjects_that_training_never_showed_count_as_unknown_at_prediction() -> None:
    layer = SubjectLayer("embedding", 3, 3)
    layer(add_subjects(signals(2), torch.tensor([1, 0]), 3))
    assert layer.seen.tolist() == [True, True, False, False]
    layer.eval()
    first, new, unknown = (layer(add_subjects(signals(1), torch.tensor([number]), 3)) for number in (1, 3, 0))
    torch.testing.assert_close(new, unknown)
    assert not torch.allclose(first, unknown)
    assert layer.seen.tolist() == [True, True, False, False]  # prediction teaches nothing


def test_mixing_gives_subjects_the_shares_that_targets_get() -> None:
    n = 4
    subjects, targets = torch.tensor([1, 2, 3, 4]), torch.eye(n)
    for is_patch in (False, True):
        mix = Mix(
            np.roll(np.arange(n), 1), np.full(n, 0.7), np.full(n, is_patch), np.tile([0.5, 0.02], (n, 1))
        )  # the window is cut at the border
        inputs, mixed = mix_batch(add_subjects(signals(n), subjects, n), targets, mix)
        shares = SubjectLayer("embedding", 3, n)._shares(inputs)
        torch.testing.assert_close(shares[:, 1:], mixed, atol=1e-6, rtol=0)
        assert (shares[:, 0] == 0).all()


def test_one_in_ten_is_withheld_by_its_draw_alone() -> None:
    rng = np.random.default_rng(0)
    uniform = torch.from_numpy(rng.random((4000, 1)))
    subjects = SubjectsOfRows(rng.integers(1, 3, 4000), 2)
    given = with_known(torch.zeros(4000, 1, 2), subjects, lambda name, n: {"subject": uniform}[name])
    withheld = given[:, 1, 0] == 1
    assert torch.equal(withheld, uniform[:, 0] < UNKNOWN_PROB)
    assert 0.08 < withheld.float().mean() < 0.12
    number = given[:, 1:, 0].argmax(1)[~withheld]
    assert torch.equal(number, torch.from_numpy(subjects.number)[~withheld])


def test_what_lacks_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"model\.subject: layer needs subjects; name their column in the task \(subj"
    ):
        make_net("meg_basic", n_subjects=0, subject="layer")
    with pytest.raises(ConfigError, match=r"model\.subject: .*(found: 'embeding')"):
        make_net("meg_basic", subject="embeding")
    with pytest.raises(ConfigError, match=r"model\.subject: unknown option of 'mlp'"):
        make_net("mlp", subject="layer")


# -- a competition -----------------------------------------------------------------------------------------------------


def turned_toy(root: Path, subject: str) -> Path:
    """Two classes that are each other's mirror image, and subjects half of whom are recorded upside down."""
    net = {
        "folds": {"n_folds": 2, "within": "subject"},
        "model": {"name": "meg_basic", "width": 8, "dropout": 0.0, "subject": subject},
        "train": {"epochs": 8, "batch_size": 10},
    }
    config = make_toy(
        root, "multiclass", "signal", n_names=2, n_train=160, n_test=40, task={"subject": "group"}, net=net
    )
    data = root / "data" / "multiclass"
    answers = pd.read_csv(root / "answers" / "multiclass.csv").set_index("id")
    wave = 1 + np.sin(np.arange(32) / 3)
    rng = np.random.default_rng(0)
    for which in ("train", "test"):
        table = pd.read_csv(data / f"{which}.csv")
        numbers = table.id.str[3:].astype(int)
        labels = table.label if which == "train" else answers.label.reindex(table.id).to_numpy()
        table["group"] = [f"g{number // 2 % 4}" for number in numbers]
        table.to_csv(data / f"{which}.csv", index=False)
        for row_id, label, group in zip(table.id, labels, table.group, strict=True):
            sign = (1 if label == "ant" else -1) * (1 if group in ("g0", "g1") else -1)
            np.save(data / which / f"{row_id}.npy", (sign * wave + 0.3 * rng.normal(size=(2, 32))).astype(np.float32))
    return config


def accuracy_on_test(root: Path, folder: Path) -> float:
    found = pd.read_parquet(folder / "test.parquet").set_index("id")
    answers = pd.read_csv(root / "answers" / "multiclass.csv").set_index("id").label.reindex(found.index)
    return float((found[["ant", "bee"]].idxmax(axis=1) == answers).mean())


def test_a_subject_that_turns_signals_round_is_learnt_where_the_net_knows_it(tmp_path: Path) -> None:
    scores = {}
    for subject in ("none", "embedding", "layer"):
        root = tmp_path / subject
        run = train_toy(root, turned_toy(root, subject), folds=[0])
        scores[subject] = (read_json(run.folder / "cv.json")["mean"], accuracy_on_test(root, run.folder))
    assert max(scores["none"]) < 0.75
    assert min(scores["layer"]) > 0.9
    assert min(scores["embedding"]) > 0.9


def test_saved_units_predict_the_same_again_and_new_subjects_as_unknown(tmp_path: Path) -> None:
    run = train_toy(tmp_path, turned_toy(tmp_path, "layer"), ["train.epochs=2"], folds=[0])
    before = pd.read_parquet(run.folder / "test.parquet").set_index("id")
    weights = read_weights(run.folder / "units" / "fold0-seed0" / "weights.safetensors")[0]
    assert weights["model.subjects.maps"].shape == (5, 2, 2)
    assert weights["model.subjects.seen"].all()
    api.predict(run.folder, root=tmp_path)
    pd.testing.assert_frame_equal(pd.read_parquet(run.folder / "test.parquet").set_index("id"), before)
    path = tmp_path / "data" / "multiclass" / "test.csv"
    found = []
    for change in (lambda table: table.assign(group="somebody new"), lambda table: table.drop(columns="group")):
        table = pd.read_csv(path)
        change(table).to_csv(path, index=False)
        api.predict(run.folder, root=tmp_path)
        found.append(pd.read_parquet(run.folder / "test.parquet").set_index("id"))
    pd.testing.assert_frame_equal(found[0], found[1])
    assert not found[0].equals(before)
