"""Which rule counts which ONNX operator. What is not listed has no rule, and a network that has it is refused.

Read `call.py` first; the rules are in the files named here. `If` is in `walk.py`.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

from nachos_min.macs.onnx_reader import (
    rules_constants,
    rules_elementwise,
    rules_norms,
    rules_places,
    rules_products,
    rules_resize,
    rules_shapes,
    rules_windows,
)
from nachos_min.macs.onnx_reader.arrays import Array
from nachos_min.macs.onnx_reader.call import Call

Rule = Callable[[Call], tuple[Array, ...]]

_SINGLE: Final[dict[str, Rule]] = {
    "Conv": rules_windows.conv,
    "ConvInteger": partial(rules_windows.conv, bias_at=4),
    "QLinearConv": partial(rules_windows.conv, weight_at=3, bias_at=8),
    "ConvTranspose": rules_windows.conv_transpose,
    "MaxPool": rules_windows.pool,
    "AveragePool": rules_windows.pool,
    "GlobalAveragePool": rules_windows.global_pool,
    "GlobalMaxPool": rules_windows.global_pool,
    "Gemm": rules_products.gemm,
    "MatMul": rules_products.matmul,
    "MatMulInteger": rules_products.matmul,
    "QLinearMatMul": partial(rules_products.matmul, right_at=3),
    "Einsum": rules_products.einsum,
    "Attention": rules_products.attention,
    "BatchNormalization": rules_norms.batch_norm,
    "InstanceNormalization": rules_norms.instance_norm,
    "GroupNormalization": rules_norms.group_norm,
    "LayerNormalization": rules_norms.layer_norm,
    "RMSNormalization": rules_norms.layer_norm,
    "PRelu": rules_elementwise.prelu,
    "Clip": rules_elementwise.clip,
    "Softmax": rules_elementwise.softmax,
    "LogSoftmax": rules_elementwise.softmax,
    "Hardmax": rules_elementwise.softmax,
    "Add": rules_elementwise.add,
    "Sum": rules_elementwise.add,
    "Mul": rules_elementwise.multiply,
    "Mod": rules_elementwise.modulo,
    "CumSum": rules_elementwise.cumulative,
    "CumProd": rules_elementwise.cumulative,
    "Cast": rules_elementwise.cast,
    "CastLike": rules_elementwise.cast,
    "QuantizeLinear": rules_elementwise.quantize,
    "DequantizeLinear": rules_elementwise.quantize,
    "DynamicQuantizeLinear": rules_elementwise.quantize,
    "Constant": rules_constants.given,
    "Shape": rules_constants.shape_of,
    "Size": rules_constants.size_of,
    "ConstantOfShape": rules_constants.constant_of_shape,
    "Range": rules_constants.numbers_from_to,
    "NonZero": rules_constants.places_of_ones,
    "EyeLike": rules_constants.eye_like,
    "Identity": rules_shapes.identity,
    "Dropout": rules_shapes.dropout,
    "Reshape": rules_shapes.reshape,
    "Flatten": rules_shapes.flatten,
    "Squeeze": rules_shapes.squeeze,
    "Unsqueeze": rules_shapes.unsqueeze,
    "Transpose": rules_shapes.transpose,
    "Expand": rules_shapes.expand,
    "Tile": rules_shapes.tile,
    "Concat": rules_places.concat,
    "Split": rules_places.split,
    "Slice": rules_places.cut,
    "Gather": rules_places.gather,
    "GatherElements": rules_places.gather_elements,
    "GatherND": rules_places.gather_nd,
    "ScatterElements": rules_places.scatter,
    "ScatterND": rules_places.scatter,
    "Pad": rules_places.pad,
    "DepthToSpace": rules_places.depth_to_space,
    "SpaceToDepth": rules_places.depth_to_space,
    "TopK": rules_places.top_k,
    "OneHot": rules_places.one_hot,
    "Trilu": rules_places.same_shape,
    "ReverseSequence": rules_places.same_shape,
    "Resize": rules_resize.resize,
    "Upsample": rules_resize.resize,
}
_FAMILIES: Final[tuple[tuple[Iterable[str], Rule], ...]] = (
    (rules_elementwise.ACTIVATIONS, rules_elementwise.activation),
    (rules_elementwise.POINTWISE, rules_elementwise.pointwise),
    (rules_norms.REDUCTIONS, rules_norms.reduce),
    (("ArgMax", "ArgMin"), rules_norms.arg_reduce),
)
RULES: Final[Mapping[str, Rule]] = _SINGLE | {each: rule for family, rule in _FAMILIES for each in family}
