"""Times Math-Verify on the pairs of `cargo bench -p rlvr-math`: parses both sides and verifies, one pair after the other.

    pip install math-verify==0.9.0 antlr4-python3-runtime==4.13.2
    python benches/peer_math.py tests/golden/math_cases.jsonl
"""

import json
import statistics
import sys
import time

from math_verify import parse, verify


def delimited(text):
    return text if "$" in text or "\\boxed" in text or "\\(" in text or "\\[" in text else f"${text}$"


def main(path):
    cases = [json.loads(line) for line in open(path, encoding="utf-8")]
    pairs = [(c["gold"], c["answer"]) for c in cases if c.get("answer") is not None and c["class"] != "bomb"]
    parse("$1$")
    times, equal = [], 0
    for gold, answer in pairs:
        start = time.perf_counter()
        try:
            equal += bool(verify(parse(delimited(gold)), parse(delimited(answer))))
        except Exception:
            pass
        times.append(time.perf_counter() - start)
    times.sort()
    mean, median = statistics.mean(times), statistics.median(times)
    print(f"{len(pairs)} pairs, {equal} equal: mean {mean * 1e3:.2f} ms, median {median * 1e3:.2f} ms, max {times[-1] * 1e3:.0f} ms")


if __name__ == "__main__":
    main(sys.argv[1])
