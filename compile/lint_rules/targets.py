"""What each TensorRT release takes of ONNX: opsets, operators, inputs that have to be constant, attributes. Data with its source.

`operators.md` of the ONNX parser was read for release 10.15; what its changelog and the release notes say was added later than a target's
release is taken away again (`SINCE`). 10.16 is read as 10.15: no later table was found. Nothing here was tried on a builder.
"""

from __future__ import annotations

from dataclasses import dataclass

OPERATORS_MD = "https://github.com/onnx/onnx-tensorrt/blob/release/10.15-GA/docs/operators.md"
CHANGELOG_MD = "https://github.com/onnx/onnx-tensorrt/blob/release/10.15-GA/docs/Changelog.md"


@dataclass(frozen=True)
class Target:
    """One release to lint for."""

    name: str
    version: tuple[int, int]
    found_on: str
    """Where this release is what one has."""
    max_opset: int
    opset_source: str
    int8_weights: bool
    """Whether its documents allow weights that are stored as INT8 already."""

    def has(self, operator: str) -> bool:
        return operator in OPERATORS and SINCE.get(operator, (0, 0)) <= self.version


MIN_OPSET = 9
TARGETS = {
    target.name: target
    for target in (
        Target("trt10.3", (10, 3), "JetPack 6", 20, "operators.md of release 10.0: opset 9 to 20; ONNX 1.17 came with 10.6 (Changelog.md)", False),
        Target("trt10.13", (10, 13), "JetPack 7.0, 7.1", 22, "Changelog.md: ONNX 1.17 with 10.6 (opset 22)", False),
        Target("trt10.16", (10, 16), "JetPack 7.2", 24, "operators.md of release 10.15: opset 9 to 24", False),
        Target("trt11.4", (11, 4), "JetPack 7.2.2, desktop", 24, "operators.md of release 11.2: opset 9 to 24; 25 came with 11.5", True),
    )
}

SINCE = {
    "BlackmanWindow": (10, 4),
    "HammingWindow": (10, 4),
    "HannWindow": (10, 4),
    "STFT": (10, 5),
    "Attention": (10, 14),
    "RMSNormalization": (10, 15),
    "RotaryEmbedding": (10, 15),
    "TensorScatter": (10, 15),
    "Swish": (11, 0),
    "DFT": (11, 2),
}
"""Operators that came later than 10.0. Changelog.md; 11.0 and 11.2: https://github.com/NVIDIA/TensorRT/releases"""

_OPERATORS = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization BlackmanWindow Cast CastLike Ceil
    Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DFT DeformConv DepthToSpace DequantizeLinear Div Dropout
    Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool
    GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization GRU HammingWindow HannWindow HardSigmoid HardSwish Hardmax Identity
    If ImageScaler InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop LRN LSTM
    LpNormalization LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or
    Pad ParametricSoftplus Pow PRelu QuantizeLinear RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1
    ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
    ReverseSequence RMSNormalization RNN RoiAlign RotaryEmbedding Round STFT ScaledTanh Scan Scatter ScatterElements ScatterND Selu Shape
    Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tan Tanh TensorScatter
    ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
"""
OPERATORS = frozenset(_OPERATORS.split())
"""Supported operators of the default domain: operators.md of 10.15, and Swish and DFT of 11. `SINCE` says from when."""

INTEGER_OPERATORS = frozenset({"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"})
"""8-bit operators of other engines, none of which the parser has in any release."""

CONSTANT_INPUTS = {
    **{f"Reduce{kind}": (1, "axes") for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")},
    "Squeeze": (1, "axes"),
    "Unsqueeze": (1, "axes"),
    "CumSum": (1, "axis"),
    "OneHot": (1, "depth"),
    "Dropout": (2, "training_mode"),
    "STFT": (1, "frame_step"),
    "Pad": (3, "axes"),
}
"""Operator -> index and name of the input that has to be known when the engine is built (operators.md, Restrictions)."""
CONSTANT_UNTIL = {"Pad": (10, 4)}
"""From this release on the input of `CONSTANT_INPUTS` may change (Changelog.md)."""

ONE_OUTPUT = {"LayerNormalization": "Y", "MaxPool": "Y, without Indices"}
"""Operators of which only the first output is supported."""

ONES = ("ones",)
ATTRIBUTES: dict[tuple[str, str], tuple[object, ...]] = {
    ("AveragePool", "dilations"): ONES,
    ("MaxPool", "dilations"): ONES,
    ("LpPool", "dilations"): ONES,
    ("LSTM", "input_forget"): (0,),
    ("LSTM", "layout"): (0,),
    ("ScatterND", "reduction"): ("none",),
    ("TopK", "sorted"): (1,),
    ("Resize", "antialias"): (0,),
    ("Resize", "mode"): ("nearest", "linear"),
    ("Resize", "keep_aspect_ratio_policy"): ("stretch",),
    ("Resize", "coordinate_transformation_mode"): ("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"),
}
"""Operator and attribute -> the values that are supported (operators.md, Restrictions)."""
