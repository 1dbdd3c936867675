"""The whole network and its whole loss: gradients, PyTorch, and what does not depend on what."""

import numpy as np
import pytest
from oracles_nn import CLASSES, architecture, gradient_error, initialised, randomised

from nachos_min.autograd import Tensor, no_grad
from nachos_min.eenn.architecture import Architecture, FinalHead
from nachos_min.eenn.losses import Budget, exits_loss
from nachos_min.eenn.lowering import static_costs
from nachos_min.eenn.network import EarlyExitNetwork

SAMPLES = 6


IMAGES = {"image": (7, 6, 2), "signal": (1, 19, 2)}


def problem(seed: int, image: str = "image") -> tuple[EarlyExitNetwork, np.ndarray, np.ndarray, np.ndarray]:
    """A float64 network with three early exits, images, labels, support matrix."""
    network, rng = initialised(architecture(1, 2, 3, image=IMAGES[image]), seed), np.random.default_rng([seed, 2])
    randomised(network).astype(np.float64)
    for head in network.heads[:-1]:  # every sample weighs something at every exit
        head.linear.weight.data *= 0.3
    images = rng.standard_normal((SAMPLES, *IMAGES[image]))
    return network, images, rng.integers(0, CLASSES, SAMPLES), rng.random((CLASSES, 3))


def budget(network: EarlyExitNetwork, max_macs: int | None = None) -> Budget:
    """A limit that what the average sample costs exceeds, so that the cost term binds."""
    costs = static_costs(network.architecture).exit_costs
    return Budget(costs, costs[0] if max_macs is None else max_macs)


@pytest.mark.parametrize("training", [True, False], ids=["training", "frozen statistics"])
@pytest.mark.parametrize(("seed", "image"), [(0, "image"), (1, "image"), (2, "image"), (0, "signal")])
def test_gradients_of_the_loss_are_the_numeric_derivatives(seed: int, image: str, training: bool) -> None:
    network, images, labels, support = problem(seed, image)
    network.train(training)

    def loss() -> Tensor:
        return exits_loss(network(Tensor(images)), labels, budget(network), support)

    assert gradient_error(network, loss, np.random.default_rng(0)) < 1e-6


@pytest.mark.parametrize("training", [True, False], ids=["training", "frozen statistics"])
@pytest.mark.parametrize("image", IMAGES)
def test_outputs_loss_and_gradients_are_pytorchs(image: str, training: bool) -> None:
    """Where the input has height 1, those of one-dimensional layers."""
    import oracles_torch

    network, images, labels, support = problem(3, image)
    network.train(training)
    peer = oracles_torch.Peer(network)
    outputs = network(Tensor(images))
    loss = exits_loss(outputs, labels, budget(network), support)
    x = oracles_torch.nchw(images if image == "image" else images[:, 0])
    logits, confidences = peer.network(x, network.architecture)
    for output, answer in zip(outputs, logits, strict=True):
        np.testing.assert_allclose(output.logits.data, answer.detach().numpy(), rtol=1e-9, atol=1e-10)
    for output, confidence in zip(outputs, confidences, strict=False):
        assert output.confidence is not None
        np.testing.assert_allclose(output.confidence.data, confidence.detach().numpy(), rtol=1e-9)

    costs = budget(network).costs
    theirs = oracles_torch.exits_loss(logits, confidences, labels, costs, costs[0], support)
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-10)
    loss.backward()
    theirs.backward()
    oracles_torch.assert_same_gradients(network, peer)


def test_a_network_without_mix_and_expand_runs() -> None:
    arch = architecture(2, mix=0)
    network = initialised(Architecture(**(vars(arch) | {"final": FinalHead(0, 0, "relu")})))
    outputs = network(Tensor(np.zeros((2, 7, 6, 2), np.float32)))
    assert [output.logits.shape for output in outputs] == [(2, CLASSES)] * 2


def test_the_cost_term_reaches_every_parameter_that_an_early_exit_depends_on() -> None:
    for exceeded in (True, False):
        network, images, labels, _ = problem(0)
        worst = static_costs(network.architecture).worst_macs
        limit = budget(network) if exceeded else budget(network, worst - 1)
        exits_loss(network(Tensor(images)), labels, limit, alpha=0, gamma=0, kappa=0).backward()
        for name, parameter in network.named_parameters().items():
            reached = parameter.grad is not None and bool(np.abs(parameter.grad).max() > 0)
            assert reached == (exceeded and not name.startswith(("segments.3.", "heads.3."))), name


# What does not depend on what


def test_backbone_weights_do_not_depend_on_where_the_exits_are() -> None:
    x = Tensor(np.random.default_rng(0).standard_normal((3, 7, 6, 2)).astype(np.float32))
    networks = [initialised(architecture(*stages)) for stages in ((), (1,), (2, 3), (1, 2, 3))]
    assert len({network.backbone_state().tobytes() for network in networks}) == 1
    with no_grad():
        assert len({network(x)[-1].logits.data.tobytes() for network in networks}) == 1


def test_a_backbone_moves_to_a_network_with_other_exits() -> None:
    first, second, third = (initialised(architecture(*stages), sum(stages)) for stages in ((1, 2), (1,), (2,)))
    randomised(first)
    second.load_backbone_state(first.backbone_state())
    third.load_backbone_state(second.backbone_state())
    assert third.backbone_state().tobytes() == first.backbone_state().tobytes()
    x = Tensor(np.random.default_rng(0).standard_normal((2, *first.architecture.input_shape), np.float32))
    for network in (first, second, third):
        network.train(False)
    with no_grad():
        assert len({network(x)[-1].logits.data.tobytes() for network in (first, second, third)}) == 1
    with pytest.raises(ValueError, match=r"a backbone's state must have shape \(\d+,\), got \(3,\)"):
        first.load_backbone_state(np.zeros(3, np.float32))


def test_each_generator_draws_its_own_weights() -> None:
    arch = architecture(1, 3)
    one = EarlyExitNetwork(arch, np.random.default_rng(0), np.random.default_rng(1)).state()
    other = EarlyExitNetwork(arch, np.random.default_rng(0), np.random.default_rng(2)).state()
    differing = {name for name in one if not np.array_equal(one[name], other[name])}
    assert differing == {name for name in one if name.startswith(("heads.0.", "heads.1.")) and "weight" in name}


def test_an_exit_sees_only_what_runs_before_it() -> None:
    x = np.random.default_rng(0).standard_normal((3, 7, 6, 2)).astype(np.float32)
    network = initialised(architecture(1, 2))
    before = [output.logits.data for output in network(Tensor(x))]
    for name, parameter in network.named_parameters().items():
        if name.startswith(("segments.1.", "heads.1.")):
            parameter.data += 1
    after = [output.logits.data for output in network(Tensor(x))]
    assert [np.array_equal(a, b) for a, b in zip(before, after, strict=True)] == [True, False, False]


def test_parameters_are_divided_into_backbone_and_heads() -> None:
    network = initialised(architecture(1, 3))
    everything, backbone = set(network.named_parameters()), set(network.backbone_parameters())
    heads = set(network.head_parameters())
    assert backbone | heads == everything
    # The final classifier is trained with the backbone, and again with the exits.
    assert backbone & heads == {name for name in everything if name.startswith("heads.2.")}
