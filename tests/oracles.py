"""Slow, obvious oracles: what every kernel has to compute, one multiplication at a time.

Each function is its definition written down: plain Python loops over every output, for each tap the question
whether it is on the map, sums in float64. Nothing here is shared with the kernels. Where an operator is
linear in an argument, the gradient pushes each coefficient back; else it is written from the derivative of
the definition.
"""

import math
from itertools import product

import numpy as np


def out_size(size, before, after, kernel, stride, dilation=1):
    """Return how many positions a kernel can take: counted by moving it until it leaves the padded map."""
    count = 0
    while count * stride + dilation * (kernel - 1) < before + size + after:
        count += 1
    return count


def cells(shape):
    """Return every index of an array of this shape, in order."""
    return product(*(range(size) for size in shape))


def assert_close(found, expected, single=1e-5, double=1e-12):
    """Compare shape, dtype and values of arrays, to an error of `single` in float32 and `double` in float64."""
    if isinstance(found, np.ndarray):
        found, expected = [found], [expected]
    for result, wanted in zip(found, expected, strict=True):
        tolerance = single if result.dtype == np.float32 else double
        np.testing.assert_allclose(result, wanted, rtol=tolerance, atol=tolerance, strict=True)


# Convolution


def conv2d_products(x_shape, w_shape, stride, padding, dilation, groups):
    """Yield (index in y, index in x, index in w) of every product that a convolution sums."""
    (N, H, W, C), (KH, KW, CG, K) = x_shape, w_shape
    assert CG * groups == C
    assert K % groups == 0
    top, bottom, left, right = padding
    OH = out_size(H, top, bottom, KH, stride[0], dilation[0])
    OW = out_size(W, left, right, KW, stride[1], dilation[1])
    for n, oh, ow, k in cells((N, OH, OW, K)):
        group = k // (K // groups)
        for kh, kw, c in cells((KH, KW, CG)):
            h = oh * stride[0] + kh * dilation[0] - top
            w = ow * stride[1] + kw * dilation[1] - left
            if 0 <= h < H and 0 <= w < W:
                yield (n, oh, ow, k), (n, h, w, group * CG + c), (kh, kw, c, k)


def conv2d_shape(x_shape, w_shape, stride, padding, dilation):
    """Return the shape of y. `w_shape` may be that of a depthwise kernel (KH, KW, C), too."""
    N, H, W, _ = x_shape
    top, bottom, left, right = padding
    OH = out_size(H, top, bottom, w_shape[0], stride[0], dilation[0])
    OW = out_size(W, left, right, w_shape[1], stride[1], dilation[1])
    return N, OH, OW, w_shape[-1]


def conv2d_forward(x, w, stride, padding, dilation, groups):
    """Return y[n, oh, ow, k] = sum of x * w."""
    y = np.zeros(conv2d_shape(x.shape, w.shape, stride, padding, dilation))
    for at_y, at_x, at_w in conv2d_products(x.shape, w.shape, stride, padding, dilation, groups):
        y[at_y] += float(x[at_x]) * float(w[at_w])
    return y.astype(x.dtype)


def conv2d_grad_input(g, w, x_shape, stride, padding, dilation, groups):
    """Return gx: each x receives g * w of every product it took part in."""
    gx = np.zeros(x_shape)
    for at_y, at_x, at_w in conv2d_products(x_shape, w.shape, stride, padding, dilation, groups):
        gx[at_x] += float(g[at_y]) * float(w[at_w])
    return gx.astype(g.dtype)


def conv2d_grad_weight(g, x, w_shape, stride, padding, dilation, groups):
    """Return gw: each w receives g * x of every product it took part in."""
    gw = np.zeros(w_shape)
    for at_y, at_x, at_w in conv2d_products(x.shape, w_shape, stride, padding, dilation, groups):
        gw[at_w] += float(g[at_y]) * float(x[at_x])
    return gw.astype(g.dtype)


# A depthwise convolution is a convolution with as many groups as channels, one output channel each.


def depthwise_forward(x, w, stride, padding, dilation):
    """Return y[n, oh, ow, c] = sum of x * w over the taps of channel c."""
    return conv2d_forward(x, w[:, :, None], stride, padding, dilation, x.shape[3])


def depthwise_grad_input(g, w, x_shape, stride, padding, dilation):
    return conv2d_grad_input(g, w[:, :, None], x_shape, stride, padding, dilation, x_shape[3])


def depthwise_grad_weight(g, x, w_shape, stride, padding, dilation):
    KH, KW, C = w_shape
    return conv2d_grad_weight(g, x, (KH, KW, 1, C), stride, padding, dilation, C)[:, :, 0]


# Pooling


def pool_windows(x_shape, size, stride, padding):
    """Yield (index in y, indices in x it looks at, without padded cells) of every window."""
    N, H, W, C = x_shape
    top, bottom, left, right = padding
    OH = out_size(H, top, bottom, size[0], stride[0])
    OW = out_size(W, left, right, size[1], stride[1])
    for n, oh, ow, c in cells((N, OH, OW, C)):
        window = []
        for kh, kw in cells(size):
            h, w = oh * stride[0] + kh - top, ow * stride[1] + kw - left
            if 0 <= h < H and 0 <= w < W:
                window.append((n, h, w, c))
        yield (n, oh, ow, c), window


def pool_shape(x_shape, size, stride, padding):
    N, H, W, C = x_shape
    top, bottom, left, right = padding
    return N, out_size(H, top, bottom, size[0], stride[0]), out_size(W, left, right, size[1], stride[1]), C


def max_pool_forward(x, size, stride, padding):
    """Return y and argmax: the first NaN of the window, or else the first of its largest values."""
    shape = pool_shape(x.shape, size, stride, padding)
    y, argmax = np.zeros(shape, x.dtype), np.zeros(shape, np.int32)
    for at_y, window in pool_windows(x.shape, size, stride, padding):
        values = [x[at] for at in window]
        nans = [i for i, value in enumerate(values) if np.isnan(value)]
        winner = window[nans[0] if nans else values.index(max(values))]
        y[at_y], argmax[at_y] = x[winner], winner[1] * x.shape[2] + winner[2]
    return y, argmax


def max_pool_grad_input(g, argmax, x_shape):
    """Return gx: each winner receives the g of the windows it won."""
    gx = np.zeros(x_shape)
    for n, oh, ow, c in cells(g.shape):
        h, w = divmod(int(argmax[n, oh, ow, c]), x_shape[2])
        gx[n, h, w, c] += float(g[n, oh, ow, c])
    return gx.astype(g.dtype)


def avg_pool_forward(x, size, stride, padding):
    """Return y: the sum of the window, divided by the number of cells it has with padding."""
    y = np.zeros(pool_shape(x.shape, size, stride, padding))
    for at_y, window in pool_windows(x.shape, size, stride, padding):
        y[at_y] = sum(float(x[at]) for at in window) / (size[0] * size[1])
    return y.astype(x.dtype)


def avg_pool_grad_input(g, x_shape, size, stride, padding):
    """Return gx: each cell receives an equal share of the g of the windows that cover it."""
    gx = np.zeros(x_shape)
    for at_y, window in pool_windows(x_shape, size, stride, padding):
        for at_x in window:
            gx[at_x] += float(g[at_y]) / (size[0] * size[1])
    return gx.astype(g.dtype)


# Activations, by name, on one Python float: f(u) and f'(u)


def hsigmoid(u):
    """Return relu6(u + 3) / 6."""
    return u if np.isnan(u) else min(max(u + 3.0, 0.0), 6.0) / 6.0


def sigmoid(u):
    """Return 1 / (1 + exp(-u)); written with tanh, which overflows nowhere."""
    return 0.5 * (1.0 + float(np.tanh(0.5 * u)))


ACTIVATIONS = {
    "identity": (lambda u: u, lambda _: 1.0),
    "relu": (lambda u: u if np.isnan(u) else max(u, 0.0), lambda u: 1.0 if u > 0 else 0.0),
    "hswish": (
        lambda u: u * hsigmoid(u),
        lambda u: 0.0 if u <= -3 else 1.0 if u >= 3 else hsigmoid(u) + u / 6.0,
    ),
    "hsigmoid": (hsigmoid, lambda u: 1.0 / 6.0 if -3 < u < 3 else 0.0),
    "sigmoid": (sigmoid, lambda u: sigmoid(u) * (1.0 - sigmoid(u))),
}


def activation_forward(x, name):
    """Return y with y[i] = f(x[i])."""
    f, _ = ACTIVATIONS[name]
    return np.array([f(float(u)) for u in x.flat], x.dtype).reshape(x.shape)


def activation_grad_input(g, x, name):
    """Return gx with gx[i] = g[i] * f'(x[i])."""
    _, slope = ACTIVATIONS[name]
    products = [float(a) * slope(float(u)) for a, u in zip(g.flat, x.flat, strict=True)]
    return np.array(products, x.dtype).reshape(x.shape)


# Batch norm, one channel at a time


def batch_norm_forward(x, gamma, beta, eps, name):
    """Return y, mean, var with the statistics of x."""
    columns = x.reshape(-1, x.shape[-1]).astype(np.float64).T
    mean = np.array([sum(column) / len(column) for column in columns])
    var = np.array([sum((column - m) ** 2) / len(column) for column, m in zip(columns, mean, strict=True)])
    y = batch_norm_infer(x, gamma, beta, mean, var, eps, name)
    return y, mean.astype(x.dtype), var.astype(x.dtype)


def batch_norm_infer(x, gamma, beta, mean, var, eps, name):
    """Return y = f(gamma * (x - mean) / sqrt(var + eps) + beta)."""
    y = np.zeros(x.shape, x.dtype)
    for at in cells(x.shape):
        c = at[-1]
        xhat = (float(x[at]) - float(mean[c])) / np.sqrt(float(var[c]) + eps)
        y[at] = ACTIVATIONS[name][0](float(gamma[c]) * xhat + float(beta[c]))
    return y


def batch_norm_infer_grad(g, x, gamma, beta, mean, var, eps, name):
    """Return gx, ggamma, gbeta with constant statistics: the chain rule, element by element."""
    gx, ggamma, gbeta = np.zeros(x.shape), np.zeros(gamma.shape), np.zeros(beta.shape)
    for at in cells(x.shape):
        c = at[-1]
        std = np.sqrt(float(var[c]) + eps)
        xhat = (float(x[at]) - float(mean[c])) / std
        gu = float(g[at]) * ACTIVATIONS[name][1](float(gamma[c]) * xhat + float(beta[c]))
        gx[at] = gu * float(gamma[c]) / std
        ggamma[c] += gu * xhat
        gbeta[c] += gu
    return gx.astype(x.dtype), ggamma.astype(x.dtype), gbeta.astype(x.dtype)


def batch_norm_grad(g, x, gamma, beta, eps, name):
    """Return gx, ggamma, gbeta through the statistics of x: Ioffe and Szegedy, section 3, as they stand."""
    C = x.shape[-1]
    rows, g_rows = x.reshape(-1, C).astype(np.float64), g.reshape(-1, C).astype(np.float64)
    m, gx = rows.shape[0], np.zeros((rows.shape[0], C))
    ggamma, gbeta = np.zeros(C), np.zeros(C)
    for c in range(C):
        column = rows[:, c]
        mean = sum(column) / m
        var = sum((column - mean) ** 2) / m
        xhat = (column - mean) / np.sqrt(var + eps)
        u = float(gamma[c]) * xhat + float(beta[c])
        gu = np.array([g_rows[i, c] * ACTIVATIONS[name][1](u[i]) for i in range(m)])
        gxhat = gu * float(gamma[c])
        gvar = sum(gxhat * (column - mean)) * -0.5 * (var + eps) ** -1.5
        gmean = sum(gxhat) * -1.0 / np.sqrt(var + eps) + gvar * sum(-2.0 * (column - mean)) / m
        gx[:, c] = gxhat / np.sqrt(var + eps) + gvar * 2.0 * (column - mean) / m + gmean / m
        ggamma[c], gbeta[c] = sum(gu * xhat), sum(gu)
    return gx.reshape(x.shape).astype(x.dtype), ggamma.astype(x.dtype), gbeta.astype(x.dtype)


# The loss of the exits


def exits_loss(
    logits, h, labels, costs, max_macs, support, alpha=1, beta=1, gamma=1, kappa=1, fixed=(), distillation=0, t=1
):
    """Return the loss that `eenn/losses.py` describes, sum by sum, of logits [E, N, C] and h [N, E-1]."""
    E, N, C = np.shape(logits)
    answers = confidence = expected = peak = told = 0.0

    def softmax(z):
        return [math.exp(s / t) / sum(math.exp(other / t) for other in z) for s in z]

    for n, y in enumerate(labels):
        staying = 1.0
        teacher = softmax([sum(logits[i][n][c] for i in range(E)) / E for c in range(C)])
        for i in range(E):
            z = logits[i][n]
            leaving = h[n][i] if i < E - 1 else 1.0
            q, staying = staying * leaving, staying * (1.0 - leaving)
            answers += (fixed[i] if len(fixed) else q) * (math.log(sum(math.exp(s) for s in z)) - z[y]) / N
            expected += q * costs[i] / N
            told += t**2 / N * sum(p * math.log(p / own) for p, own in zip(teacher, softmax(z), strict=True))
    for i in range(E - 1):
        right = [np.argmax(logits[i][n]) == y for n, y in enumerate(labels)]
        for n, is_right in enumerate(right):
            clipped = min(max(h[n][i], 1e-4), 1 - 1e-4)
            alike = right.count(is_right)
            confidence -= math.log(clipped if is_right else 1 - clipped) / (2 * alike * (E - 1))
            if support is not None:
                peak += (h[n][i] - support[labels[n]][i]) ** 2 / (N * (E - 1))
    over = 0.0
    if max_macs is not None and costs[-1] > max_macs:
        over = max(0.0, expected - max_macs) / (costs[-1] - max_macs)
    return alpha * answers + kappa * confidence + beta * over + gamma * peak + distillation * told
