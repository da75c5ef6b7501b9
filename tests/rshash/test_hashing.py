import torch
from torch import Tensor, nn

from rshash import hashing
from rshash.pseudo_labels import soft_assignment


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def test_the_divergence_and_its_gradients_are_those_of_the_plain_formula() -> None:
    torch.manual_seed(0)
    target = torch.softmax(draw(12, 5), 1)
    inputs = draw(12, 4).requires_grad_(), draw(5, 4).requires_grad_()
    fast = hashing._Divergence.apply(*inputs, target)
    plain = nn.functional.kl_div(soft_assignment(*inputs), target, reduction="batchmean")
    torch.testing.assert_close(fast, plain)
    torch.testing.assert_close(
        torch.autograd.grad(3 * fast, inputs), torch.autograd.grad(3 * plain, inputs)
    )


def test_the_dissimilarity_and_its_gradient_are_those_over_all_pairs() -> None:
    torch.manual_seed(0)
    outputs = torch.tanh(draw(12, 8)).requires_grad_()
    directions = nn.functional.normalize(draw(12, 4), dim=1)
    fast = hashing._Dissimilarity.apply(outputs, directions)
    plain = (outputs @ outputs.T / 8 - directions @ directions.T).square().mean()
    torch.testing.assert_close(fast, plain)
    torch.testing.assert_close(
        torch.autograd.grad(3 * fast, outputs), torch.autograd.grad(3 * plain, outputs)
    )
