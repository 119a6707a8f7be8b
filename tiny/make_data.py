"""Makes tiny/library.jsonl and tiny/statements.jsonl: propositional theorems in forward natural deduction.

    python tiny/make_data.py                    # the committed files (seed 0)
    python tiny/make_data.py --given 3000 --out /tmp/big --seed 1

A proof is a list of typed facts, one rule a line, so that every line can be judged on its own:

    theorem t (p q r s u v w x : Prop) (h1 : p → (q ∧ r)) (h2 : p ∨ s) (h3 : ¬s) : r ∨ u := by
      have h4 : p := Or.resolve_right h2 h3
      have h5 : q ∧ r := h1 h4
      have h6 : r := And.right h5
      exact Or.inl h6

One table of rules (RULES) does everything. Read downwards it proves: `prove` closes the hypotheses under the rules,
cheapest facts first, and gives a proof of near-least length; its number of lines is the difficulty. Read upwards it
*edits*: a used hypothesis becomes the premises of a rule that yields it, or the goal becomes the conclusion of a rule
that consumes it. An edited theorem stays provable by construction, and one edit makes its proof about a line longer.

library.jsonl    the lemmas of RULES under their core-Lean names, then chains of theorems: each "file" is one chain, and
                 each theorem of it is one edit harder than the one before. They have proofs.
statements.jsonl the given statements, the same edits applied many more times; no proofs.

Every proof, also that of each given statement, has been accepted by Lean when the files are written.
"""
import argparse
import heapq
import itertools
import json
import os
import random
import re
import sys

ATOMS = "pqrsuvwx"
BINDER = f"({' '.join(ATOMS)} : Prop)"  # the same in every statement, so that an edit stays local

# name | premises => conclusion | proof of the lemma (only the entries of the library's lemma dictionary have one).
# No name: function application. And.left ... Iff.mpr are constructors and projections, not lemmas.
RULES_TEXT = """
              | a → b ; a => b                    |
And.left      | a ∧ b => a                        |
And.right     | a ∧ b => b                        |
And.intro     | a ; b => a ∧ b                    |
Or.inl        | a => a ∨ b                        |
Or.inr        | b => a ∨ b                        |
Iff.mp        | a ↔ b ; a => b                    |
Iff.mpr       | a ↔ b ; b => a                    |
And.symm      | a ∧ b => b ∧ a                    | exact And.intro (And.right h1) (And.left h1)
Or.symm       | a ∨ b => b ∨ a                    | exact Or.elim h1 Or.inr Or.inl
Iff.symm      | a ↔ b => b ↔ a                    | exact Iff.intro (Iff.mpr h1) (Iff.mp h1)
Iff.trans     | a ↔ b ; b ↔ c => a ↔ c            | exact Iff.intro (fun h3 => Iff.mp h2 (Iff.mp h1 h3)) (fun h3 => Iff.mpr h1 (Iff.mpr h2 h3))
mt            | a → b ; ¬b => ¬a                  | intro h3; exact h2 (h1 h3)
Or.resolve_left  | a ∨ b ; ¬a => b                | exact Or.elim h1 (fun h3 => False.elim (h2 h3)) (fun h3 => h3)
Or.resolve_right | a ∨ b ; ¬b => a                | exact Or.elim h1 (fun h3 => h3) (fun h3 => False.elim (h2 h3))
Or.elim       | a ∨ b ; a → c ; b → c => c        | exact match h1 with | Or.inl h4 => h2 h4 | Or.inr h4 => h3 h4
And.imp       | a → c ; b → d ; a ∧ b => c ∧ d    | exact And.intro (h1 (And.left h3)) (h2 (And.right h3))
Or.imp        | a → c ; b → d ; a ∨ b => c ∨ d    | exact Or.elim h3 (fun h4 => Or.inl (h1 h4)) (fun h4 => Or.inr (h2 h4))
not_not_intro | a => ¬¬a                          | intro h2; exact h2 h1
not_or_intro  | ¬a ; ¬b => ¬(a ∨ b)               | intro h3; exact Or.elim h3 h1 h2
"""


# ---- formulas: an atom is a string, a compound is a tuple ("¬", f) or (op, f, g) ----

def parse(text):
    """Formula of a text in which every compound inside a compound is bracketed, as `show` writes it."""
    tokens = re.findall(r"\w+|\S", text)

    def unary():
        token = tokens.pop(0)
        if token == "(":
            inside = binary()
            tokens.pop(0)
            return inside
        return ("¬", unary()) if token == "¬" else token

    def binary():
        left = unary()
        return (tokens.pop(0), left, unary()) if tokens and tokens[0] in "∧∨→↔" else left
    return binary()


def show(f, outer=True):
    if isinstance(f, str):
        return f
    if f[0] == "¬":
        return "¬" + show(f[1], False)
    text = f"{show(f[1], False)} {f[0]} {show(f[2], False)}"
    return text if outer else f"({text})"


def size(f):
    """Number of connectives; the negation of an atom is free."""
    return 0 if isinstance(f, str) or isinstance(f[1], str) and len(f) == 2 else 1 + sum(map(size, f[1:]))


def subformulas(f):
    return {f}.union(*map(subformulas, f[1:])) if isinstance(f, tuple) else {f}


def match(pattern, f, env):
    """Extends the substitution env in place so that pattern (its strings are variables) becomes f; None if it cannot."""
    if isinstance(pattern, str):
        return env if env.setdefault(pattern, f) == f else None
    if isinstance(f, str) or f[0] != pattern[0]:
        return None
    return env if all(match(p, g, env) is not None for p, g in zip(pattern[1:], f[1:], strict=True)) else None


def fill(pattern, env):
    """Pattern with its variables replaced; None where one is unbound."""
    if isinstance(pattern, str):
        return env.get(pattern)
    parts = [fill(p, env) for p in pattern[1:]]
    return None if None in parts else (pattern[0], *parts)


RULES, LEMMA_PROOFS = {}, {}
for line in RULES_TEXT.strip("\n").splitlines():
    name, rule, proof = (part.strip() for part in line.split("|", 2))
    premises, conclusion = rule.split("=>")
    RULES[name] = [parse(p) for p in premises.split(";")], parse(conclusion)
    if proof:
        LEMMA_PROOFS[name] = proof
RULE_DRAW = [name for name in RULES for _ in range(2 if name in LEMMA_PROOFS or not name else 1)]


# ---- the prover ----

def complete(premises, conclusion, env, facts, universe):
    """All substitutions that extend env, find the premises among the facts and the conclusion in the universe."""
    open_premises = [p for p in premises if fill(p, env) is None]
    if len(open_premises) < len(premises) and any(fill(p, env) not in facts for p in premises if p not in open_premises):
        return
    if open_premises and isinstance(open_premises[0], tuple):
        choices = [(open_premises[0], f) for f in facts]
    elif fill(conclusion, env) is None:
        choices = [(conclusion, f) for f in universe]
    else:
        yield env
        return
    for pattern, f in choices:
        extended = match(pattern, f, dict(env))
        if extended is not None:
            yield from complete(open_premises, conclusion, extended, facts, universe)


def derive(hyps, goal, hints):
    """{fact: (cost, rule, premises)} up to the goal, cheapest first (Knuth's generalisation of Dijkstra's algorithm;
    cost = rule applications, a shared fact counted each time). Facts are subformulas of hyps, goal and hints."""
    universe = set().union(*(subformulas(f) for f in (*hyps, goal, *hints)))
    facts, agenda, count = {}, [(0, i, h, "", ()) for i, h in enumerate(hyps)], itertools.count(len(hyps))
    while agenda and goal not in facts:
        cost, _, fact, rule, used = heapq.heappop(agenda)
        if fact in facts:
            continue
        facts[fact] = cost, rule, used
        for name, (premises, conclusion) in RULES.items():
            for premise in premises:
                env = match(premise, fact, {})
                for full in complete(premises, conclusion, env, facts, universe) if env is not None else ():
                    new, parts = fill(conclusion, full), tuple(fill(p, full) for p in premises)
                    if new in universe and new not in facts:
                        total = 1 + sum(facts[p][0] for p in parts)
                        heapq.heappush(agenda, (total, next(count), new, name, parts))
    return facts if goal in facts else None


def prove(hyps, goal, hints=()):
    """Proof as (introduced formulas, [(fact, rule, premises)] with the goal last), or None. Rule None: a hypothesis."""
    intros, best = (), None
    while True:
        facts = derive((*hyps, *intros), goal, hints)
        if facts:
            steps = []

            def visit(fact, facts=facts, steps=steps):  # depth first, the costliest premise first: a chain of facts
                cost, rule, used = facts[fact]
                if cost and all(fact != step[0] for step in steps):
                    for f in sorted(used, key=lambda f: -facts[f][0]):
                        visit(f)
                    steps.append((fact, rule, used))
            visit(goal)
            proof = intros, steps or [(goal, None, (goal,))]
            if best is None or n_lines(proof) < n_lines(best):
                best = proof
        if isinstance(goal, str) or goal[0] != "→":
            return best
        intros, goal = (*intros, goal[1]), goal[2]


def n_lines(proof):
    return len(proof[0]) + len(proof[1])


def facts_of(proof):
    return [fact for fact, _, _ in proof[1]] if proof else []


def render(hyps, goal, proof, first=1):
    """(statement, proof) as Lean text; hypotheses are numbered from `first`."""
    names = {h: f"h{first + i}" for i, h in enumerate(hyps)}
    binders = "".join(f" ({names[h]} : {show(h)})" for h in hyps)
    lines, (intros, steps) = [], proof
    for f in intros:
        names[f] = f"h{first + len(hyps) + len(lines)}"
        lines.append(f"intro {names[f]}")
    for fact, rule, used in steps:
        term = " ".join([*filter(None, [rule]), *(names[f] for f in used)])
        if len(lines) == n_lines(proof) - 1:
            lines.append(f"exact {term}")
        else:
            names[fact] = f"h{first + len(hyps) + len(lines)}"
            lines.append(f"have {names[fact]} : {show(fact)} := {term}")
    return f"theorem t {BINDER}{binders} : {show(goal)} := by", "".join(f"\n  {line}" for line in lines)


def canonical(hyps, goal):
    """Text equal for theorems that differ only in names of atoms and order of hypotheses (up to rare ties)."""
    names, parts, rest = {}, [], list(hyps)

    def rename(f, names):
        return "".join(names.setdefault(c, chr(65 + len(names))) if c in ATOMS else c for c in show(f))
    parts.append(rename(goal, names))
    while rest:
        h = min(rest, key=lambda f: rename(f, dict(names)))
        rest.remove(h)
        parts.append(rename(h, names))
    return " | ".join(parts)


# ---- edits ----

def truth(f):
    """Truth table of f over ATOMS, as an integer of 2^8 bits."""
    if isinstance(f, str):
        return TRUTH[f]
    a, b = truth(f[1]), truth(f[-1])
    return {"¬": ~a & ALL, "∧": a & b, "∨": a | b, "→": ~a & ALL | b, "↔": ~(a ^ b) & ALL}[f[0]]


ALL = 2 ** 2 ** len(ATOMS) - 1
TRUTH = {a: sum(1 << row for row in range(2 ** len(ATOMS)) if row >> i & 1) for i, a in enumerate(ATOMS)}


def sensible(hyps, goal, limit):
    """Distinct hypotheses within the size limits that can all hold, and that do not simply contain the goal."""
    both = ALL
    while goal not in hyps and isinstance(goal, tuple) and goal[0] == "→":
        hyps, goal = (*hyps, goal[1]), goal[2]
    for h in hyps:
        both &= truth(h)
    return (both and truth(goal) != ALL and goal not in hyps and len(set(hyps)) == len(hyps) <= limit["hyps"]
            and max(map(size, (*hyps, goal))) <= limit["size"])


def fresh(rng, hyps, goal):
    """A formula to fill a gap: mostly an atom that does not occur yet, now and then a negation or a hypothesis."""
    unused = sorted(set(ATOMS) - set().union(*map(subformulas, (*hyps, goal))))
    draw = rng.random()
    if draw < 0.15 and hyps:
        return rng.choice(hyps)
    atom = rng.choice(unused if unused and draw < 0.8 else ATOMS)
    return ("¬", atom) if rng.random() < 0.1 else atom


def fill_gaps(rng, patterns, env, hyps, goal):
    for variable in "abcd":
        if variable not in env and any(variable in subformulas(p) for p in patterns):
            env[variable] = fresh(rng, (*hyps, *env.values()), goal)
    return [fill(p, env) for p in patterns]


def edit(rng, hyps, goal, proof):
    """One candidate edit of a theorem: (hyps, goal), maybe ill-suited (see grow)."""
    intros, steps = proof
    kind, name = rng.random(), rng.choice(RULE_DRAW)
    premises, conclusion = RULES[name]
    used = [h for h in hyps if any(h in step[2] for step in steps)]
    if kind < 0.1 and used and not intros:  # move a hypothesis into the goal
        h = rng.choice(used)
        return tuple(f for f in hyps if f != h), ("→", h, goal)
    if kind < 0.55:  # the goal becomes a premise: new goal, the rule's other premises become hypotheses
        for _ in intros:
            goal = goal[2]
        i = rng.randrange(len(premises))
        env = match(premises[i], goal, {})
        if env is None:
            return None
        *others, goal = fill_gaps(rng, premises[:i] + premises[i + 1:] + [conclusion], env, hyps, goal)
        new = [f for f in others if f not in hyps and f not in intros]
        for f in reversed(intros):
            goal = ("→", f, goal)
        return (*hyps, *new), goal
    if not used:
        return None
    target = rng.choice(used)  # a used hypothesis becomes the conclusion of a rule with new premises
    env = match(conclusion, target, {})
    if env is None:
        return None
    first, *others = [f for f in fill_gaps(rng, premises, env, hyps, goal) if f not in hyps or f == target] or [None]
    return tuple(f for f in (*(first if h == target else h for h in hyps), *others) if f), goal


def grow(rng, hyps, goal, proof, limit, tries=200):
    """(hyps, goal, proof) one line longer than the given one within the size limits, or None."""
    for _ in range(tries):
        edited = edit(rng, hyps, goal, proof)
        if edited is None or not sensible(*edited, limit):
            continue
        longer = prove(*edited, hints=(*hyps, goal, *facts_of(proof)))
        if longer and n_lines(longer) == n_lines(proof) + 1:
            return (*edited, longer)
    return None


def distract(rng, hyps, goal, proof, n, limit):
    """The theorem with up to n more hypotheses that do not help, hypotheses shuffled."""
    for _ in range(n):
        premises, _ = RULES[rng.choice(RULE_DRAW)]
        extra = (*hyps, fill_gaps(rng, [rng.choice(premises)], {}, hyps, goal)[0])
        if sensible(extra, goal, limit) and n_lines(prove(extra, goal, facts_of(proof))) == n_lines(proof):
            hyps = extra
    hyps = tuple(rng.sample(hyps, len(hyps)))
    return hyps, goal, prove(hyps, goal, facts_of(proof))


def start(rng, distractors, limit):
    """A theorem with a proof of one line: one rule, with hypotheses that it does not need."""
    while True:
        premises, conclusion = RULES[rng.choice(RULE_DRAW)]
        *hyps, goal = fill_gaps(rng, [*premises, conclusion], {}, (rng.choice(ATOMS),), rng.choice(ATOMS))
        if sensible(tuple(hyps), goal, limit) and n_lines(prove(hyps, goal)) == 1:
            return distract(rng, tuple(hyps), goal, prove(hyps, goal), distractors, limit)


def chain(rng, lines, distractors, limit):
    """Theorems of 1, 2, ... lines, each an edit of the one before; ends early where no edit is found."""
    theorem = start(rng, distractors, limit)
    while theorem:
        yield theorem
        theorem = grow(rng, *theorem, limit) if n_lines(theorem[2]) < lines else None


# ---- the files ----

def lemma_entries():
    for name, proof in LEMMA_PROOFS.items():
        premises, conclusion = RULES[name]
        atoms = sorted(set().union(*map(subformulas, (*premises, conclusion))) & set("abcd"))
        binders = "".join(f" (h{i} : {show(p)})" for i, p in enumerate(premises, 1))
        yield {"name": name, "file": "lemmas",
               "statement": f"theorem {name} {{{' '.join(atoms)} : Prop}}{binders} : {show(conclusion)} := by",
               "proof": "".join(f"\n  {line.strip()}" for line in proof.split(";"))}


def make_library(rng, args, seen):
    limit = {"size": args.size, "hyps": args.hyps}
    for number in range(args.chains):
        first = rng.randint(1, args.first)  # numbering starts anywhere, so that every h-number is met
        for hyps, goal, proof in chain(rng, args.library_lines, rng.randint(0, args.distractors), limit):
            if canonical(hyps, goal) not in seen:
                seen.add(canonical(hyps, goal))
                statement, text = render(hyps, goal, proof, first)
                yield {"name": f"chain{number:04}_{n_lines(proof)}", "file": f"chain{number:04}",
                       "statement": statement, "proof": text}


def make_given(rng, args, seen):
    """Given statements with their proofs, as many of each number of lines, every fifth held out."""
    limit = {"size": args.size, "hyps": args.max_lines}
    levels = range(args.min_lines, args.max_lines + 1)
    for i in range(args.given + args.heldout):
        lines = levels[i % len(levels)]
        while True:
            *_, theorem = chain(rng, lines, 0, limit)
            theorem = distract(rng, *theorem, rng.randint(0, args.distractors), limit)
            if n_lines(theorem[2]) == lines and canonical(*theorem[:2]) not in seen:
                break
        seen.add(canonical(*theorem[:2]))
        statement, text = render(*theorem)
        split = "train" if i < args.given else "heldout"
        yield {"name": f"given{lines:02}_{i:04}", "statement": statement, "split": split, "proof": text}


def write(path, rows):
    with open(path + ".tmp", "w", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    os.replace(path + ".tmp", path)


def verify(rows, lean):
    """Stops unless Lean accepts every row's proof. A lemma is checked under the name t: its own name is taken."""
    from lean_check import check
    attempts = [{"statement": re.sub(r"^theorem \S+", "theorem t", row["statement"]), "proof": row["proof"]}
                for row in rows]
    for row, result in zip(rows, check(attempts, header="", lean=lean), strict=True):
        if result["verdict"] != "proved":
            sys.exit(f"{row['name']}: Lean says {result['verdict']}: {result.get('message')}\n"
                     f"{row['statement']}{row['proof']}")


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--chains", type=int, default=1200, help="chains (files) of the library")
    p.add_argument("--library_lines", type=int, default=4, help="most lines of a library proof")
    p.add_argument("--given", type=int, default=400, help="given statements to train on")
    p.add_argument("--heldout", type=int, default=100, help="given statements held out")
    p.add_argument("--min_lines", type=int, default=2, help="fewest lines of the proof of a given statement")
    p.add_argument("--max_lines", type=int, default=10, help="most lines of the proof of a given statement")
    p.add_argument("--size", type=int, default=1, help="most connectives of a formula")
    p.add_argument("--hyps", type=int, default=7, help="most hypotheses of a library theorem")
    p.add_argument("--distractors", type=int, default=2, help="most hypotheses added that no proof needs")
    p.add_argument("--first", type=int, default=6, help="highest number of a library theorem's first hypothesis")
    p.add_argument("--lean", default=os.path.join(here, "lean"), help="Lean command that checks everything")
    p.add_argument("--out", default=here, help="folder of the two files")
    args = p.parse_args()
    rng, seen = random.Random(args.seed), set()
    library = [*lemma_entries(), *make_library(rng, args, seen)]
    given = list(make_given(rng, args, seen))
    sys.path.insert(0, os.path.dirname(here))
    verify(library + given, args.lean)
    write(os.path.join(args.out, "library.jsonl"), library)
    write(os.path.join(args.out, "statements.jsonl"),
          [{key: row[key] for key in ("name", "statement", "split")} for row in given])
    print(f"{len(library)} library entries, {len(given)} given statements; Lean accepts every proof")


if __name__ == "__main__":
    main()
