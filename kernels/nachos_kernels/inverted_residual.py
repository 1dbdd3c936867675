"""The inverted residual block in training, forward and backward, each as one compiled function.

    z1 = x @ w1                  y1 = f(batch_norm(z1))          1x1, expand; may be missing: y1 = x
    z2 = depthwise(y1, w2)       y2 = f(batch_norm(z2))          k x k
    z3 = y2 @ w3                 y  = batch_norm(z3) [+ x]       1x1, project

Read `products.py`, `depthwise_cells.py` and `batch_norm_loops.py` before: it is they who compute. f is a gate of
`activation.py`. It is for small maps, where the calls from Python take longer than the arithmetic.

Inside, maps are stored cell by cell, [H, W, N, C]: products and batch norm see rows [., C] and do not mind their
order, the depthwise convolution profits. Only the narrow ends, x and y, are stored [N, H, W, C].

Source: Sandler et al., MobileNetV2, 2018, section 3.3.
"""

import numpy as np
from numpy.typing import NDArray

from nachos_kernels._jit import kernel
from nachos_kernels.activation import GATES, IDENTITY
from nachos_kernels.batch_norm_loops import normalised, through_norm
from nachos_kernels.depthwise_cells import cells_forward, cells_grad_input, cells_grad_weight
from nachos_kernels.products import product, transposed_product

ALWAYS_OPEN = GATES[IDENTITY]  # after the projection there is no activation


@kernel
def _swapped(x: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return y[b, a, c] = x[a, b, c]: cells of images, or images of cells."""
    A, B, C = x.shape
    y = np.empty((B, A, C), x.dtype)
    for a in range(A):
        for b in range(B):
            for c in range(C):
                y[b, a, c] = x[a, b, c]
    return y


@kernel
def _pointwise(x: NDArray[np.floating], w: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return x[R, C] @ w[C, K]."""
    z = np.empty((x.shape[0], w.shape[1]), x.dtype)
    product(x, w, z)
    return z


@kernel
def inverted_residual_forward(
    x: NDArray[np.floating],
    w1: NDArray[np.floating],
    gamma1: NDArray[np.floating],
    beta1: NDArray[np.floating],
    w2: NDArray[np.floating],
    gamma2: NDArray[np.floating],
    beta2: NDArray[np.floating],
    w3: NDArray[np.floating],
    gamma3: NDArray[np.floating],
    beta3: NDArray[np.floating],
    eps: float,
    gate: NDArray[np.floating],
    stride: int,
    residual: bool,
) -> tuple[NDArray[np.floating], ...]:
    """Return y and what the gradient needs: x and the maps between, and the coefficients of the batch norms.

    Args:
        x: float32 or float64 [N, H, W, C], C-contiguous, as all arrays here, and of one dtype.
        w1, gamma1, beta1: [C, M], [M], [M], or of size 0 if there is no expansion; then M is C.
        w2, gamma2, beta2: [KH, KW, M], [M], [M], sides odd; zeros around the map are half of them.
        w3, gamma3, beta3: [M, K], [K], [K].
        eps: > 0, added to the variances.
        gate: [4], shut, open, a, b of the activation, see `activation.py`.
        stride: of the depthwise convolution, >= 1.
        residual: whether x is added; then K is C and stride 1.

    Returns:
        y: [N, OH, OW, K].
        rows, z1, y1, z2, y2, z3: x and the maps between, [rows, channels]; z1 and y1 are x without expansion.
        affine1, affine2, affine3: [5, M], [5, M], [5, K], see `coefficients`.

    Source: the module's equations.
    """
    (N, H, W, C), M = x.shape, w2.shape[2]
    always_open = np.array(ALWAYS_OPEN).astype(x.dtype)
    rows = _swapped(x.reshape((N, H * W, C))).reshape((-1, C))
    z1, y1, affine1 = rows, rows, np.empty((5, 0), x.dtype)
    if w1.size:
        z1 = _pointwise(rows, w1)
        y1, affine1 = normalised(z1, gamma1, beta1, eps, gate)
    filtered = cells_forward(y1.reshape((H, W, N * M)), w2, stride)
    z2 = filtered.reshape((-1, M))
    y2, affine2 = normalised(z2, gamma2, beta2, eps, gate)
    z3 = _pointwise(y2, w3)
    y3, affine3 = normalised(z3, gamma3, beta3, eps, always_open)
    if residual:
        y3 += rows
    y = _swapped(y3.reshape((-1, N, w3.shape[1])))
    y = y.reshape((N, filtered.shape[0], filtered.shape[1], w3.shape[1]))
    return y, rows, z1, y1, z2, y2, z3, affine1, affine2, affine3


@kernel
def inverted_residual_grad(
    g: NDArray[np.floating],
    x_shape: tuple[int, int, int, int],
    w1: NDArray[np.floating],
    gamma1: NDArray[np.floating],
    w2: NDArray[np.floating],
    gamma2: NDArray[np.floating],
    w3: NDArray[np.floating],
    gamma3: NDArray[np.floating],
    gate: NDArray[np.floating],
    stride: int,
    residual: bool,
    rows: NDArray[np.floating],
    z1: NDArray[np.floating],
    y1: NDArray[np.floating],
    z2: NDArray[np.floating],
    y2: NDArray[np.floating],
    z3: NDArray[np.floating],
    affine1: NDArray[np.floating],
    affine2: NDArray[np.floating],
    affine3: NDArray[np.floating],
) -> tuple[NDArray[np.floating], ...]:
    """Return the gradients in x, w1, gamma1, beta1, w2, gamma2, beta2, w3, gamma3, beta3.

    Args:
        g: gradient of the loss in y, dtype and shape of y.
        x_shape: (N, H, W, C).
        w1, gamma1, w2, gamma2, w3, gamma3, gate, stride, residual: what `inverted_residual_forward` was given.
        rows, z1, y1, z2, y2, z3, affine1, affine2, affine3: what it returned.

    Source: derived here: the gradients of the parts, from the last to the first.
    """
    (N, H, W, C), (_, OH, OW, K), M = x_shape, g.shape, w2.shape[2]
    always_open = np.array(ALWAYS_OPEN).astype(g.dtype)
    g_rows = _swapped(g.reshape((N, OH * OW, K))).reshape((-1, K))
    gz3, ggamma3, gbeta3 = through_norm(g_rows, z3, gamma3, affine3, always_open, 1.0 / len(z3))
    gw3 = transposed_product(y2, gz3)
    gy2 = _pointwise(gz3, np.ascontiguousarray(w3.T))
    gz2, ggamma2, gbeta2 = through_norm(gy2, z2, gamma2, affine2, gate, 1.0 / len(z2))
    g_cells = gz2.reshape((OH, OW, N * M))
    gw2 = cells_grad_weight(g_cells, y1.reshape((H, W, N * M)), w2.shape, stride)
    gx = cells_grad_input(g_cells, w2, (H, W), stride).reshape((-1, M))
    gw1, ggamma1, gbeta1 = np.empty_like(w1), np.empty_like(gamma1), np.empty_like(gamma1)
    if w1.size:
        gz1, ggamma1, gbeta1 = through_norm(gx, z1, gamma1, affine1, gate, 1.0 / len(z1))
        gw1 = transposed_product(rows, gz1)
        gx = _pointwise(gz1, np.ascontiguousarray(w1.T))
    if residual:
        gx += g_rows
    gx = _swapped(gx.reshape((H * W, N, C))).reshape(x_shape)
    return gx, gw1, ggamma1, gbeta1, gw2, ggamma2, gbeta2, gw3, ggamma3, gbeta3
