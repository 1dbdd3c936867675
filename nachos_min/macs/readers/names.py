"""What PyTorch's functions and ONNX's operators are counted as, where their names say it all.

Names in small letters are PyTorch's, without namespace and without the underscore of in-place functions. Names
that begin with a capital are ONNX's. A kind names a column of the count, such as `act_elems:relu`.
"""

from typing import Final


def _by_name(table: str) -> dict[str, str]:
    """Return name -> kind. A line is a kind and the names that it has; of a line with "=" each name is the kind."""
    found: dict[str, str] = {}
    for line in table.strip().splitlines():
        kind, *names = line.split()
        found |= {name: name.lower() if kind == "=" else kind for name in names}
    return found


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ACTIVATIONS: Final = _by_name("""
    =                relu Relu relu6 sigmoid Sigmoid tanh Tanh silu gelu Gelu elu Elu selu Selu celu Celu mish Mish
    =                softplus Softplus softsign Softsign leaky_relu rrelu logsigmoid hardshrink softshrink Shrink
    =                tanhshrink threshold
    hswish           hardswish HardSwish
    hsigmoid         hardsigmoid HardSigmoid
    sigmoid          expit
    silu             Swish
    leaky_relu       LeakyRelu
    thresholded_relu ThresholdedRelu
""")

POINTWISE: Final = _by_name("""
    =          Sub Div pow Pow square sqrt Sqrt rsqrt exp Exp log Log sin Sin cos Cos tan Tan atan Atan atan2
    =          erf Erf abs Abs neg Neg sign Sign floor Floor ceil Ceil round Round trunc frac reciprocal Reciprocal
    =          Min Max where Where lerp addcmul addcdiv cumsum CumSum cumprod CumProd logaddexp floor_divide
    =          remainder Asin Acos Sinh Cosh Asinh Acosh Atanh IsNaN IsInf LRN Mean LpNormalization
    =          BitShift BitwiseAnd BitwiseOr BitwiseXor BitwiseNot
    sub        sub subtract rsub
    div        div divide true_divide
    remainder  fmod
    pow        float_power
    exp        exp2 expm1
    log        log2 log10 log1p
    abs        absolute
    neg        negative
    max        maximum fmax
    min        minimum fmin
    clamp      clamp_min clamp_max
    where      masked_fill nan_to_num
    compare    gt lt ge le eq ne greater less greater_equal less_equal isnan isinf isfinite heaviside
    compare    Equal Less LessOrEqual Greater GreaterOrEqual
    logic      logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not bitwise_xor
    logic      And Or Not Xor
    random     bernoulli
    weight_norm _weight_norm
""")

REDUCTIONS: Final = _by_name("""
    =           mean sum prod max min argmax ArgMax argmin ArgMin var std logsumexp any all median
    mean        nanmean ReduceMean
    sum         nansum ReduceSum
    prod        ReduceProd
    max         amax aminmax ReduceMax
    min         amin ReduceMin
    var         var_mean
    std         std_mean
    norm        vector_norm linalg_vector_norm
    count       count_nonzero
    l1          ReduceL1
    l2          ReduceL2
    log_sum     ReduceLogSum
    log_sum_exp ReduceLogSumExp
    sum_square  ReduceSumSquare
""")

# PyTorch's functions that only move elements. ONNX says in each operator's own way where they go.
MOVES: Final = _names("""
    view reshape flatten unflatten permute transpose t adjoint swapaxes swapdims moveaxis movedim squeeze unsqueeze
    expand expand_as repeat repeat_interleave tile cat concat concatenate stack hstack vstack dstack column_stack
    split split_with_sizes tensor_split chunk unbind hsplit vsplit select narrow select_scatter slice_scatter
    index_select index_put index_fill index_copy gather take take_along_dim scatter masked_select masked_scatter
    roll flip fliplr flipud rot90 pad constant_pad_nd contiguous clone to float double half bfloat16 type type_as
    cpu cuda int long short bool byte view_as reshape_as as_strided unfold pixel_shuffle pixel_unshuffle
    channel_shuffle native_channel_shuffle tril triu diag diagonal diag_embed broadcast_to broadcast_tensors
    meshgrid sort argsort topk one_hot embedding copy ravel atleast_1d atleast_2d atleast_3d T mT H mH getitem
    nonzero unfold_copy im2col fill zero align_to refine_names block_diag resolve_conj resolve_neg max_unpool1d
    max_unpool2d
""")

# PyTorch's functions that give an array which is not computed.
CONSTANTS: Final = _names("""
    zeros ones full empty eye arange linspace logspace range scalar_tensor rand randn randint randperm normal
    zeros_like ones_like full_like empty_like rand_like randn_like randint_like new_zeros new_ones new_full
    new_empty new_tensor tril_indices triu_indices uniform exponential random hann_window hamming_window constant
    kaiming_uniform kaiming_normal xavier_uniform xavier_normal trunc_normal
""")
