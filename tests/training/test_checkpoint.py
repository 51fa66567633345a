"""Checkpoints: what they restore, and which files and configurations are refused."""

from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import nn

from mgca.training.checkpoint import metrics_until, resume, save_checkpoint, write_metrics
from mgca.weights import WeightsError, read_tensors


@dataclass(frozen=True)
class Inner:
    depth: int = 2
    share: float | None = None


@dataclass(frozen=True)
class Config:
    rate: float = 0.1
    name: str = "a"
    inner: Inner = field(default_factory=Inner)


class Net(nn.Module):
    """A trained part and a frozen one."""

    def __init__(self) -> None:
        super().__init__()
        self.trained = nn.Linear(3, 4)
        self.gate = nn.Parameter(torch.ones(()))
        self.frozen = nn.Linear(4, 4).requires_grad_(False)

    def forward(self, x):
        return self.frozen(self.gate * self.trained(x))


def started(seed: int, kind=torch.optim.AdamW, **options) -> tuple[Net, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    net = Net()
    return net, kind([p for p in net.parameters() if p.requires_grad], **{"lr": 0.1} | options)


def step(net, optimizer, number) -> None:
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(number))
    optimizer.zero_grad()
    net(x).square().sum().backward()
    optimizer.step()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "checkpoint.safetensors"


@pytest.fixture
def saved(path):
    """A run's network and optimizer after two steps, and their checkpoint."""
    net, optimizer = started(0)
    assert resume(path, Config(), net, optimizer) == 0
    for number in range(2):
        step(net, optimizer, number)
    save_checkpoint(path, Config(), net, optimizer, 2)
    return net, optimizer


def test_without_a_checkpoint_a_run_starts_in_a_folder_of_its_own(path):
    net, optimizer = started(0)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    assert resume(path, Config(), net, optimizer) == 0
    assert path.parent.is_dir() and not path.exists()
    assert not optimizer.state_dict()["state"]
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adam])
def test_weights_and_moments_are_restored(path, kind):
    net, optimizer = started(0, kind)
    for number in range(2):
        step(net, optimizer, number)
    save_checkpoint(path, Config(), net, optimizer, 2)
    other, resumed = started(1, kind)
    step(other, resumed, 9)  # moments of its own, to be replaced
    assert resume(path, Config(), other, resumed) == 2
    theirs, ours = optimizer.state_dict()["state"], resumed.state_dict()["state"]
    assert set(ours) == set(theirs) == {0, 1, 2}
    for index, moments in theirs.items():
        assert set(ours[index]) == set(moments) == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(ours[index][key], value) for key, value in moments.items())
    other.frozen.load_state_dict(net.frozen.state_dict())
    for number in range(2, 5):
        step(net, optimizer, number)
        step(other, resumed, number)
    for one, two in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_the_optimizers_own_settings_stay(saved, path):
    net, optimizer = started(1, lr=0.7, weight_decay=0.2)
    resume(path, Config(), net, optimizer)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.7, 0.2)
    assert group["params"][0] is net.gate and group["params"][1] is net.trained.weight


def test_what_is_frozen_is_neither_kept_nor_changed(saved, path):
    state, _ = read_tensors(path)
    kept = {key for key in state if key.startswith("model.")}
    assert kept == {"model.trained.weight", "model.trained.bias", "model.gate"}
    net, optimizer = started(1)
    frozen = net.frozen.weight.clone()
    resume(path, Config(), net, optimizer)
    assert torch.equal(net.frozen.weight, frozen)
    assert torch.equal(net.trained.weight, saved[0].trained.weight)


def test_equal_runs_have_equal_files(saved, path, tmp_path):
    net, optimizer = started(0)
    for number in range(2):
        step(net, optimizer, number)
    save_checkpoint(tmp_path / "again", Config(), net, optimizer, 2)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "other, differences",
    [
        (Config(rate=0.2), "rate: 0.1 there, 0.2 here"),
        (Config(inner=Inner(depth=3)), "inner.depth: 2 there, 3 here"),
        (Config(inner=Inner(share=0.0)), "inner.share: None there, 0.0 here"),
        (Config(0.2, "b", Inner(3)), "inner.depth: .*; name: a there, b here; rate: .*"),
    ],
)
def test_differences_are_named_and_nothing_is_loaded(saved, path, other, differences):
    net, optimizer = started(1)
    before = net.trained.weight.clone()
    with pytest.raises(ValueError, match=rf"another configuration \({differences}\): use another"):
        resume(path, other, net, optimizer)
    assert torch.equal(net.trained.weight, before) and not optimizer.state_dict()["state"]


def test_fields_that_only_one_configuration_has_are_named(saved, path):
    @dataclass(frozen=True)
    class Later(Config):
        seed: int = 4

    net, optimizer = started(1)
    with pytest.raises(ValueError, match=r"\(class: Config there, Later here; seed: None there, 4"):
        resume(path, Later(), net, optimizer)
    assert resume(path, replace(Config(), rate=0.1), net, optimizer) == 2


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-10], lambda whole: b"", lambda whole: b"a letter" + whole]
)
def test_a_damaged_file_is_named(saved, path, damage):
    path.write_bytes(damage(path.read_bytes()))
    net, optimizer = started(1)
    before = net.trained.weight.clone()
    with pytest.raises(WeightsError, match=r"checkpoint\.safetensors.*delete it to start again"):
        resume(path, Config(), net, optimizer)
    assert torch.equal(net.trained.weight, before)


def test_metrics_go_on_before_the_step(tmp_path):
    path = tmp_path / "metrics.csv"
    assert metrics_until(path, 10) == []
    rows = [{"step": 0, "loss": 0.1 + 0.2}, {"step": 1}, {"step": 10, "loss": 3}]
    write_metrics(path, ["step", "loss", "seconds"], rows)
    lines = path.read_text().splitlines()
    assert lines == ["step,loss,seconds", "0,0.30000000000000004,", "1,,", "10,3,"]
    assert [row["step"] for row in metrics_until(path, 10)] == ["0", "1"]
    assert float(metrics_until(path, 1)[0]["loss"]) == 0.1 + 0.2
    # Read and written again, the file is the same.
    write_metrics(path, ["step", "loss", "seconds"], metrics_until(path, 11))
    assert path.read_text().splitlines() == lines


def test_metrics_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "metrics.csv"
    write_metrics(path, ["step"], [{"step": 0}])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="loss"):
        write_metrics(path, ["step"], [{"step": 0}, {"step": 1, "loss": 2}])
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
