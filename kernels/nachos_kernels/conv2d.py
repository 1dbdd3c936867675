"""Convolution, dense or in groups: copy every window into a row of a matrix, then one matrix product (BLAS).

    y[n, oh, ow, k] = sum over kh, kw, c of xp[n, oh*sh + kh*dh, ow*sw + kw*dw, c] * w[kh, kw, c, k]
        with xp the map x surrounded by zeros; with G groups, output channels of group q
        read the input channels of group q only

Read `_jit.py` before. `_unfold` writes the windows, patches[q, (n oh ow), (kh kw c)], so that

    y[q] = patches[q] @ w[q]        gw[q] = patches[q]^T @ g[q]        gpatches[q] = g[q] @ w[q]^T

and `_fold`, the transpose of `_unfold`, adds gpatches back onto the map. A 1x1 convolution needs no windows:
its patches are x itself. A depthwise convolution has no sum over channels and is faster as a loop nest:
`depthwise.py`.

Source: Chellapilla, Puri, Simard, High performance convolutional neural networks for document processing,
2006.
"""

import numpy as np
from numpy.typing import NDArray

from nachos_kernels._jit import kernel


@kernel
def _unfold(
    x: NDArray[np.floating],
    patches: NDArray[np.floating],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> None:
    """Fill patches[q, n, oh, ow, kh, kw, c] = x[n, oh*sh + kh*dh, ow*sw + kw*dw, q*CG + c]."""
    G, N, OH, OW, KH, KW, CG = patches.shape
    (sh, sw), (dh, dw) = stride, dilation
    for q in range(G):
        for n in range(N):
            for oh in range(OH):
                for ow in range(OW):
                    for kh in range(KH):
                        for kw in range(KW):
                            row = patches[q, n, oh, ow, kh, kw]
                            cell = x[n, oh * sh + kh * dh, ow * sw + kw * dw]
                            for c in range(CG):
                                row[c] = cell[q * CG + c]


@kernel
def _fold(
    patches: NDArray[np.floating],
    x: NDArray[np.floating],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> None:
    """Add x[n, oh*sh + kh*dh, ow*sw + kw*dw, q*CG + c] += patches[q, n, oh, ow, kh, kw, c]."""
    G, N, OH, OW, KH, KW, CG = patches.shape
    (sh, sw), (dh, dw) = stride, dilation
    for q in range(G):
        for n in range(N):
            for oh in range(OH):
                for ow in range(OW):
                    for kh in range(KH):
                        for kw in range(KW):
                            row = patches[q, n, oh, ow, kh, kw]
                            cell = x[n, oh * sh + kh * dh, ow * sw + kw * dw]
                            for c in range(CG):
                                cell[q * CG + c] += row[c]


def _is_matrix_product(
    w_shape: tuple[int, int, int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    groups: int,
) -> bool:
    """Return True if the convolution is x @ w as it stands: 1x1, stride 1, no padding, one group."""
    return w_shape[:2] == (1, 1) and stride == (1, 1) and not any(padding) and groups == 1


def _patches(
    x: NDArray[np.floating],
    w_shape: tuple[int, int, int, int],
    out_size: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> NDArray[np.floating]:
    """Return the windows of x as [G, N*OH*OW, KH*KW*CG]."""
    (N, H, W, C), (KH, KW, CG, _), (OH, OW) = x.shape, w_shape, out_size
    top, bottom, left, right = padding
    padded = np.zeros((N, top + H + bottom, left + W + right, C), x.dtype)
    padded[:, top : top + H, left : left + W] = x
    patches = np.empty((groups, N, OH, OW, KH, KW, CG), x.dtype)
    _unfold(padded, patches, stride, dilation)
    return patches.reshape(groups, N * OH * OW, KH * KW * CG)


def _weights_by_group(w: NDArray[np.floating], groups: int) -> NDArray[np.floating]:
    """Return w [KH, KW, CG, K] as [G, KH*KW*CG, K/G]."""
    K = w.shape[3]
    return w.reshape(-1, groups, K // groups).transpose(1, 0, 2)


def _rows_by_group(y: NDArray[np.floating], groups: int) -> NDArray[np.floating]:
    """Return y [N, OH, OW, K] as [G, N*OH*OW, K/G]."""
    K = y.shape[3]
    return y.reshape(-1, groups, K // groups).transpose(1, 0, 2)


def conv2d_forward(
    x: NDArray[np.floating],
    w: NDArray[np.floating],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> NDArray[np.floating]:
    """Return y, the convolution of x with w (the module's first equation); a bias is the caller's addition.

    Args:
        x: float32 or float64 [N, H, W, C], C-contiguous.
        w: dtype of x, [KH, KW, C/G, K], C-contiguous.
        stride: (sh, sw) >= 1.
        padding: (top, bottom, left, right) >= 0.
        dilation: (dh, dw) >= 1.
        groups: G >= 1, a divisor of C and of K.

    Returns:
        y: dtype of x, [N, OH, OW, K] with OH = (H + top + bottom - dh*(KH-1) - 1) // sh + 1,
            OW alike; C-contiguous.

    Source: see the module.
    """
    (N, H, W, C), (KH, KW, _, K) = x.shape, w.shape
    if _is_matrix_product(w.shape, stride, padding, groups):
        return (x.reshape(-1, C) @ w.reshape(C, K)).reshape(N, H, W, K)
    top, bottom, left, right = padding
    OH = (H + top + bottom - dilation[0] * (KH - 1) - 1) // stride[0] + 1
    OW = (W + left + right - dilation[1] * (KW - 1) - 1) // stride[1] + 1
    patches = _patches(x, w.shape, (OH, OW), stride, padding, dilation, groups)
    by_group = patches @ _weights_by_group(w, groups)
    return np.ascontiguousarray(by_group.transpose(1, 0, 2)).reshape(N, OH, OW, K)


def conv2d_grad_input(
    g: NDArray[np.floating],
    w: NDArray[np.floating],
    x_shape: tuple[int, int, int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> NDArray[np.floating]:
    """Return gx, the gradient of the loss in x: fold(g @ w^T).

    Args:
        g: gradient of the loss in y, float32 or float64 [N, OH, OW, K], C-contiguous.
        w: dtype of g, [KH, KW, C/G, K], C-contiguous.
        x_shape: (N, H, W, C).
        stride, padding, dilation, groups: as in `conv2d_forward`.

    Returns:
        gx: dtype of g, shape x_shape, C-contiguous.

    Source: derived here: y = unfold(x) @ w is linear in x, its transpose is fold(g @ w^T).
    """
    (N, H, W, C), (KH, KW, CG, K), (_, OH, OW, _) = x_shape, w.shape, g.shape
    if _is_matrix_product(w.shape, stride, padding, groups):
        return (g.reshape(-1, K) @ w.reshape(C, K).T).reshape(x_shape)
    by_group = _rows_by_group(g, groups) @ _weights_by_group(w, groups).transpose(0, 2, 1)
    top, bottom, left, right = padding
    padded = np.zeros((N, top + H + bottom, left + W + right, C), g.dtype)
    _fold(by_group.reshape(groups, N, OH, OW, KH, KW, CG), padded, stride, dilation)
    return np.ascontiguousarray(padded[:, top : top + H, left : left + W])


def conv2d_grad_weight(
    g: NDArray[np.floating],
    x: NDArray[np.floating],
    w_shape: tuple[int, int, int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> NDArray[np.floating]:
    """Return gw, the gradient of the loss in w: unfold(x)^T @ g.

    Args:
        g: gradient of the loss in y, float32 or float64 [N, OH, OW, K], C-contiguous.
        x: dtype of g, [N, H, W, C], C-contiguous.
        w_shape: (KH, KW, C/G, K).
        stride, padding, dilation, groups: as in `conv2d_forward`.

    Returns:
        gw: dtype of g, shape w_shape, C-contiguous.

    Source: derived here: y = unfold(x) @ w is linear in w.
    """
    (_, OH, OW, K), C = g.shape, x.shape[3]
    if _is_matrix_product(w_shape, stride, padding, groups):
        return (x.reshape(-1, C).T @ g.reshape(-1, K)).reshape(w_shape)
    patches = _patches(x, w_shape, (OH, OW), stride, padding, dilation, groups)
    by_group = patches.transpose(0, 2, 1) @ _rows_by_group(g, groups)
    return np.ascontiguousarray(by_group.transpose(1, 0, 2)).reshape(w_shape)
