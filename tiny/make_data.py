"""Makes tiny/library.jsonl and tiny/statements.jsonl: propositional theorems that are proved backwards, goal by goal.

    python tiny/make_data.py                    # the committed files (seed 0)
    python tiny/make_data.py --given 3000 --out /tmp/big --seed 1

Hypotheses have no names; a proof quotes them, so that each line can be judged by what it says:

    theorem t (p q r s u v w x y z : Prop) (_ : ¬q → z) (_ : p ∨ ¬q) (_ : u → z) (_ : ¬p) : r ∨ z := by
      apply Or.inr
      apply ‹¬q → z›
      apply Or.resolve_left ‹p ∨ ¬q›
      exact ‹¬p›

A line turns the goal into the next one (`moves`), so that a proof is a path from the goal to a known fact. Its number of
lines is the difficulty; hypotheses that lead elsewhere (here u → z) make it harder. `extend` makes a theorem harder by a
new goal from which one move leads to the old one, `deepen` by a longer way to a fact that closed a goal.

library.jsonl    the lemmas under their core-Lean names, then chains of theorems: each "file" is one chain, and each
                 theorem of it extends the one before. They have proofs.
statements.jsonl the given statements, made in the same way, longer; no proofs.

Every proof, also that of each given statement, has been accepted by Lean when the files are written.
"""
import argparse
import json
import os
import random
import re
import sys

ATOMS = "pqrsuvwxyz"
BINDER = f"({' '.join(ATOMS)} : Prop)"  # the same in every statement, so that an edit stays local
LEMMAS = """
mt               | {a b : Prop} (_ : a → b) (_ : ¬b) : ¬a | intro _; exact absurd (‹a → b› ‹a›) ‹¬b›
Or.resolve_left  | {a b : Prop} (_ : a ∨ b) (_ : ¬a) : b  | exact Or.elim ‹a ∨ b› (fun _ => absurd ‹a› ‹¬a›) id
Or.resolve_right | {a b : Prop} (_ : a ∨ b) (_ : ¬b) : a  | exact Or.elim ‹a ∨ b› id (fun _ => absurd ‹b› ‹¬b›)
And.left         | {a b : Prop} (_ : a ∧ b) : a           | exact ‹a ∧ b›.1
And.right        | {a b : Prop} (_ : a ∧ b) : b           | exact ‹a ∧ b›.2
"""


# A literal is a text such as "p" or "¬p"; a formula is a literal or a tuple (operator, literal, literal).

def show(f):
    return f if isinstance(f, str) else f"{f[1]} {f[0]} {f[2]}"


def atoms(formulas):
    return set(re.findall(r"\w", "".join(map(show, formulas))))


# ---- the prover ----

def moves(goal, hyps):
    """Yields (line of the proof, goals that it leaves)."""
    if goal[0] == "∧":
        yield "apply And.intro", [goal[1], goal[2]]
    if goal[0] == "∨":
        yield "apply Or.inl", [goal[1]]
        yield "apply Or.inr", [goal[2]]
    for h in hyps:
        if h == goal:
            yield f"exact ‹{h}›", []
        if isinstance(h, str):
            continue
        op, a, b = h
        for operator, conclusion, line, goals in (
                ("∧", a, "exact And.left", []), ("∧", b, "exact And.right", []),
                ("→", b, "apply", [a]), ("→", f"¬{a}", "apply mt", [f"¬{b}"]),
                ("∨", b, "apply Or.resolve_left", [f"¬{a}"]), ("∨", a, "apply Or.resolve_right", [f"¬{b}"])):
            if (op, goal) == (operator, conclusion):
                yield f"{line} ‹{show(h)}›", goals


def prove(hyps, goal):
    """Lines of a shortest proof, or None."""
    if goal[0] == "∧":  # the two goals of And.intro are proved one after the other
        parts = [prove(hyps, g) for g in goal[1:]]
        return ["apply And.intro", *parts[0], *parts[1]] if all(parts) else None
    paths, seen = [([], goal)], {goal}
    for lines, g in paths:  # breadth first
        for line, goals in moves(g, hyps):
            if not goals:
                return [*lines, line]
            if goals[0] not in seen:
                seen.add(goals[0])
                paths.append(([*lines, line], goals[0]))
    return None


# ---- edits ----

def literal(rng, used):
    """A literal, mostly of an atom that is not used yet."""
    free = sorted(set(ATOMS) - used)
    return "¬" * (rng.random() < 0.35) + rng.choice(free if free and rng.random() < 0.9 else ATOMS)


def link(rng, goal, subgoal):
    """A hypothesis by which one move turns the goal into the subgoal."""
    ways = [("→", subgoal, goal)] * 3
    if subgoal[0] == "¬":
        ways += [("∨", subgoal[1:], goal), ("∨", goal, subgoal[1:])] * 2
        if goal[0] == "¬":
            ways += [("→", goal[1:], subgoal[1:])] * 3
    return rng.choice(ways)


def extend(rng, hyps, goal):
    """The theorem with a harder goal, from which one more move leads to the old one, a literal: (hyps, goal)."""
    kind, new = rng.random(), literal(rng, atoms((*hyps, goal)))
    if kind < 0.08:
        return hyps, ("∨", *rng.sample([goal, new], 2))
    if kind < 0.14:
        return (*hyps, new), ("∧", *rng.sample([goal, new], 2))
    return (*hyps, link(rng, new, goal)), new


def deepen(rng, hyps, goal, lines):
    """The theorem with one more move before one that closed a goal, hypotheses shuffled: (hyps, goal)."""
    line = rng.choice([line for line in lines if line.startswith("exact")])
    fact = next(h for h in hyps if line.endswith(f"‹{show(h)}›"))
    closed, new = fact if isinstance(fact, str) else fact[1] if "left" in line else fact[2], literal(rng, atoms((*hyps, goal)))
    hyps = [link(rng, closed, new) if h == fact else h for h in hyps] + [new]
    return tuple(rng.sample(hyps, len(hyps))), goal


def distract(rng, hyps, goal, n):
    """The theorem with n more hypotheses, most of them moves from one of its literals to nowhere."""
    for _ in range(n):
        new = literal(rng, atoms((*hyps, goal)))
        at = rng.choice([f for h in (*hyps, goal) for f in ((h,) if isinstance(h, str) else h[1:])])
        hyps = (*hyps, link(rng, at, new) if rng.random() < 0.8 else new)
    return hyps, goal


def sensible(hyps, goal, most):
    """At most `most` hypotheses, all different, no literal with its negation or twice in a formula, none thrice negated."""
    formulas = (*hyps, goal)
    return (goal not in hyps and len(set(hyps)) == len(hyps) <= most and not any("¬" + show(h) in hyps for h in hyps)
            and not any("¬¬¬" in show(f) for f in formulas)
            and all(isinstance(f, str) or f[1].strip("¬") != f[2].strip("¬") for f in formulas))


def chain(rng, n_lines, distractors, most):
    """Theorems (hyps, goal, lines of the proof): a first one of up to half the lines, then each extends the one before.

    Ends early at a goal with ∨ or ∧, or where no harder one is found in 100 tries.
    """
    fact = literal(rng, set())
    other = literal(rng, atoms([fact]))
    hyps = (fact,) if rng.random() < 0.5 else (("∧", *rng.sample([fact, other], 2)),)
    hyps, goal = distract(rng, hyps, fact, rng.randint(0, distractors))
    lines, tries, first = prove(hyps, goal), 0, rng.randint(1, (n_lines + 1) // 2)
    while tries < 100:
        if len(lines) >= first and not tries:
            yield hyps, goal, lines
        if len(lines) >= n_lines or isinstance(goal, tuple):
            return
        tries += 1
        edited = deepen(rng, hyps, goal, lines) if len(lines) < first else extend(rng, hyps, goal)
        edited = distract(rng, *edited, rng.random() < 0.25)
        longer = prove(*edited) if sensible(*edited, most) else None
        if longer and len(lines) < len(longer) <= len(lines) + 2:
            (hyps, goal), lines, tries = edited, longer, 0


def canonical(hyps, goal):
    """Text equal for theorems that differ only in names of atoms and order of hypotheses (up to rare ties)."""
    names, rest = {}, list(hyps)

    def rename(f, names):
        return "".join(names.setdefault(c, chr(65 + len(names))) if c in ATOMS else c for c in show(f))
    parts = [rename(goal, names)]
    while rest:
        h = min(rest, key=lambda f: rename(f, dict(names)))
        rest.remove(h)
        parts.append(rename(h, names))
    return " | ".join(parts)


# ---- the files ----

def row(name, hyps, goal, lines, **more):
    binders = "".join(f" (_ : {show(h)})" for h in hyps)
    return {"name": name, "statement": f"theorem t {BINDER}{binders} : {show(goal)} := by", **more,
            "proof": "".join(f"\n  {line}" for line in lines)}


def make_library(rng, args, seen):
    for line in LEMMAS.strip().splitlines():
        name, statement, proof = (part.strip() for part in line.split("|"))
        yield {"name": name, "file": "lemmas", "statement": f"theorem {name} {statement} := by",
               "proof": "".join(f"\n  {line.strip()}" for line in proof.split(";"))}
    for number in range(args.chains):
        n = 3
        while n < args.library_lines and rng.random() < 0.6:  # ever fewer theorems of ever more lines
            n += 1
        for hyps, goal, lines in chain(rng, n, args.distractors, args.hyps):
            if canonical(hyps, goal) not in seen and len(lines) <= args.library_lines:
                seen.add(canonical(hyps, goal))
                yield row(f"chain{number:04}_{len(lines)}", hyps, goal, lines, file=f"chain{number:04}")


def make_given(rng, args, seen):
    """Given statements with their proofs, as many of each number of lines, the last ones held out."""
    levels = range(args.min_lines, args.max_lines + 1)
    for i in range(args.given + args.heldout):
        n = levels[i % len(levels)]
        while True:
            *_, (hyps, goal, lines) = [((), "", []), *chain(rng, n, args.distractors, args.hyps + n)]
            if len(lines) == n and canonical(hyps, goal) not in seen:
                break
        seen.add(canonical(hyps, goal))
        yield row(f"given{n:02}_{i:04}", hyps, goal, lines, split="train" if i < args.given else "heldout")


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


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--seed", type=int, default=0, help="random seed")
    p.add_argument("--chains", type=int, default=3000, help="chains (files) of the library")
    p.add_argument("--library_lines", type=int, default=7, help="most lines of a library proof")
    p.add_argument("--given", type=int, default=300, help="given statements to train on")
    p.add_argument("--heldout", type=int, default=100, help="given statements held out")
    p.add_argument("--min_lines", type=int, default=3, help="fewest lines of the proof of a given statement")
    p.add_argument("--max_lines", type=int, default=10, help="most lines of the proof of a given statement")
    p.add_argument("--hyps", type=int, default=9, help="most hypotheses of a library theorem")
    p.add_argument("--distractors", type=int, default=2, help="most hypotheses that a chain starts with beyond need")
    p.add_argument("--lean", default=f"{sys.executable} {os.path.join(here, 'lean')}", help="Lean command that checks all")
    p.add_argument("--out", default=here, help="folder of the two files")
    args = p.parse_args()
    rng, seen = random.Random(args.seed), set()
    library = list(make_library(rng, args, seen))
    given = list(make_given(rng, args, seen))
    sys.path.insert(0, os.path.dirname(here))
    verify(library + given, args.lean)
    write(os.path.join(args.out, "library.jsonl"), library)
    write(os.path.join(args.out, "statements.jsonl"),
          [{key: r[key] for key in ("name", "statement", "split")} for r in given])
    print(f"{len(library)} library entries, {len(given)} given statements; Lean accepts every proof")


if __name__ == "__main__":
    main()
