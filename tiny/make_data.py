"""Makes tiny/library.jsonl and tiny/statements.jsonl: propositional theorems that are proved backwards, goal by goal.

    python tiny/make_data.py                    # the committed files (seed 0)
    python tiny/make_data.py --given 3000 --out /tmp/big --seed 1
    python tiny/make_data.py --describe out     # a finished run: which statements were proved, what conjectures look like

Hypotheses have no names; a proof quotes them, so that each line can be judged by what it says:

    theorem t (a b c d e f g h i j k l m n o p : Prop) (_ : a ∧ b) (_ : b → c) (_ : d → c) (_ : e ↔ c) : e := by
      apply Iff.mpr ‹e ↔ c›
      apply ‹b → c›
      exact And.right ‹a ∧ b›

A line turns the goal into the next one (`moves`), so that a proof is a path from the goal to a known fact. Its number
of lines is the difficulty; hypotheses that lead elsewhere (here d → c) make it harder. Propositions are named in the
order in which they come, so that theorems which differ only in names are the same text.

library.jsonl    the lemmas under their core-Lean names, then theorems of 2 to 5 lines with proofs. Each "file" is a few
                 theorems that go on one from the other: from them stage 1 learns to write a harder theorem than the
                 one it sees. A quarter of the files begin with many distractors, so that all names occur.
statements.jsonl the given statements, as many of each number of lines, no proofs. Two fifths are near: a little longer
                 than the library's theorems, or with more distractors. The others are far: what lies between is for
                 conjectures to find.
"""
import argparse
import json
import os
import random
import re
import sys
from collections import Counter

ATOMS = "abcdefghijklmnop"
BINDER = f"({' '.join(ATOMS)} : Prop)"  # the same in every statement, so that an edit stays local
LEMMAS = """
Iff.mp    | {a b : Prop} (_ : a ↔ b) (_ : a) : b | exact ‹a ↔ b›.1 ‹a›
Iff.mpr   | {a b : Prop} (_ : a ↔ b) (_ : b) : a | exact ‹a ↔ b›.2 ‹b›
And.left  | {a b : Prop} (_ : a ∧ b) : a         | exact ‹a ∧ b›.1
And.right | {a b : Prop} (_ : a ∧ b) : b         | exact ‹a ∧ b›.2
"""


# A formula is an atom such as "p" or a tuple (operator, atom, atom); a theorem is (hypotheses, goal, lines of its proof).

def show(f):
    return f if isinstance(f, str) else f"{f[1]} {f[0]} {f[2]}"


def moves(goal, hyps):
    """Yields (line of a proof, the goal that it leaves or None)."""
    for h in hyps:
        if h == goal:
            yield f"exact ‹{h}›", None
        if isinstance(h, tuple):
            op, a, b = h
            for operator, conclusion, line, left in (
                    ("∧", a, "exact And.left", None), ("∧", b, "exact And.right", None),
                    ("→", b, "apply", a), ("↔", b, "apply Iff.mp", a), ("↔", a, "apply Iff.mpr", b)):
                if (op, goal) == (operator, conclusion):
                    yield f"{line} ‹{show(h)}›", left


def prove(hyps, goal):
    """Lines of a shortest proof, or None."""
    paths, seen = [([], goal)], {goal}
    for lines, g in paths:  # breadth first
        for line, left in moves(g, hyps):
            if left is None:
                return [*lines, line]
            if left not in seen:
                seen.add(left)
                paths.append(([*lines, line], left))
    return None


def theorem(rng, n, distractors, seen, start=None):
    """A new theorem of n lines that goes on from `start` (a theorem; default: a fact alone).

    Raises ValueError where a thousand tries find none.
    """
    for tries in range(1000):
        hyps, goal, lines = start or fact(rng)
        made = extend(rng, hyps, goal, n - len(lines), distractors + tries // 50)  # more, where few are new
        lines = made and prove(*made)
        if lines and len(lines) == n and made not in seen:
            seen.add(made)
            return *made, lines
    raise ValueError(f"no new theorem of {n} lines in a thousand tries: fewer lines, or fewer theorems")


def fact(rng):
    hyp = rng.choice(["a", "a", ("∧", "a", "b")])
    goal = rng.choice([c for c in show(hyp) if c in ATOMS])
    return (hyp,), goal, prove((hyp,), goal)


def extend(rng, hyps, goal, links, distractors):
    """(hypotheses, goal) with links to a new goal, and hypotheses that lead elsewhere between them.

    None if the names run out.
    """
    hyps, used = list(hyps), names(hyps)
    if used + links + distractors > len(ATOMS):
        return None
    for kind in rng.sample(["link"] * links + ["distractor"] * distractors, links + distractors):
        new, old = ATOMS[used], rng.choice(ATOMS[:used])
        used += 1
        if kind == "link":
            hyps.append(rng.choice([("→", goal, new), ("→", goal, new), ("↔", goal, new), ("↔", new, goal)]))
            goal = new
        else:  # mostly a way from an old goal to a new atom that nothing proves
            hyps.append(("→", new, old) if rng.random() < 0.65 else ("→", old, new))
    return tuple(hyps), goal


def names(hyps):
    """How many atoms they use: these come in order."""
    return 1 + max(ATOMS.index(c) for h in hyps for c in show(h) if c in ATOMS)


# ---- the files ----

def row(name, hyps, goal, lines, **more):
    binders = "".join(f" (_ : {show(h)})" for h in hyps)
    return {"name": name, "statement": f"theorem t {BINDER}{binders} : {show(goal)} := by", **more,
            "proof": "".join(f"\n  {line}" for line in lines)}


def make_library(rng, args, seen):
    for line in LEMMAS.strip().splitlines():
        name, statement, proof = (part.strip() for part in line.split("|"))
        yield {"name": name, "file": "lemmas", "statement": f"theorem {name} {statement} := by", "proof": f"\n  {proof}"}
    for number in range(args.files):
        for made in ladder(rng, args.library_lines, seen):
            yield row(f"file{number:04}_{len(made[2])}", *made, file=f"file{number:04}")


def ladder(rng, most, seen):
    """Theorems of one file: each goes on from the one before by 1 to 3 lines, up to `most`."""
    n, distractors = rng.choice([2, 2, 3]), rng.randint(0, 2) + (rng.randint(2, 8) if rng.random() < 0.25 else 0)
    made = theorem(rng, n, distractors, seen)
    yield made
    while len(made[2]) < most and rng.random() < 0.65:
        n = min(len(made[2]) + rng.randint(1, 3), most)
        room = len(ATOMS) - names(made[0]) - (most - len(made[2]))  # names that no link will need
        made = theorem(rng, n, min(rng.randint(0, 1), max(0, room)), seen, made)
        yield made


def make_given(rng, args, seen):
    """Given statements with their proofs, as many of each number of lines, the last ones held out."""
    for i in range(args.given + args.heldout):
        n = (args.near + args.far)[i % len(args.near + args.far)]
        distractors = rng.randint(0, 4 if n in args.near else 1)
        yield row(f"given{n:02}_{i:04}", *theorem(rng, n, distractors, seen),
                  split="train" if i < args.given else "heldout")


def write(path, rows):
    with open(path + ".tmp", "w", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    os.replace(path + ".tmp", path)


def verify(rows, lean):
    """Stops unless Lean accepts every row's proof. A lemma is checked under the name t: its own name is taken."""
    from lean_check import check
    attempts = [{"statement": re.sub(r"^theorem \S+", "theorem t", r["statement"]), "proof": r["proof"]} for r in rows]
    for r, result in zip(rows, check(attempts, header="", lean=lean), strict=True):
        if result["verdict"] != "proved":
            sys.exit(f"{r['name']}: Lean says {result['verdict']}: {result.get('message')}\n{r['statement']}{r['proof']}")


# ---- what a run did with them ----

def parse(statement):
    """(hypotheses, goal) of a statement whose formulas have at most two atoms; None for any other."""
    _, binder, rest = statement.removesuffix(" := by").partition(BINDER)
    hyps, colon, goal = rest.rpartition(" : ")
    formulas = [f.split() for f in [*re.findall(r"\(_ : ([^()]*)\)", hyps), goal]]
    if not binder or not colon or any(len(f) != 1 and (len(f) != 3 or f[1] not in "∧→↔") for f in formulas):
        return None
    *hyps, goal = (f[0] if len(f) == 1 else (f[1], f[0], f[2]) for f in formulas)
    return tuple(hyps), goal


def padded(hyps):
    """Is one of them said twice, or one like j ↔ j?"""
    return len(set(hyps)) < len(hyps) or any(len(set(h)) < len(h) for h in hyps if isinstance(h, tuple))


def describe(run):
    """A row: proved statements by lines; conjectures tried in iterations 1 to 3, and in the last three.

    Of conjectures: those with a proof and its mean lines (by `prove`), characters, shares of padded ones and of copies.
    """
    def read(path):
        with open(os.path.join(run, path), encoding="utf-8") as rows:
            return [json.loads(line) for line in rows]

    metrics = read("metrics.jsonl")
    proved = {a["name"] for m in metrics for a in read(f"iter_{m['iteration']:02}/attempts.jsonl")
              if a["role"] == "given" and a["verdict"] == "proved"}
    by_lines = sorted(Counter(int(name[len("given"):].split("_")[0]) for name in proved).items())
    parts = []
    for some in metrics[1:4], metrics[-3:]:
        tried = [c["statement"] for m in some for c in read(f"iter_{m['iteration']:02}/conjectures.jsonl") if c["tried"]]
        if not tried:  # an arm without conjectures
            parts.append("– | – | – | – | – |")
            continue
        parsed = [theorem for theorem in map(parse, tried) if theorem]
        lines = [len(proof) for proof in (prove(*theorem) for theorem in parsed) if proof]
        characters = sum(map(len, tried)) / len(tried)
        fillers = sum(padded(hyps) for hyps, _ in parsed) / max(1, len(parsed))
        copies = 1 - sum(m["distinct"] for m in some) / sum(m["wellformed"] for m in some)
        parts.append(f"{len(lines)} of {len(tried)} | {sum(lines) / max(1, len(lines)):.1f} | {characters:.0f} | "
                     f"{fillers:.0%} | {copies:.0%} |")
    return (f"| {os.path.basename(os.path.normpath(run))} | " + ", ".join(f"{n}: {c}" for n, c in by_lines) +
            f" | {sum(m['kept'] for m in metrics):,} | {' '.join(parts)}")


def parse_args(argv=None):
    here = os.path.dirname(os.path.abspath(__file__))
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--seed", type=int, default=0, help="random seed")
    p.add_argument("--files", type=int, default=750, help="files of the library")
    p.add_argument("--library_lines", type=int, default=5, help="most lines of a library proof")
    p.add_argument("--given", type=int, default=500, help="given statements to train on")
    p.add_argument("--heldout", type=int, default=100, help="given statements held out")
    p.add_argument("--near", type=int, nargs="+", default=[5, 6], help="lines of proofs in reach of the library")
    p.add_argument("--far", type=int, nargs="+", default=[10, 11, 12], help="lines of proofs out of its reach")
    p.add_argument("--lean", default=f"{sys.executable} {os.path.join(here, 'lean')}", help="Lean command that checks all")
    p.add_argument("--out", default=here, help="folder of the two files")
    p.add_argument("--describe", nargs="+", metavar="RUN", help="describe runs of stp.py on this data and exit")
    return p.parse_args(argv)


def stop(message):
    print(f"make_data.py: {message}", file=sys.stderr)
    sys.exit(2)


def main():
    args = parse_args()
    if args.describe:
        rows = ["| run | proved, by lines | kept |" + " provable | lines | characters | padded | copies |" * 2, "|" + "---|" * 13]
        for run in args.describe:
            try:
                rows.append(describe(run))
            except (OSError, ValueError, KeyError) as e:
                stop(f"--describe {run}: {e}; expected the folder of a run of stp.py on this data")
        print("\n".join(rows))
        return
    rng, seen = random.Random(args.seed), set()
    try:
        library, given = list(make_library(rng, args, seen)), list(make_given(rng, args, seen))
    except ValueError as e:
        stop(e)
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    verify(library + given, args.lean)
    os.makedirs(args.out, exist_ok=True)
    write(os.path.join(args.out, "library.jsonl"), library)
    write(os.path.join(args.out, "statements.jsonl"),
          [{key: r[key] for key in ("name", "statement", "split")} for r in given])
    print(f"{len(library)} library entries, {len(given)} given statements; Lean accepts every proof")


if __name__ == "__main__":
    main()
