"""A batch on several processes: the loss and the gradient of one process with all of it."""

import forked
import processes
import pytest
import torch

from mgca.training.distributed import gather_numbers, gather_rows, mean_over_images


def launched(folder, world):
    """What each of so many processes computes."""
    out = folder / f"{world}"
    if world == 1:
        ended = [forked.run(processes.main, out, said=folder / "said.txt")]
    else:
        ended = forked.run_together(processes.main, out, world=world, folder=folder)
    for done in ended:
        assert not done.returncode, done.stderr[-3000:]
    return [torch.load(f"{out}-{rank}.pt") for rank in range(world)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return launched(tmp_path_factory.mktemp("processes"), 1)[0]


@pytest.mark.parametrize("world", [2, 4])
def test_processes_find_the_loss_and_gradient_of_one(alone, tmp_path, world):
    found = launched(tmp_path, world)
    assert len(alone) > 60
    for rank, ours in enumerate(found):
        assert ours.keys() == alone.keys()
        for name, expected in alone.items():
            scale = expected.norm()
            if name.endswith("held blocks.1.conv.bias"):
                scale = 1  # a held mean makes this gradient 0, but for rounding
            error = (ours[name] - expected).norm() / scale
            assert error <= 1e-5, (rank, name, error.item())


def test_parts_change_nothing(alone):
    for name, whole in alone.items():
        if " paper " in name:
            parts = alone[name.replace(" paper ", " parts ")]
            assert (parts - whole).norm() <= 1e-5 * whole.norm(), name


def test_cases_differ_from_each_other(alone):
    """So that the comparison above would see a case that is computed like another."""
    totals = [alone[f"even {name} total"].item() for name in processes.CASES if name != "parts"]
    assert len({round(total, 4) for total in totals}) == len(totals)


def test_one_process_alone_gathers_itself():
    rows = torch.randn(3, 4, requires_grad=True)
    gathered, first = gather_rows(rows)
    assert gathered is rows and first == 0
    assert gather_numbers([3, 0], "cpu") == [[3, 0]]
    maps = torch.randn(2, 4, 3, 3)
    assert torch.equal(mean_over_images(maps)[0, :, 0, 0], maps.mean(dim=(0, 2, 3)))
