"""Small networks in the manner of known ones: half of what PyTorch counts, and by hand what it leaves out."""

import pytest
from macs.torch_cases import Calling, F, nn, torch

from nachos_min import count_macs

FlopCounterMode = pytest.importorskip("torch.utils.flop_counter").FlopCounterMode


class Decoder(nn.Module):
    """A block of a language model: a cache that is empty at first, grouped heads, rotated keys, a gated layer."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(32, 32, False), nn.Linear(32, 16, False), nn.Linear(32, 16, False)
        self.norm, self.words, self.head = nn.RMSNorm(32), nn.Embedding(50, 32), nn.Linear(32, 50, False)
        self.gate, self.up, self.down = nn.Linear(32, 48), nn.Linear(32, 48), nn.Linear(48, 32)

    def forward(self, words, cache=None):
        x = self.words(words)
        n, t, _ = x.shape
        q, k, v = (layer(self.norm(x)).view(n, t, -1, 8).transpose(1, 2) for layer in (self.q, self.k, self.v))
        angles = torch.outer(torch.arange(t), 10000 ** -torch.linspace(0, 1, 4)).repeat(1, 2)
        turned = torch.cat((-k[..., 4:], k[..., :4]), -1)
        k = torch.cat([x.new_zeros(0) if cache is None else cache, k * angles.cos() + turned * angles.sin()], -2)
        scores = q @ k.repeat_interleave(2, 1).transpose(-1, -2) / 8**0.5
        hidden = scores.masked_fill(torch.ones(t, t).triu(1).bool(), -1e9).softmax(-1) @ v.repeat_interleave(2, 1)
        x = x + hidden.transpose(1, 2).reshape(n, t, -1)
        return self.head(x + self.down(F.silu(self.gate(x)) * self.up(x)))


class Experts(nn.Module):
    """A mixture of experts: each row goes to the two with the highest scores; one expert gets no row."""

    def __init__(self):
        super().__init__()
        self.router, self.experts = nn.Linear(8, 4, False), nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        scores = self.router(x).index_fill(1, torch.tensor([3]), -1e9)
        weights, chosen = scores.softmax(-1).topk(2)
        made = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows, places = torch.where(chosen == number)
            made = made.index_add(0, rows, expert(x[rows]) * weights[rows, places, None])
        return made


class StateSpace(nn.Module):
    """A selective state space, step by step."""

    def __init__(self):
        super().__init__()
        self.enter, self.conv = nn.Linear(8, 16), nn.Conv1d(16, 16, 4, padding=3, groups=16)
        self.steps, self.leave, self.decay = nn.Linear(16, 9), nn.Linear(16, 8), nn.Parameter(torch.ones(16, 4))

    def forward(self, x):
        x = F.silu(self.conv(self.enter(x).transpose(1, 2))[..., : x.shape[1]]).transpose(1, 2)
        delta, before, after = self.steps(x).split([1, 4, 4], -1)
        state, made = x.new_zeros(len(x), 16, 4), []
        for t in range(x.shape[1]):
            change = torch.exp(-F.softplus(delta[:, t, :, None]) * self.decay)
            state = change * state + x[:, t, :, None] * before[:, t, None]
            made.append((state @ after[:, t, :, None]).squeeze(-1))
        return self.leave(torch.stack(made, 1))


class UNet(nn.Module):
    """A network that halves and doubles its map."""

    def __init__(self):
        super().__init__()
        self.down, self.inner = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.up, self.last = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(7, 2, 1)

    def forward(self, x):
        return {"out": self.last(torch.cat([self.up(self.inner(self.down(x).relu())), x], 1))}


class Flow(nn.Module):
    """Optical flow: all pairs of pixels, sampled where the flow points, in two turns."""

    def __init__(self):
        super().__init__()
        self.features, self.update = nn.Conv2d(3, 6, 3, padding=1), nn.GRUCell(1, 2)

    def forward(self, first, second):
        left, right = (self.features(x).flatten(2) for x in (first, second))
        pairs = (left.transpose(1, 2) @ right).view(-1, 1, *first.shape[2:])
        flow = first.new_zeros(len(pairs), 2)
        for _ in range(2):
            seen = F.grid_sample(pairs, flow[:, None, None], align_corners=True)
            flow = self.update(seen.flatten(1), flow)
        return flow


def _patches(x):
    """Return windows of a film, by a convolution over three axes."""
    return F.conv3d(x, torch.ones(8, 3, 2, 4, 4), stride=(2, 4, 4)).flatten(2).transpose(1, 2)


def _fourier(x):
    return torch.fft.fftn(x, dim=(1, 2)).real @ torch.ones(8, 8)


def _image(*shape):
    return (torch.randn(shape),)


WORDS = (torch.randint(0, 50, (1, 6)),)
LAYER = {"d_model": 8, "nhead": 2, "dim_feedforward": 12, "batch_first": True}
# The networks, what they are called with, and the MACs that FlopCounterMode leaves out.
NETWORKS = {
    "film": (lambda: Calling(_patches), _image(2, 3, 4, 8, 8), 0),
    "language model": (Decoder, WORDS, 0),
    "experts": (Experts, _image(5, 8), 0),
    "state space": (StateSpace, _image(2, 5, 8), 0),
    "u-net": (UNet, _image(2, 3, 8, 8), 0),
    "flow": (Flow, _image(1, 3, 4, 4) * 2, 0),
    "fourier": (lambda: Calling(_fourier), _image(2, 6, 8), 0),
    "speech": (
        lambda: nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True),
        _image(1, 7, 6),
        7 * 2 * 20 * (11 + 15),
    ),
    "gated": (lambda: nn.GRU(6, 5), _image(7, 2, 6), 0),
    "encoder": (
        lambda: nn.TransformerEncoderLayer(**LAYER),
        _image(1, 6, 8),
        6 * 64 * 4 + 6 * 96 * 2 + 2 * 6 * 6 * 8,
    ),
    "scripted": (lambda: torch.jit.script(UNet()), _image(2, 3, 8, 8), 0),
    "separable": (
        lambda: nn.Sequential(nn.Conv1d(4, 4, 5, groups=4), nn.Conv1d(4, 6, 1), nn.AdaptiveAvgPool1d(1)),
        _image(3, 4, 16),
        0,
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_has_the_count_of_what_pytorch_executes(name):
    make, inputs, missed = NETWORKS[name]
    torch.manual_seed(0)
    module = make().eval()
    counted = count_macs(module, inputs)
    with torch.no_grad(), FlopCounterMode(display=False) as peer:
        module(*inputs)
    assert int(counted) == peer.get_total_flops() // 2 + missed
