"""Writes tasks/reasoning_gym.jsonl: answers of all kinds to problems of reasoning_gym, with the scores that its own code gives.

    python3 -m venv venv && venv/bin/pip install reasoning_gym==0.1.25
    venv/bin/python reasoning_gym.py > tasks/reasoning_gym.jsonl

With `--data FOLDER` the problems are those of the files TASK.jsonl in the folder (fields `question`, `answer`, `metadata`), all of them;
with `--items N` there are N problems of each task, by default 8. The first line has the version of the package. Each other line is a
problem with what its scorer reads, and a list of [kind of answer, answer, score]. A score of null means that the package raised an
exception.
"""

import argparse
import decimal
import importlib.metadata
import json
import pathlib
import random
import sys

# This folder: the file has the package's name.
del sys.path[0]
import reasoning_gym  # noqa: E402

# The tasks, with what their scorers read of the metadata.
TASKS = {
    "chain_sum": [],
    "basic_arithmetic": [],
    "simple_equations": [],
    "countdown": ["numbers", "target"],
    "base_conversion": [],
    "prime_factorization": [],
    "fraction_simplification": ["numerator", "denominator", "simplified_numerator", "simplified_denominator"],
    "gcd": [],
    "lcm": [],
    "number_sorting": ["direction"],
    "word_sorting": ["sorted_words"],
    "letter_counting": [],
    "spell_backward": [],
    "mini_sudoku": ["solution"],
    "shortest_path": ["matrix"],
    "propositional_logic": ["premises", "variables"],
    "knights_knaves": [],
    "decimal_arithmetic": ["difficulty"],
    "gsm_symbolic": [],
    "polynomial_equations": [],
}


def general(gold, other):
    """Answers that can be given to any problem."""
    yield "none", None
    yield "empty", ""
    yield "blank", " \n"
    yield "right", gold
    yield "of another problem", other
    yield "words", "I do not know"
    yield "number", "7"
    yield "text before", "The answer is " + gold
    yield "text after", gold + " is the answer"
    yield "spaces around", "  " + gold + "\n"
    yield "twice", gold + " " + gold
    yield "first half", gold[: len(gold) // 2]
    yield "upper case", gold.upper()
    yield "punctuation", gold + "."
    yield "dollars", "$" + gold + "$"
    yield "full width", "\uff11\uff12"


def number(gold, item, rng):
    yield "sign", "+" + gold
    yield "zeros", "00" + gold
    yield "decimals", gold + ".00"
    yield "decimal point", gold + "."
    yield "exponent", gold + "e0"
    yield "underscore", gold[:1] + "_" + gold[1:]
    yield "comma", gold[:1] + "," + gold[1:]
    yield "negative", "-" + gold
    yield "off by one", str(int(gold) + 1) if gold.lstrip("-").isdigit() else gold + "1"
    yield "infinity", "inf"
    yield "not a number", "NaN"
    yield "digit more", gold + "0"


def countdown(gold, item, rng):
    numbers, target = item["metadata"]["numbers"], item["metadata"]["target"]
    listed = [str(n) for n in numbers]
    yield "in parentheses", "(" + gold + ")"
    yield "no spaces", gold.replace(" ", "")
    yield "equation", f"{gold} = {target}"
    yield "target", str(target)
    yield "sum", " + ".join(listed)
    yield "product", "*".join(listed)
    yield "number left out", " + ".join(listed[1:])
    yield "number twice", gold + " + " + listed[0] + " - " + listed[0]
    yield "another number", gold + " + 0"
    yield "double minus", gold + " - -" + listed[0]
    yield "division by zero", gold + " / 0"
    yield "open parenthesis", "(" + gold
    yield "operator left over", gold + " +"
    yield "power", "**".join(listed[:2])
    yield "plus sign", "+" + gold
    yield "decimals", gold.replace(listed[0], listed[0] + ".0", 1)
    yield "times sign", gold.replace("*", "×") if "*" in gold else listed[0] + "×" + listed[1]
    yield "name", "x + " + gold


def prime_factorization(gold, item, rng):
    factors = gold.split(" × ")
    rng.shuffle(factors)
    yield "another order", " × ".join(factors)
    yield "no spaces", gold.replace(" ", "")
    yield "not factorised", str(eval("*".join(factors)))
    yield "times one", gold + " × 1"
    yield "negative", " × ".join(["-1", "-1"] + factors)
    yield "factor left out", " × ".join(factors[1:])
    yield "factor twice", gold + " × " + factors[0]
    yield "sign left over", gold + " ×"
    yield "plus signs", " × ".join("+" + f for f in factors)
    yield "underscores", "1_0 × 1"
    yield "asterisks", " * ".join(factors + ["1"])
    yield "letter x", " x ".join(factors + ["1"])
    yield "zero", "0 × 9"
    yield "large", " × ".join(["9" * 30] * 4)


def fraction_simplification(gold, item, rng):
    m = item["metadata"]
    n, d, a, b = m["simplified_numerator"], m["simplified_denominator"], m["numerator"], m["denominator"]
    yield "plain", f"{n}/{d}"
    yield "spaces", f" {n} / {d} "
    yield "frac", f"\\frac{{{n}}}{{{d}}}"
    yield "dfrac", f"$\\dfrac {{ {n} }} {{ {d} }}$"
    yield "frac with more", f"\\frac{{{n}}}{{{d}}} as asked"
    yield "frac in capitals", f"\\FRAC{{{n}}}{{{d}}}"
    yield "frac of a letter", f"\\frac{{{n}}}{{x}}"
    yield "unchanged", f"{a}/{b}"
    yield "numerator unchanged", f"{a}/{d}"
    yield "denominator unchanged", f"{n}/{b}"
    yield "upside down", f"{d}/{n}"
    yield "partly reduced", f"{2 * n}/{2 * d}"
    yield "negative", f"-{n}/{d}"
    yield "negative twice", f"-{n}/-{d}"
    yield "no denominator", f"{n}/"
    yield "three parts", f"{n}/{d}/1"
    yield "decimal", str(n / d)
    yield "leading zeros", f"0{n}/00{d}"


def number_sorting(gold, item, rng):
    numbers = [float(x) for x in eval(gold)]
    texts = eval(gold)
    yield "json texts", json.dumps(texts)
    yield "json numbers", json.dumps(numbers)
    yield "more decimals", json.dumps([x + "0" if "." in x else x + ".0" for x in texts])
    yield "other direction", json.dumps(texts[::-1])
    yield "one less", json.dumps(texts[1:])
    yield "one more", json.dumps(texts + texts[-1:])
    yield "two exchanged", json.dumps(texts[1:2] + texts[:1] + texts[2:])
    yield "all equal", json.dumps([numbers[0]] * len(numbers))
    yield "off by 0.9", json.dumps([round(x + 0.9, 4) for x in numbers])
    yield "off by 2", json.dumps([round(x + 2, 4) for x in numbers])
    yield "NaN", "[" + ", ".join(["NaN"] * len(numbers)) + "]"
    yield "NaN as texts", json.dumps(["nan"] * len(numbers))
    yield "no brackets", ", ".join(texts)
    yield "an object", json.dumps({"a": numbers})
    yield "nested", json.dumps([numbers])
    yield "spaces in texts", json.dumps([" " + x + " " for x in texts])
    yield "unquoted", "[" + ", ".join(texts) + "]"
    yield "words in the list", json.dumps(["a"] * len(texts))
    yield "null in the list", json.dumps([None] * len(texts))


def word_sorting(gold, item, rng):
    words = item["metadata"]["sorted_words"]
    shuffled = words[:]
    rng.shuffle(shuffled)
    yield "no spaces", ",".join(words)
    yield "many spaces", "  ,   ".join(words)
    yield "lines", ",\n".join(words)
    yield "other direction", ", ".join(words[::-1])
    yield "shuffled", ", ".join(shuffled)
    yield "two exchanged", ", ".join(words[1:2] + words[:1] + words[2:])
    yield "first word", words[0]
    yield "last left out", ", ".join(words[:-1])
    yield "first left out", ", ".join(words[1:])
    yield "one more first", ", ".join(["aaa"] + words)
    yield "appended word", ", ".join(words + ["zzz"])
    yield "comma left over", gold + ","
    yield "brackets", "[" + gold + "]"
    yield "blanks only", " ".join(words)


def spell_backward(gold, item, rng):
    yield "forward", gold[::-1]
    yield "first letter wrong", "0" + gold[1:]
    yield "last letter wrong", gold[:-1] + "0"
    yield "last letter left out", gold[:-1]
    yield "first letter left out", gold[1:]
    yield "mixed case", "".join(c.upper() if i % 2 else c for i, c in enumerate(gold))
    yield "spaces between", " ".join(gold)
    yield "appended letter", gold + "x"
    yield "appended word", gold + " indeed"
    yield "other word of the length", "z" * len(gold)


def mini_sudoku(gold, item, rng):
    lines = gold.split("\n")
    yield "spaces at line ends", "\n".join(line + "  " for line in lines)
    yield "no spaces", gold.replace(" ", "")
    yield "commas", gold.replace(" ", ", ")
    yield "bars", "\n".join("| " + line.replace(" ", " | ") + " |" for line in lines)
    yield "blank lines", "\n\n".join(lines)
    yield "heading", "Solution:\n" + gold
    yield "one cell wrong", ("4" if gold[0] != "4" else "3") + gold[1:]
    yield "two rows", "\n".join(lines[:2])
    yield "rows exchanged", "\n".join([lines[1], lines[0]] + lines[2:])
    yield "row too long", gold + " 1"
    yield "five rows", gold + "\n1 2 3 4"
    yield "one line", gold.replace("\n", " ")
    yield "zeros", "\n".join(["0 0 0 0"] * 4)
    yield "all ones", "\n".join(["1 1 1 1"] * 4)
    yield "tabs", gold.replace(" ", "\t")
    yield "carriage returns", gold.replace("\n", "\r\n")


def shortest_path(gold, item, rng):
    steps = gold.split()
    opposite = {"up": "down", "down": "up", "left": "right", "right": "left"}
    detour = steps + ([opposite[steps[-1]], steps[-1]] if steps[-1] in opposite else ["up"])
    yield "longer", " ".join(detour)
    yield "one step less", " ".join(steps[:-1])
    yield "one step more", gold + " " + steps[-1]
    yield "infeasible", "infeasible"
    yield "commas", gold.replace(" ", ", ")
    yield "lines", gold.replace(" ", "\n")
    yield "arrows", gold.replace(" ", " -> ")
    yield "reversed", " ".join(steps[::-1])
    yield "unknown step", gold + " forward"
    yield "out of the grid", " ".join(["up"] * 20)
    yield "into a corner", " ".join(["right", "left"] * 20)


def propositional_logic(gold, item, rng):
    m = item["metadata"]
    variables, premises = m["variables"], m["premises"]
    p, q = variables[0], variables[-1]
    conclusion = m["example_answer"]
    yield "example", conclusion
    yield "example in parentheses", "(" + conclusion + ")"
    yield "example negated", "¬(" + conclusion + ")"
    yield "example or more", f"({conclusion}) ∨ {q}"
    yield "double negation", "¬¬(" + conclusion + ")"
    yield "premise", premises[0]
    yield "last premise", premises[-1]
    yield "all premises", " ∧ ".join(f"({x})" for x in premises)
    yield "variable", p
    yield "negated variable", "¬" + q
    yield "tautology", f"{p} ∨ ¬{p}"
    yield "tautology of two", f"{p} → ({q} → {p})"
    yield "contradiction", f"{p} ∧ ¬{p}"
    yield "and", f"{p} ∧ {q}"
    yield "or", f"{p} ∨ {q}"
    yield "implies", f"{p} → {q}"
    yield "implies from the left", f"{p} → {q} → {p}"
    yield "iff", f"{p} ↔ ¬{q}"
    yield "precedence", f"¬{p} ∧ {q} ∨ {p} ↔ {q} → {p}"
    yield "unknown variable", "Z ∨ " + p
    yield "lower case", p.lower()
    yield "lower case formula", f"{p.lower()} ∨ ¬{p.lower()}"
    yield "operand missing", p + " ∨"
    yield "negation of nothing", "¬"
    yield "parenthesis missing", "(" + p + " ∨ " + q
    yield "empty parentheses", "()"
    yield "other symbols", f"{p} & {q}"
    yield "many variables", " ∧ ".join("abcdefghijklmn")


def knights_knaves(gold, item, rng):
    terms = item["metadata"]["knight_knave_terms"]
    knight, knave = terms["knight"], terms["knave"]
    swapped = gold.replace(knight, "#").replace(knave, knight).replace("#", knave)
    parts = gold.rstrip(".").replace(", and ", ", ").split(", ")
    one = [parts[0].replace(knight, "#").replace(knave, knight).replace("#", knave)] + parts[1:]
    yield "commas", ", ".join(parts)
    yield "lines", "\n".join(parts)
    yield "another order", ", ".join(parts[::-1])
    yield "all wrong", swapped
    yield "one wrong", ", ".join(one)
    yield "one left out", parts[0]
    yield "one twice", ", ".join(parts + parts[:1])
    yield "one more", gold + " Zed is a " + knight
    yield "contradiction", ", ".join(parts + one[:1])
    yield "lower case", gold.lower()
    yield "colons", ", ".join(part.replace(" is a", ":") for part in parts)
    yield "no names", f"{knight}, {knave}"
    yield "names only", " and ".join(part.split()[0] for part in parts)
    yield "parentheses", ", ".join(f"({part})" for part in parts)
    yield "both roles", ", ".join(f"{part.split()[0]} is a {knight}/{knave}" for part in parts)


def decimal_arithmetic(gold, item, rng):
    value = float(gold)
    yield from number(gold, item, rng)
    with decimal.localcontext(prec=50):
        yield "off by one place", str(decimal.Decimal(gold) + decimal.Decimal("0.001"))
    yield "off by half a place", f"{value + 0.0005:.6f}"
    yield "off by two places", f"{value - 0.002:.6f}"
    yield "rounded", f"{value:.3f}"
    yield "rounded to tenths", f"{value:.1f}"
    yield "many digits", gold + "3" * 40
    yield "large exponent", "1e99"
    yield "small", "1e-99"


def gsm_symbolic(gold, item, rng):
    yield from number(gold, item, rng)
    yield "unit", gold + " apples"
    yield "unit without space", gold + "kg"
    yield "decimals and unit", gold + ".0 kg"
    yield "two numbers", "3 or " + gold
    yield "in a sentence", "So there are " + gold + "."
    yield "difference", gold + "-1"
    yield "after a letter", "x" + gold
    yield "fraction", gold + "/1"


def polynomial_equations(gold, item, rng):
    parts = [part for part in gold.split(", ") if part]
    values = [float(part) for part in parts]
    yield "another order", ", ".join(parts[::-1])
    yield "no spaces", ",".join(parts)
    yield "one left out", ", ".join(parts[1:])
    yield "one more", ", ".join(parts + ["1.5"])
    yield "three more", ", ".join(parts + ["1.5", "2.5", "99"])
    yield "one twice", ", ".join(parts + parts[:1])
    yield "off by 0.01", ", ".join(str(v + 0.01) for v in values)
    yield "off by 0.1", ", ".join(str(v - 0.1) for v in values)
    yield "off by 1", ", ".join(str(v + 1) for v in values)
    yield "semicolons", "; ".join(parts)
    yield "with a word", ", ".join(parts + ["x"])
    yield "equations", ", ".join("x = " + part for part in parts)
    yield "infinity", ", ".join(parts + ["inf"])
    yield "not a number", ", ".join(parts + ["nan"])
    yield "exponents", ", ".join(part + "e0" for part in parts)
    yield "commas only", ",,"


SPECIAL = {
    "decimal_arithmetic": decimal_arithmetic,
    "gsm_symbolic": gsm_symbolic,
    "polynomial_equations": polynomial_equations,
    "countdown": countdown,
    "prime_factorization": prime_factorization,
    "fraction_simplification": fraction_simplification,
    "number_sorting": number_sorting,
    "word_sorting": word_sorting,
    "spell_backward": spell_backward,
    "mini_sudoku": mini_sudoku,
    "shortest_path": shortest_path,
    "propositional_logic": propositional_logic,
    "knights_knaves": knights_knaves,
}


def score(dataset, given, item):
    try:
        return float(dataset.score_answer(given, item))
    except Exception:
        return None


def items(task, folder, count):
    """The scorer and the problems."""
    sizes = {"knights_knaves": {"n_people": 3}}
    dataset = reasoning_gym.create_dataset(task, seed=11, size=max(count, 1), **sizes.get(task, {}))
    if folder is None:
        return dataset, [dataset[i] for i in range(count)]
    path = folder / f"{task}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return dataset, [json.loads(line) for line in lines]


def reference(item):
    return item["metadata"]["example_answer"] if item["answer"] is None else item["answer"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--items", type=int, default=8)
    options = parser.parse_args()
    print(json.dumps({"package": "reasoning_gym", "version": importlib.metadata.version("reasoning_gym")}))
    for task, keys in TASKS.items():
        dataset, entries = items(task, options.data, options.items)
        rng = random.Random(5)
        for at, item in enumerate(entries):
            gold = reference(item)
            other = reference(entries[(at + 1) % len(entries)])
            answers = [*general(gold, other), *SPECIAL.get(task, number)(gold, item, rng)]
            cases = [[kind, given, score(dataset, given, item)] for kind, given in answers]
            metadata = {key: item["metadata"][key] for key in keys}
            line = {"task": task, "answer": gold, "metadata": metadata, "cases": cases}
            print(json.dumps(line, ensure_ascii=False))


if __name__ == "__main__":
    main()
