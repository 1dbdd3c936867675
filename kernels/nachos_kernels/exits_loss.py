"""The training loss of early exits and its gradients, sample by sample.

For E exits with logits z_i, early ones with confidences h_i, a sample comes to exit i with probability
s_i = prod_{j<i} (1 - h_j) and leaves there with q_i = s_i h_i (the last: q_E = s_E). With CE the cross-entropy and
w_i either fixed (deep supervision: every exit learns from every sample) or q_i (the paper's),

    loss = mean_n [ alpha sum_i w_i CE_i ]  +  beta max(0, mean_n sum_i q_i share_i)
         + kappa mean_i [ mean over right answers of -log h_i + mean over wrong ones of -log(1 - h_i) ] / 2
         + gamma mean_{n,i} (h_i - support[label, i])^2

The derivative of q in h: let G_i be the derivative of the loss in q_i, the price of leaving at exit i. A sample at
exit i expects V_i = h_i G_i + (1 - h_i) V_{i+1}, V_E = G_E. Then sum_i q_i G_i = V_1, and
d V_1 / d h_i = s_i (G_i - V_{i+1}), which divides by nothing, also where a sigmoid has been rounded to h = 1.

`distillation_and_gradients` is the term that deep supervision adds: each exit learns from the mean of all.
"""

import numpy as np

from nachos_kernels._jit import Doubles, Floats, Ints, kernel


@kernel
def exits_loss_and_gradients(
    logits: Floats,
    h: Floats,
    labels: Ints,
    shares: Floats,
    support: Floats,
    weights: tuple[float, float, float, float],
    bounds: Floats,
    fixed: Floats,
) -> tuple[float, Floats, Floats]:
    """Return the loss, and its gradients in logits and confidences.

    Args:
        logits: float32 or float64 [E, N, C], E >= 2.
        h: dtype of logits, [E-1, N], in 0..1.
        labels: int64 [N], 0 <= label < C.
        shares: dtype of logits, [E]: each exit's cost on a scale with 0 the budget and 1 the last exit's; may be
            negative; of size 0 without a budget.
        support: dtype of logits, [C, E-1], the wanted confidence; of size 0 without that term.
        weights: alpha, beta, gamma, kappa.
        bounds: dtype of logits, [2]: the logarithms clip h to these, with no gradient outside.
        fixed: dtype of logits, [E]: the w_i; of size 0 if w_i is q_i.

    Source: NACHOS (arXiv 2401.13330), the training loss; the gradients are derived here.
    """
    (E, N, C), (alpha, beta, gamma, kappa) = logits.shape, weights
    g_logits, g_h = np.empty_like(logits), np.empty_like(h)
    entropy, q, arrives = np.empty((E, N)), np.empty((E, N)), np.empty((E, N))
    right = np.zeros((E, N), np.bool_)
    rights, loss, over = np.zeros(E), 0.0, 0.0
    for n in range(N):
        come = 1.0
        for i in range(E):
            scores, best = logits[i, n], 0
            for c in range(C):
                if scores[c] > scores[best]:
                    best = c
            total = 0.0
            for c in range(C):
                g_logits[i, n, c] = np.exp(scores[c] - scores[best])
                total += g_logits[i, n, c]
            for c in range(C):  # softmax - onehot: the gradient of the cross-entropy
                g_logits[i, n, c] = g_logits[i, n, c] / total - (1.0 if c == labels[n] else 0.0)
            right[i, n] = best == labels[n]
            rights[i] += right[i, n]
            entropy[i, n] = np.log(total) - (scores[labels[n]] - scores[best])
            leave = h[i, n] if i < E - 1 else 1.0
            arrives[i, n], q[i, n] = come, come * leave
            come *= 1.0 - leave
            loss += alpha / N * (fixed[i] if fixed.size else q[i, n]) * entropy[i, n]
            if shares.size:
                over += q[i, n] * shares[i] / N
    paid = beta if over > 0.0 else 0.0
    loss += paid * over
    for n in range(N):
        expected = 0.0  # V_{i+1}
        for i in range(E - 1, -1, -1):
            price = (0.0 if fixed.size else alpha * entropy[i, n]) + (paid * shares[i] if shares.size else 0.0)
            for c in range(C):
                g_logits[i, n, c] *= alpha / N * (fixed[i] if fixed.size else q[i, n])
            if i == E - 1:
                expected = price
                continue
            confidence = h[i, n]
            slope = arrives[i, n] * (price - expected) / N
            expected = confidence * price + (1.0 - confidence) * expected
            # right and wrong answers of an exit have the same total weight, whatever their numbers
            weight = kappa * 0.5 / (E - 1) / (rights[i] if right[i, n] else N - rights[i])
            clipped = min(max(confidence, bounds[0]), bounds[1])
            given = clipped if right[i, n] else 1.0 - clipped
            loss -= weight * np.log(given)
            if clipped == confidence:
                slope += -weight / given if right[i, n] else weight / given
            if support.size:
                miss = confidence - support[labels[n], i]
                loss += gamma * miss * miss / h.size
                slope += 2.0 * gamma * miss / h.size
            g_h[i, n] = slope
    return loss, g_logits, g_h


@kernel
def distillation_and_gradients(logits: Floats, temperature: float) -> tuple[float, Floats]:
    """Return the distillation from the mean of all exits to each of them, and its gradient in the logits.

    With p_i = softmax(z_i / T) and the constant p = softmax(mean_i z_i / T), loss = T^2 mean_n sum_i KL(p || p_i)
    and its gradient in z_i is T (p_i - p) / N.

    Args:
        logits: float32 or float64 [E, N, C], E >= 2.
        temperature: T > 0.

    Source: Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015; between the exits of
        one network: Zhang et al., "Be your own teacher", ICCV 2019, there from the last exit alone.
    """
    E, N, C = logits.shape
    gradient = np.empty_like(logits)
    mean, teacher, student, loss = np.empty(C), np.empty(C), np.empty(C), 0.0
    for n in range(N):
        for c in range(C):
            mean[c] = 0.0
            for i in range(E):
                mean[c] += logits[i, n, c] / E
        log_teacher = _softmax(mean, temperature, teacher)
        for i in range(E):
            log_student = _softmax(logits[i, n], temperature, student)
            for c in range(C):
                log_ratio = (mean[c] - logits[i, n, c]) / temperature - log_teacher + log_student
                loss += temperature * temperature / N * teacher[c] * log_ratio
            for c in range(C):
                gradient[i, n, c] = temperature / N * (student[c] - teacher[c])
    return loss, gradient


@kernel
def _softmax(scores: Floats, temperature: float, out: Doubles) -> float:
    """Write softmax(scores / temperature) into `out`; return the logarithm of the sum it divides by."""
    best, total = scores[0], 0.0
    for c in range(len(scores)):
        best = max(best, scores[c])
    for c in range(len(scores)):
        out[c] = np.exp((scores[c] - best) / temperature)
    for c in range(len(scores)):  # a sum in a loop of its own: see FASTMATH in `_jit.py`
        total += out[c]
    for c in range(len(scores)):
        out[c] /= total
    log_total: float = np.log(total) + best / temperature
    return log_total
