import pytest
import torch

from rshash.head import Dropout, HashHead


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_dropout_zeroes_a_share_and_keeps_the_mean(share: float) -> None:
    torch.manual_seed(0)
    values = torch.ones(400, 333, requires_grad=True)
    dropped = Dropout(share)(values)
    assert (dropped == 0).float().mean().item() == pytest.approx(share, abs=0.01)
    assert dropped.mean().item() == pytest.approx(1, abs=0.03)
    rows, columns = (dropped == 0).float().mean(0), (dropped == 0).float().mean(1)
    assert rows.std() < 0.05
    assert columns.std() < 0.05
    dropped.sum().backward()
    assert torch.equal(values.grad, dropped.detach())


def test_dropout_leaves_evaluation_and_a_share_of_none_alone() -> None:
    values = torch.randn(3, 5)
    assert torch.equal(Dropout(0.5).eval()(values), values)
    assert torch.equal(Dropout(0.0)(values), values)


@pytest.mark.parametrize("hidden", [0, 12])
def test_outputs_are_bounded_and_the_spec_builds_the_head_again(hidden: int) -> None:
    head = HashHead(6, 8, hidden).eval()
    again = HashHead(**head.spec()).eval()
    again.load_state_dict(head.state_dict())
    features = 100 * torch.randn(9, 6)
    assert head(features).abs().max() <= 1
    assert torch.equal(head(features), again(features))
