"""Packed vectors for numba: a type of 16 float32 (or 8 float64) and the few operations the scan needs.

numba vectorises a loop when LLVM's heuristics say so; the scan's exponential is too long for that to be
relied on, and a scalar libm call costs 5 to 10 times as much. So the kernel is written on explicit vectors,
and LLVM splits them where the machine's registers are narrower (two halves on AVX2, four quarters on NEON).

numba's cache on disk watches only the file of the compiled function: whoever changes this file touches
`numba_kernel.py` too.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba.core import extending, types
from numba.core.extending import models, overload, register_model

__all__ = [
    "cache_line", "exp2", "fill", "fma", "keep_apart", "lanes_of", "load", "pointer",
    "softplus_terms", "splat", "store", "sum_rows",
]  # fmt: skip

# Called without the typing context they are declared with; type checkers cannot know that.
intrinsic = cast("Callable[[Callable[..., Any]], Callable[..., Any]]", extending.intrinsic)

Builder = Any
Value = Any


class Vector(types.Type):
    """A packed vector of one floating type."""

    def __init__(self, scalar: types.Float) -> None:
        self.scalar = scalar
        self.lanes = 512 // scalar.bitwidth
        super().__init__(name=f"Vector({scalar}x{self.lanes})")


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """A vector is one LLVM value."""

    def __init__(self, manager: Any, vector: Vector) -> None:
        element = manager.lookup(vector.scalar).get_value_type()
        super().__init__(manager, vector, ir.VectorType(element, vector.lanes))


FLOAT32X16 = Vector(types.float32)
FLOAT64X8 = Vector(types.float64)
_VECTORS = {types.float32: FLOAT32X16, types.float64: FLOAT64X8}


# ---- LLVM building blocks, usable inside one intrinsic ----


def _constant(kind: ir.VectorType, value: float) -> Value:
    return ir.Constant(kind, [ir.Constant(kind.element, value)] * kind.count)


def _call(builder: Builder, name: str, *arguments: Value) -> Value:
    """An LLVM intrinsic overloaded on the type of its first argument."""
    kind = arguments[0].type
    if isinstance(kind, ir.VectorType):
        suffix = f"v{kind.count}{'f32' if isinstance(kind.element, ir.FloatType) else 'f64'}"
    else:
        suffix = "f32" if isinstance(kind, ir.FloatType) else "f64"
    signature = ir.FunctionType(kind, [argument.type for argument in arguments])
    function = builder.module.declare_intrinsic(f"llvm.{name}.{suffix}", fnty=signature)
    return builder.call(function, arguments)


def _fma(builder: Builder, a: Value, b: Value, c: Value) -> Value:
    # fmuladd, not fma: one instruction where the machine has it, never a call into libm where it has not.
    return _call(builder, "fmuladd", a, b, c)


def _larger(builder: Builder, x: Value, bound: float) -> Value:
    """max(x, bound) that lets NaN through."""
    limit = _constant(x.type, bound)
    return builder.select(builder.fcmp_ordered("<", x, limit), limit, x)


def _smaller(builder: Builder, x: Value, bound: float) -> Value:
    limit = _constant(x.type, bound)
    return builder.select(builder.fcmp_ordered(">", x, limit), limit, x)


def _horner(builder: Builder, x: Value, coefficients: Sequence[float]) -> Value:
    """Sum of coefficients[k] x^k."""
    value = _constant(x.type, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = _fma(builder, value, x, _constant(x.type, coefficient))
    return value


_EXP2_FLOAT = (
    1.0, 0.6931470036506653, 0.24022242426872253, 0.05550733581185341, 0.009671512991189957,
    0.001326472731307149,
)  # fmt: skip
"""2^r on [-1/2, 1/2]: relative minimax under p(0) = 1, so that exp(dt A) is exact where dt A vanishes and
long memories do not drift. Largest relative error 9.1e-8 before rounding."""
_LOG2_E = math.log2(math.e)
_LOG2_E_REST = 2.0355273740931033e-17
_EXP2_DOUBLE = tuple(math.log(2) ** k / math.factorial(k) for k in range(15))
"""Taylor; the remainder at 1/2 is below 1e-18."""


def _exp2(builder: Builder, z: Value, rest: Value | None = None) -> Value:
    """2^(z + rest): a large constant added leaves the nearest integer, biased, in the low bits."""
    single = isinstance(z.type.element, ir.FloatType)
    mantissa, bias, bits = (23, 127, 32) if single else (52, 1023, 64)
    # At -bias the scale is exactly 0, at bias + 1 it is infinity: underflow and overflow as they should be.
    z = _smaller(builder, _larger(builder, z, -float(bias)), float(bias + 1))
    magic = _constant(z.type, 1.5 * 2.0**mantissa + bias)
    shifted = builder.fadd(z, magic)
    r = builder.fsub(z, builder.fsub(shifted, magic))
    if rest is not None:
        r = builder.fadd(r, rest)
    integers = ir.VectorType(ir.IntType(bits), z.type.count)
    amount = ir.Constant(integers, [ir.Constant(ir.IntType(bits), mantissa)] * z.type.count)
    scale = builder.bitcast(builder.shl(builder.bitcast(shifted, integers), amount), z.type)
    return builder.fmul(_horner(builder, r, _EXP2_FLOAT if single else _EXP2_DOUBLE), scale)


def _exp_of_negative(builder: Builder, x: Value) -> Value:
    """exp(-x) for x >= 0 to the last bit or two: what rounding x log2(e) loses is put back."""
    single = isinstance(x.type.element, ir.FloatType)
    high = float(np.float32(_LOG2_E)) if single else _LOG2_E
    z = builder.fmul(x, _constant(x.type, -high))
    lost = _fma(builder, x, _constant(x.type, -high), builder.fneg(z))
    lost = _fma(builder, x, _constant(x.type, high - _LOG2_E if single else -_LOG2_E_REST), lost)
    # Past -bias the result is zero whatever was lost, and an infinite x must not make a NaN there.
    bounded = builder.fcmp_ordered("<", x, _constant(x.type, 80.0 if single else 700.0))
    return _exp2(builder, z, builder.select(bounded, lost, _constant(x.type, 0.0)))


def _log1p_unit(builder: Builder, w: Value) -> Value:
    """log(1 + w) for 0 <= w <= 1, as 2 artanh(w / (2 + w)): small w keep their relative precision."""
    terms = 7 if isinstance(w.type.element, ir.FloatType) else 18
    s = builder.fdiv(w, builder.fadd(w, _constant(w.type, 2.0)))
    series = _horner(builder, builder.fmul(s, s), [2.0 / (2 * k + 1) for k in range(terms)])
    return builder.fmul(s, series)


def _broadcast(builder: Builder, scalar: Value, kind: ir.VectorType) -> Value:
    """The scalar in every lane, in the form that becomes one broadcast instruction."""
    anything = ir.Constant(kind, ir.Undefined)
    single = builder.insert_element(anything, scalar, ir.IntType(32)(0))
    indices = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [ir.IntType(32)(0)] * kind.count)
    return builder.shuffle_vector(single, anything, indices)


def _vector_pointer(context: Any, builder: Builder, signature: Any, memory: Value, index: Value) -> Value:
    kind = context.get_value_type(_VECTORS[signature.args[0].dtype])
    return builder.bitcast(builder.gep(memory, [index]), ir.PointerType(kind))


# ---- what the kernel calls ----


def _define(symbol: Callable[..., Any], instruction: str) -> None:
    """Give two vectors of one type an operator of Python, lane by lane, as one instruction."""

    @intrinsic
    def lanewise(typing_context: Any, a: Any, b: Any) -> Any:
        return a(a, a), lambda context, builder, signature, args: getattr(builder, instruction)(*args)

    @overload(symbol)
    def _(a: Any, b: Any) -> Callable[..., Any] | None:
        def implementation(a: Any, b: Any) -> Any:
            return lanewise(a, b)

        return implementation if isinstance(a, Vector) and a == b else None


_define(operator.add, "fadd")
_define(operator.sub, "fsub")
_define(operator.mul, "fmul")
_define(operator.truediv, "fdiv")


@intrinsic
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """A * b + c."""
    return a(a, a, a), lambda context, builder, signature, args: _fma(builder, *args)


@intrinsic
def fill(typing_context: Any, memory: Any, value: Any) -> Any:
    """A vector of the type that memory holds, the value in every lane."""

    def generate(context: Any, builder: Builder, signature: Any, args: Any) -> Value:
        kind = context.get_value_type(signature.return_type)
        value = (
            args[1] if signature.args[0].dtype == types.float64 else builder.fptrunc(args[1], kind.element)
        )
        return _broadcast(builder, value, kind)

    return _VECTORS[memory.dtype](memory, types.float64), generate


@intrinsic
def exp2(typing_context: Any, z: Any) -> Any:
    """2 to the power of every lane."""
    return z(z), lambda context, builder, signature, args: _exp2(builder, args[0])


@intrinsic
def softplus_terms(typing_context: Any, x: Any) -> Any:
    """(softplus(x), sigmoid(x)), both from one exponential."""

    def generate(context: Any, builder: Builder, signature: Any, args: Any) -> Value:
        (value,) = args
        zero, one = _constant(value.type, 0.0), _constant(value.type, 1.0)
        magnitude = _call(builder, "fabs", value)
        w = _exp_of_negative(builder, magnitude)
        positive = builder.fcmp_ordered(">=", value, zero)
        plus = builder.fadd(_larger(builder, value, 0.0), _log1p_unit(builder, w))
        sigmoid = builder.fdiv(builder.select(positive, one, w), builder.fadd(one, w))
        return context.make_tuple(builder, signature.return_type, (plus, sigmoid))

    return types.UniTuple(x, 2)(x), generate


@intrinsic
def pointer(typing_context: Any, array: Any) -> Any:
    """The memory of an array, without its reference count: handing arrays from function to function costs
    more than the arithmetic here.
    """

    def generate(context: Any, builder: Builder, signature: Any, args: Any) -> Value:
        return context.make_array(signature.args[0])(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), generate


@intrinsic
def cache_line(typing_context: Any, memory: Any) -> Any:
    """The first place in memory from a pointer on that begins a cache line of 64 bytes."""

    def generate(context: Any, builder: Builder, signature: Any, args: Any) -> Value:
        address = builder.ptrtoint(args[0], ir.IntType(64))
        aligned = builder.and_(builder.add(address, ir.IntType(64)(63)), ir.IntType(64)(-64))
        return builder.inttoptr(aligned, args[0].type)

    return memory(memory), generate


@intrinsic
def lanes_of(typing_context: Any, memory: Any) -> Any:
    """How many elements of memory a vector holds, as a constant."""
    lanes = _VECTORS[memory.dtype].lanes
    return types.intp(memory), lambda context, builder, signature, args: ir.IntType(64)(lanes)


@intrinsic
def keep_apart(typing_context: Any) -> Any:
    """Keep LLVM from merging the calling function into its caller, where its loop would run short of
    registers.
    """

    def generate(context: Any, builder: Builder, signature: Any, args: Any) -> Value:
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def load(typing_context: Any, memory: Any, index: Any) -> Any:
    """The vector that starts at a flat index."""

    def generate(context: Any, builder: Builder, signature: Any, args: Any) -> Value:
        pointer = _vector_pointer(context, builder, signature, *args)
        return builder.load(pointer, align=signature.args[0].dtype.bitwidth // 8)

    return _VECTORS[memory.dtype](memory, types.intp), generate


@intrinsic
def store(typing_context: Any, memory: Any, index: Any, vector: Any) -> Any:
    """Write a vector from a flat index on."""

    def generate(context: Any, builder: Builder, signature: Any, args: Any) -> Value:
        pointer = _vector_pointer(context, builder, signature, *args[:2])
        builder.store(args[2], pointer, align=signature.args[0].dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(memory, types.intp, vector), generate


@intrinsic
def splat(typing_context: Any, memory: Any, index: Any) -> Any:
    """The element at a flat index, in every lane."""

    def generate(context: Any, builder: Builder, signature: Any, args: Any) -> Value:
        value = builder.load(builder.gep(args[0], [args[1]]))
        return _broadcast(builder, value, context.get_value_type(signature.return_type))

    return _VECTORS[memory.dtype](memory, types.intp), generate


@intrinsic
def sum_rows(typing_context: Any, memory: Any, index: Any) -> Any:
    """Lane k of the result is the sum of the k-th of as many consecutive vectors as a vector has lanes.

    Neighbours are added pairwise, log2(lanes) times: the order of the additions never changes.
    """

    def generate(context: Any, builder: Builder, signature: Any, args: Any) -> Value:
        lanes = signature.return_type.lanes
        first = _vector_pointer(context, builder, signature, *args)
        rows = [
            builder.load(builder.gep(first, [ir.IntType(64)(k)]), align=signature.args[0].dtype.bitwidth // 8)
            for k in range(lanes)
        ]
        indices = ir.VectorType(ir.IntType(32), lanes)
        even, odd = (
            ir.Constant(indices, [ir.IntType(32)(2 * k + start) for k in range(lanes)]) for start in (0, 1)
        )
        while len(rows) > 1:
            pairs = zip(rows[::2], rows[1::2], strict=True)
            rows = [
                builder.fadd(builder.shuffle_vector(a, b, even), builder.shuffle_vector(a, b, odd))
                for a, b in pairs
            ]
        return rows[0]

    return _VECTORS[memory.dtype](memory, types.intp), generate
