"""Rewards of STP (Dong & Ma, arXiv 2502.00212, section 3.2): which conjectures to train on, and how much.

A conjecture is kept when it is challenging, relevant and elegant. The kept ones are then reweighted so that,
as a distribution, they move towards the statements still unproved. All functions are pure. Lengths of
statements and proofs are in characters.

An attempt is {"statement", "proof", "verdict", "count"}: distinct (statement, proof), sampled `count` times.
Verdict "crashed" (the checker failed, not the proof) is no evidence; any other but "proved" is a failure.
"""
import math
import random
import re
from collections import Counter, defaultdict

import numpy as np
import torch


def pass_rates(attempts):
    """{statement: proved samples / judged samples}; a statement without a judged sample is absent."""
    proved, judged = Counter(), Counter()
    for a in attempts:
        if a["verdict"] != "crashed":
            judged[a["statement"]] += a["count"]
            proved[a["statement"]] += a["count"] * (a["verdict"] == "proved")
    return {s: proved[s] / n for s, n in judged.items() if n > 0}


_NAME = r"(?:«[^»]*»|[^\W\d][\w'!?]*)"
_TOKEN = re.compile(rf'"(?:\\.|[^"\\])*"|--[^\n]*|/-(?:/-.*?-/|.)*?-/|(\.?{_NAME}(?:\.{_NAME})*)', re.S)


def invoked(proof, lemmas):
    """Set of the names in `lemmas` (a set or dict) that `proof` uses outside comments and strings.

    Whole Lean identifiers: `h.symm` and `.symm` do not use `symm`, `add_comm'` does not use `add_comm`. As in
    Lean, `abs_le.mp` is read as its longest known prefix: field `mp` of `abs_le`.
    """
    used = set()
    for name in filter(None, _TOKEN.findall(proof)):
        parts = name.removeprefix("_root_.").split(".")
        prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
        used.add(next((p for p in prefixes if p in lemmas), None))
    return used - {None}


def select(conjectures, attempts, unproved, embed, *, challenge=0.25, relevant_cap=(20, 4096), elegance=0.2,
           reweight="wasserstein", kappa=4.0, seed=0):
    """Filter and weigh conjectures {"statement", "lemma": name or None, ...}; one dict each, in input order:
    {**conjecture, "pass_rate": float or None, "lemma", "reason", "weight": 0.0 unless the reason is "kept"}.

    Reasons, in the order of the filters (section 3.2; cap and groups as in the official code):
      "unjudged"                   no judged sample
      "unproved", "too easy"       pass rate 0; above `challenge` (1: no upper limit)
      "irrelevant (over the cap)"  no verified proof uses its lemma. Such conjectures stay with lemma None, at
                                   most max(relevant_cap[0] * lemma-using ones, relevant_cap[1]), by `seed`
      "inelegant"                  ratio = min over verified proofs of len(proof) / len(statement) is under
                                   sorted(ratios)[int(elegance * n)] of the n that share its lemma (0: off)
      "weight 0"                   the reweighting gives it nothing: function `reweight`, or "uniform": all 1
    `unproved`: statements. `embed`: n strings -> (n, d) tensor, called once, or not at all without kept
    ones or unproved ones.
    """
    if reweight not in ("wasserstein", "uniform"):
        raise ValueError(f"reweight must be 'wasserstein' or 'uniform', not {reweight!r}")
    if not 0 <= elegance < 1:
        raise ValueError(f"elegance must be at least 0 and below 1, not {elegance}")
    rates, proofs = pass_rates(attempts), defaultdict(list)
    for a in attempts:
        if a["verdict"] == "proved":
            proofs[a["statement"]].append(a["proof"])
    out = [{**c, "pass_rate": rates.get(c["statement"]), "reason": "kept", "weight": 0.} for c in conjectures]

    def kept():
        return [c for c in out if c["reason"] == "kept"]

    for c in out:  # challenging
        if c["pass_rate"] is None:
            c["reason"] = "unjudged"
        elif not 0 < c["pass_rate"] <= challenge:
            c["reason"] = "too easy" if c["pass_rate"] else "unproved"

    for c in kept():  # relevant
        if c["lemma"] and not any(invoked(p, {c["lemma"]}) for p in proofs[c["statement"]]):
            c["lemma"] = None
    others = [c for c in kept() if not c["lemma"]]
    cap = max(relevant_cap[0] * (len(kept()) - len(others)), relevant_cap[1])
    for c in random.Random(seed).sample(others, max(len(others) - cap, 0)):
        c["reason"] = "irrelevant (over the cap)"

    groups = defaultdict(list)  # elegant
    for c in kept():
        ratio = min(map(len, proofs[c["statement"]])) / len(c["statement"])
        groups[c["lemma"]].append((ratio, c))
    for group in groups.values():
        cutoff = sorted(ratio for ratio, _ in group)[int(elegance * len(group))]
        for ratio, c in group:
            c["reason"] = "kept" if ratio >= cutoff else "inelegant"

    chosen = kept()  # diverse
    weights = [1.0] * len(chosen)
    if reweight == "wasserstein" and chosen and unproved:
        weights = _diverse([c["statement"] for c in chosen], list(unproved), embed, kappa, seed)
    for c, w in zip(chosen, weights, strict=True):
        c.update(weight=w, reason="kept" if w > 0 else "weight 0")
    return out


def proof_weights(proofs, gamma=0.001):
    """Training weight exp(-gamma len(proof)) / number of verified proofs of its statement (section 3.3).

    `proofs`: the distinct verified {"statement", "proof"}; gamma per character. Floats, in the same order.
    """
    number = Counter(p["statement"] for p in proofs)
    return [math.exp(-gamma * len(p["proof"])) / number[p["statement"]] for p in proofs]


def _diverse(chosen, unproved, embed, kappa, seed):
    """Weights of the statements `chosen`, as a list; select's own `reweight` is a string."""
    vectors = embed(chosen + unproved)
    return reweight(vectors[:len(chosen)], vectors[len(chosen):], kappa, seed).tolist()


def reweight(e, u, kappa=4.0, seed=0):
    """Weights (N,), float64, on the CPU: mean 1, each in [0, kappa]; 0 drops a conjecture.

    e (N, d), u (M, d): embeddings of the conjectures and the unproved statements; only directions count.
    w_i = N sum_j pi_ij of a plan pi >= 0 that keeps  sum_ij pi_ij (1 - cos(e_i, u_j))  small
    subject to  sum_i pi_ij = 1/M for all j  and  sum_j pi_ij <= kappa/N for all i  (section 3.2, diversity).
    As in the official code the plan is greedy: in an order drawn with `seed`, each statement gives its mass
    to the most similar conjecture that is not full. Unlike there, what does not fit goes to the next one, so
    that no weight passes kappa. N = 0 gives (0,), M = 0 ones. ValueError for NaN, infinite or zero vectors,
    kappa < 1. Similarities are computed where e lives, 64 MB at a time; the plan is made on the CPU.

    Three unproved statements lie at the first conjecture, one at the second; kappa 1.5 fills it at 3/4:
    >>> reweight(torch.eye(2), torch.eye(2)[[0, 0, 0, 1]], kappa=1.5).tolist()
    [1.5, 0.5]
    """
    if not kappa >= 1:
        raise ValueError(f"kappa must be at least 1 because weights average 1, not {kappa}")
    (n, d), m = e.shape, len(u)
    if n == 0 or m == 0:
        return torch.ones(n, dtype=torch.float64)
    e = _directions(e, "a conjecture")
    unit = 2**20  # masses are counted in 1 / (N M unit): whole numbers, so that rounding leaves no remainder
    capacity = int(min(kappa, n) * m * unit)
    room = [capacity] * n
    closed = np.zeros(n, dtype=np.float32)  # added to similarities: -inf where there is no room
    order = torch.randperm(m, generator=torch.Generator().manual_seed(seed)).to(u.device)
    for rows in order.split(max(1, 2**24 // max(n, d))):
        block = _directions(u[rows].to(e.device), "an unproved statement")
        for similarity in (block @ e.T).cpu().numpy():  # (N,)
            mass = n * unit
            while mass > 0:
                i = int((similarity + closed).argmax())
                give = min(mass, room[i])
                mass, room[i] = mass - give, room[i] - give
                if room[i] == 0:
                    closed[i] = -np.inf
    return (capacity - torch.tensor(room, dtype=torch.float64)) / (m * unit)


def _directions(x, what):
    """Rows of x at length 1, float32."""
    x = x.float()
    length = x.norm(dim=1, keepdim=True)
    if not length.isfinite().all():
        raise ValueError(f"the embedding of {what} holds NaN or infinity")
    if not length.all():
        raise ValueError(f"the embedding of {what} is the zero vector, which has no direction")
    return x / length
