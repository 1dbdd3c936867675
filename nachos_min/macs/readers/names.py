"""What PyTorch's functions and ONNX's operators are counted as, where their names say it all.

Names in small letters are PyTorch's, without namespace and without the underscore of in-place functions. Names
that begin with a capital are ONNX's. A kind names a column of the count, such as `act_elems:relu`.
"""

from typing import Final


def _by_name(table: str) -> dict[str, str]:
    """Return name -> kind. A kind ends with a colon, its names follow; after "=:" each name is the kind."""
    found: dict[str, str] = {}
    kind = ""
    for word in table.replace("|", "").split():
        if word.endswith(":"):
            kind = word.removesuffix(":")
        else:
            found[word] = word.lower() if kind == "=" else kind
    return found


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ACTIVATIONS: Final = _by_name("""
    =: relu Relu relu6 sigmoid Sigmoid tanh Tanh silu gelu Gelu elu Elu selu Selu celu Celu mish Mish softplus
        Softplus softsign Softsign leaky_relu rrelu logsigmoid hardshrink softshrink Shrink tanhshrink threshold
    hswish: hardswish HardSwish | hsigmoid: hardsigmoid HardSigmoid | sigmoid: expit | silu: Swish
    logsigmoid: log_sigmoid log_sigmoid_forward | rrelu: rrelu_with_noise | leaky_relu: LeakyRelu
    thresholded_relu: ThresholdedRelu
""")

# One kind for most functions of torch.special: no network has many.
POINTWISE: Final = _by_name("""
    =: Sub Div pow Pow square sqrt Sqrt rsqrt exp Exp log Log sin Sin cos Cos tan Tan atan Atan atan2 erf Erf abs
        Abs neg Neg sign Sign floor Floor ceil Ceil round Round trunc frac reciprocal Reciprocal Min Max where Where
        lerp addcmul addcdiv cumsum CumSum cumprod CumProd logaddexp floor_divide remainder Asin Acos Sinh Cosh
        Asinh Acosh Atanh IsNaN IsInf LRN Mean LpNormalization BitShift BitwiseAnd BitwiseOr BitwiseXor BitwiseNot
        acos asin sinh cosh acosh asinh atanh angle polar copysign hypot gcd lcm ldexp frexp nextafter sinc deg2rad
        rad2deg renorm cummax cummin logcumsumexp sub div | sign: sgn | logaddexp: logaddexp2 | sub: rsub
    log: logit log2 log10 log1p | shift: bitwise_left_shift bitwise_right_shift lshift rshift ilshift irshift
    remainder: fmod | pow: float_power | exp: exp2 expm1 | max: maximum fmax | min: minimum fmin
    clamp: clamp_min clamp_max | where: masked_fill nan_to_num
    compare: gt lt ge le eq ne isnan isinf isfinite heaviside isposinf isneginf isreal isclose signbit Equal Less
        LessOrEqual Greater GreaterOrEqual
    logic: logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not bitwise_xor iand ior
        ixor And Or Not Xor | random: bernoulli binomial geometric log_normal cauchy Bernoulli
    special: airy_ai bessel_j0 bessel_j1 bessel_y0 bessel_y1 digamma psi entr erfc erfcx erfinv gammainc gammaincc
        igamma igammac gammaln lgamma i0 i0e i1 i1e log_ndtr ndtr ndtri multigammaln mvlgamma polygamma xlog1py
        xlogy zeta modified_bessel_i0 modified_bessel_i1 modified_bessel_k0 modified_bessel_k1
        scaled_modified_bessel_k0 scaled_modified_bessel_k1 spherical_bessel_j0
    weight_norm: _weight_norm
""")

REDUCTIONS: Final = _by_name("""
    =: mean sum prod max min argmax ArgMax argmin ArgMin var std logsumexp any all median | mean: nanmean ReduceMean
    median: nanmedian | sum: nansum trace ReduceSum | prod: ReduceProd | max: amax aminmax ReduceMax
    min: amin ReduceMin | var: var_mean | std: std_mean | norm: vector_norm linalg_vector_norm native_norm
    count: count_nonzero | l1: ReduceL1 | l2: ReduceL2 | log_sum: ReduceLogSum | log_sum_exp: ReduceLogSumExp
    sum_square: ReduceSumSquare
""")

# Interpolation by PyTorch's basic operators: what follows "upsample_" in their names.
UPSAMPLING: Final = _by_name("""
    nearest: nearest1d nearest2d nearest3d | nearest-exact: nearest_exact1d nearest_exact2d nearest_exact3d
    linear: linear1d | bilinear: bilinear2d bilinear2d_aa | trilinear: trilinear3d | bicubic: bicubic2d bicubic2d_aa
""")

# Changes between kinds of numbers.
QUANTIZING: Final = _by_name("""
    quantize: quantize_per_tensor quantize_per_channel quantize_per_token quantize_per_tensor_dynamic
    dequantize: dequantize dequantize_per_tensor dequantize_per_channel dequantize_per_token
    fake_quantize: fake_quantize_per_tensor_affine_cachemask fake_quantize_per_channel_affine_cachemask
        _fake_quantize_per_tensor_affine_cachemask_tensor_qparams fused_moving_avg_obs_fake_quant
        _fused_moving_avg_obs_fq_helper _fake_quantize_learnable_per_tensor_affine
        _fake_quantize_learnable_per_channel_affine
""")

# PyTorch's functions that only move elements. ONNX says in each operator's own way where they go.
MOVES: Final = _names("""
    view reshape flatten permute transpose t squeeze unsqueeze expand repeat repeat_interleave cat stack split
    chunk unbind select select_scatter slice_scatter index_select index_put index_fill index_copy gather take
    scatter masked_select masked_scatter roll flip pad constant_pad_nd contiguous clone to unfold pixel_shuffle
    pixel_unshuffle channel_shuffle tril triu diagonal diag_embed sort topk one_hot embedding copy getitem nonzero
    unfold_copy im2col col2im fill zero max_unpool2d max_unpool3d complex slice as_strided_scatter
    diagonal_scatter put nonzero_static unsafe_split isin bincount histc histogram bucketize searchsorted kthvalue
    mode multinomial unique_consecutive unique_dim unique_dim_consecutive int_repr reflection_pad1d
    reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d _to_copy _unsafe_view
    _reshape_copy _stack _chunk_cat _unique _unique2 _unsafe_index index unfold_backward _index_put_impl
    _unsafe_index_put _unsafe_masked_index lift lift_fresh_copy _pin_memory _pack_padded_sequence
    torchvision.nms torchvision.roi_pool torchvision.ps_roi_pool
""")

# PyTorch's functions that give an array which is not computed.
CONSTANTS: Final = _names("""
    zeros ones full empty eye arange linspace logspace range scalar_tensor rand randn randint randperm normal
    zeros_like ones_like full_like empty_like rand_like randn_like randint_like new_zeros new_ones new_full
    new_empty new_tensor new_empty_strided empty_strided empty_permuted bartlett_window blackman_window
    kaiser_window hann_window hamming_window fft_fftfreq fft_rfftfreq fftfreq rfftfreq tril_indices triu_indices
    uniform exponential random constant kaiming_uniform kaiming_normal xavier_uniform xavier_normal trunc_normal
""")

# PyTorch's losses: each element is compared with its target, and what is found is averaged.
LOSSES: Final = _names("""
    binary_cross_entropy binary_cross_entropy_with_logits mse_loss l1_loss smooth_l1_loss huber_loss
    soft_margin_loss multi_margin_loss multilabel_margin_loss multilabel_margin_loss_forward nll_loss nll_loss_nd
    nll_loss_forward nll_loss2d_forward kl_div poisson_nll_loss ctc_loss _ctc_loss dist
""")

_ANY = 1 << 31  # arrays


def _arities(table: str) -> dict[str, tuple[int, int, int]]:
    """Return the three numbers that stand before each name."""
    found: dict[str, tuple[int, int, int]] = {}
    numbers: list[int] = []
    for word in table.replace("*", str(_ANY)).replace("~", "com.microsoft.").replace("|", "").split():
        if word.isdecimal():
            numbers.append(int(word))
        else:
            least, most, outputs = numbers[-3:]
            found[word] = (least, most, outputs)
    return found


# Least and most inputs and most outputs, in any operator set, of operators that have not one of each. "~" is ONNX
# Runtime's domain.
ARITIES: Final = _arities("""
    0 0 1 Constant RandomNormal RandomUniform SequenceEmpty
    1 1 2 MaxPool | 1 1 3 DynamicQuantizeLinear ~Unique | 1 1 4 Unique | 1 1 * If
    1 2 1 ReduceMax ReduceMin ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMean ReduceSum ReduceSumSquare
          ReduceProd Squeeze Unsqueeze Upsample Trilu SequenceErase SplitToSequence ~FastGelu ~Trilu | 1 2 2 TopK
    1 2 * Split | 1 3 1 Clip DFT | 1 3 2 Dropout | 1 4 1 Pad Resize | 1 5 1 Slice | 1 10 4 ~MultiHeadAttention
    1 * 1 Max Min Mean Sum Einsum Concat SequenceConstruct | 1 * * Scan
    2 2 1 Add Sub Mul Div Mod Pow And Or Xor Equal Less LessOrEqual Greater GreaterOrEqual BitShift BitwiseAnd
          BitwiseOr BitwiseXor CumSum CumProd PRelu MatMul RMSNormalization CastLike Reshape Expand Tile Gather
          GatherND GatherElements ReverseSequence SequenceAt AffineGrid GridSample
          SwiGLU ~BiasGelu ~BiasSoftmax ~FusedMatMul ~MatMulInteger16 ~TransposeMatMul ~ExpandDims
          ~GridSample | 2 2 2 SimplifiedLayerNormalization
    2 3 1 Conv ConvTranspose Gemm QuantizeLinear DequantizeLinear MaxUnpool SequenceInsert TensorScatter ~FusedGemm
          ~QuantizeLinear ~DequantizeLinear
    2 3 3 LayerNormalization | 2 4 1 ConvInteger MatMulInteger STFT ~FusedConv ~nchwc.Conv | 2 5 1 NonMaxSuppression
    2 5 2 ~BiasDropout | 2 7 2 ~Attention | 2 * * Loop
    3 3 1 Col2Im Scatter Where Range OneHot ScatterND ScatterElements GroupNormalization InstanceNormalization
          RoiAlign ~BiasAdd ~MatMulBnb4 | 3 4 1 RotaryEmbedding | 3 4 4 ~SkipSimplifiedLayerNormalization
    3 5 1 DeformConv ~DynamicQuantizeMatMul | 3 5 4 ~SkipLayerNormalization | 3 6 1 ~MatMulNBits | 3 6 2 GRU RNN
    3 7 4 Attention | 3 8 3 LSTM | 7 17 4 ~GroupQueryAttention | 4 4 1 ~RotaryEmbedding
    4 5 1 ~QLinearSigmoid ~QLinearLeakyRelu ~QLinearSoftmax ~QLinearReduceMean ~QLinearAveragePool
          ~QLinearGlobalAveragePool | 4 7 1 ~MatMulIntegerToFloat | 5 5 5 BatchNormalization
    5 9 2 ~QAttention | 5 * 1 ~QLinearConcat | 6 9 1 ~QGemm | 7 8 1 ~QLinearAdd ~QLinearMul
    7 9 3 ~EmbedLayerNormalization | 8 8 1 QLinearMatMul
    8 9 1 QLinearConv ~QLinearConv | 9 9 1 ~QLinearWhere
    12 12 3 ~DynamicQuantizeLSTM
""")

# Attributes of ONNX's operators. Another name may be a damaged one, in whose place the default would be counted.
ATTRIBUTES: Final = frozenset(
    _names("""
    accuracy_level activation activation_alpha activation_beta activation_gamma activation_params activations
    align_corners allowzero alpha antialias approximate auto_pad axes axis batch_axis batch_dims beta bias bits
    block_size blocksize body causal ceil_mode center_point_box channels channels_last clip
    coordinate_transformation_mode count_include_pad cubic_coeff_a detect_negative detect_positive dilations
    direction directions do_rotary dtype else_branch end ends epsilon equation exclude_outside exclusive
    extrapolation_value fmod gamma group hidden_size high input_forget interleaved inverse is_causal
    is_inner_broadcast is_packed_batching K k k_norm_epsilon k_quant_type keep_aspect_ratio_policy keepdims
    kernel_shape kv_cache_bit_width kv_num_heads lambd largest layout left_window_size linear_before_reset
    local_window_size low mask_filter_value mask_index_type max mean min mode momentum N nearest_mode new_axis
    noop_with_empty_axes num_groups num_heads num_outputs num_scan_inputs offset_group onesided opset
    output_datatype output_dtype output_height output_padding output_shape output_width p padding_mode pads
    past_present_share_buffer periodic perm pooled_shape precision q_norm_epsilon q_num_heads
    qk_matmul_output_mode qk_norm_epsilon qk_output qkv_hidden_sizes quant_type ratio reduction reverse
    right_window_size rotary_embedding_dim rotary_interleaved round_mode sample_size sampling_ratio saturate
    scale scales scan_input_axes scan_input_directions scan_output_axes scan_output_directions seed
    select_last_index shape size sliding_window_cache smooth_softmax softcap softmax_precision sorted
    sparse_value spatial spatial_scale split start starts stash_type storage_order strides then_branch time_axis
    to training_mode transA transB transBatchA transBatchB type unidirectional upper v_quant_type value
    value_float value_floats value_int value_ints value_string value_strings weight_prepacked
""")
)
