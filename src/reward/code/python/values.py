# Converts plain values to and from JSON, so that two processes can exchange them without trusting
# each other: a decoded value consists of built-in types only, whatever the other side has written.
import collections
import json
import os
import sys
import types

sys.set_int_max_str_digits(0) if hasattr(sys, "set_int_max_str_digits") else None

MOST_ITEMS = 1_000_000
ITERATORS = (types.GeneratorType, map, filter, zip, enumerate, reversed, type(iter([])), type(iter(())), type(iter({})))


def encode(value, other):
    """Converts a value for `json`; `other` converts what is not a plain value."""
    if value is None or value is True or value is False:
        return value
    kind = type(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return {"i": int.__repr__(value)}
    if isinstance(value, float):
        return {"f": float.__repr__(value)}
    if isinstance(value, complex):
        return {"c": [repr(value.real), repr(value.imag)]}
    if isinstance(value, list):
        return [encode(one, other) for one in list.__iter__(value)]
    for tag, types_ in (("t", tuple), ("s", set), ("z", frozenset), ("q", collections.deque)):
        if isinstance(value, types_):
            return {tag: [encode(one, other) for one in types_.__iter__(value)]}
    if isinstance(value, dict):
        return {"d": [[encode(k, other), encode(v, other)] for k, v in dict.items(value)]}
    if isinstance(value, (bytes, bytearray)):
        return {"b": bytes(value).hex()}
    if kind is range:
        return {"r": [str(value.start), str(value.stop), str(value.step)]}
    # By name: importing these modules takes longer than most programs run.
    if (kind.__module__, kind.__name__) == ("decimal", "Decimal"):
        return {"D": str(value)}
    if (kind.__module__, kind.__name__) == ("fractions", "Fraction"):
        return {"F": [str(value.numerator), str(value.denominator)]}
    if isinstance(value, ITERATORS) or kind in (type({}.keys()), type({}.values()), type({}.items())):
        found = []
        for one in value:
            if len(found) >= MOST_ITEMS:
                raise ValueError("too many items")
            found.append(encode(one, other))
        return {"n": found}
    if kind.__module__ == "numpy" and hasattr(value, "tolist"):
        return encode(value.tolist(), other)
    return other(value)


def decode(text, other):
    """Converts the output of `encode` back; `other` converts tags that are not plain values."""
    if isinstance(text, list):
        return [decode(one, other) for one in text]
    if not isinstance(text, dict):
        return text
    if len(text) != 1:
        raise ValueError("not a value")
    (tag, inside), = text.items()
    if tag == "i":
        return int(inside)
    if tag == "f":
        return float(inside)
    if tag == "c":
        return complex(float(inside[0]), float(inside[1]))
    if tag == "b":
        return bytes.fromhex(inside)
    if tag == "r":
        return range(*map(int, inside))
    if tag == "D":
        import decimal
        return decimal.Decimal(inside)
    if tag == "F":
        import fractions
        return fractions.Fraction(int(inside[0]), int(inside[1]))
    if tag == "d":
        return {decode(k, other): decode(v, other) for k, v in inside}
    makers = {"t": tuple, "s": set, "z": frozenset, "q": collections.deque, "n": iter}
    if tag in makers:
        return makers[tag]([decode(one, other) for one in inside])
    return other(tag, inside)


def write_line(file, value):
    file.write(json.dumps(value).encode() + b"\n")
    file.flush()
