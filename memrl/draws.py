"""Counter-based random numbers: functions of (seed, stream, count) and of nothing else.

What a row draws does not depend on how many rows there are, on the device, or on the order in which
things happen; nothing has to be saved to continue.
"""

from __future__ import annotations

from torch import Tensor

_WORD = 2**64
_GAMMA, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def random_words(seed: int | Tensor, stream: Tensor, count: Tensor) -> Tensor:
    """Draw one number for each of b rows.

    Args:
        seed: any integer, or () int64 on the device, where it may change without compiling again.
        stream: (b,) int64, whose number it is. count: (b,) int64, how many it
            has drawn before.

    Returns:
        (b,) int64, uniform in 0..2^53 - 1.
    """
    if isinstance(seed, int):
        start: int | Tensor = _signed(seed * _GAMMA + _MIX_1)
    else:
        start = seed * _signed(_GAMMA) + _signed(_MIX_1)
    word = _mixed(stream * _signed(_GAMMA) + start)
    word = _mixed(word + (count + 1) * _signed(_GAMMA))
    return _shifted(word, 11)


def random_uniforms(seed: int | Tensor, stream: Tensor, count: Tensor) -> Tensor:
    """The same as (b,) float64 in [0, 1)."""
    return random_words(seed, stream, count).double() * 2.0**-53


def _signed(word: int) -> int:
    """The int64 with the bits of an unsigned word."""
    word %= _WORD
    return word - _WORD if word >= _WORD // 2 else word


def _shifted(word: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; torch's own keeps the sign."""
    return (word >> bits) & ((1 << (64 - bits)) - 1)


def _mixed(word: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014); int64 arithmetic wraps."""
    word = (word ^ _shifted(word, 30)) * _signed(_MIX_1)
    word = (word ^ _shifted(word, 27)) * _signed(_MIX_2)
    return word ^ _shifted(word, 31)
