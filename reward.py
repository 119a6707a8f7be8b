"""Rewards of STP (Dong & Ma, arXiv 2502.00212, section 3.2): which conjectures to train on, and how much.

A conjecture is kept when it is challenging, relevant and elegant. The kept ones are then reweighted so that,
as a distribution, they move towards the statements still unproved. Pure functions of plain data: no model, no
Lean, no files. Lengths of statements and proofs are in characters.

    python reward.py                              # cost and time of the three methods beside an exact LP
    python reward.py --plot docs/reweighting.png  # draw the weights of two clusters

Differences from the paper and its official code:
1. The transport problem is solved to a proven 0.3%; the official greedy short cut is `method="greedy"`.
2. Greedy splits a statement's mass when a conjecture is full, so that no weight passes kappa.
3. Conjectures with the same embedding share their weight; the order of the inputs does not matter.

An attempt is {"statement", "proof", "verdict", "count"}: distinct (statement, proof), sampled `count` times.
Verdict "crashed" (the checker failed, not the proof) is no evidence; any other but "proved" is a failure.
"""
import argparse
import math
import random
import re
import time
from collections import Counter, defaultdict

import torch

# -------------------------------------------------------------------------------------------------- filters


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
           elegance_group="lemma", reweight="optimal", kappa=4.0, seed=0):
    """Filter and weigh conjectures {"statement", "lemma": name or None, ...}; one dict each, in input order:
    {**conjecture, "pass_rate": float or None, "lemma", "reason", "weight": 0.0 unless the reason is "kept"}.

    Reasons, in the order of the filters (section 3.2; cap and groups as in the official code):
      "unjudged"                   no judged sample
      "unproved", "too easy"       pass rate 0; above `challenge` (1: no upper limit)
      "irrelevant (over the cap)"  no verified proof uses its lemma. Such conjectures stay with lemma None, at
                                   most max(relevant_cap[0] * lemma-using ones, relevant_cap[1]), by `seed`
      "inelegant"                  min over verified proofs of len(proof) / len(statement) under the quantile
                                   `elegance` (0: off) of its lemma's group, or of "all" as the paper writes
      "weight 0"                   the reweighting (function `reweight`) gives it nothing
    `unproved`: statements. `embed`: n strings -> (n, d) tensor, called once, or not if there is no choice.
    """
    if elegance_group not in ("lemma", "all"):
        raise ValueError(f"elegance_group must be 'lemma' or 'all', not {elegance_group!r}")
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
        groups[c["lemma"] if elegance_group == "lemma" else "all"].append((ratio, c))
    for group in groups.values():
        ratios = torch.tensor([ratio for ratio, _ in group], dtype=torch.float64)
        for (_, c), low in zip(group, ratios < ratios.quantile(elegance), strict=True):
            c["reason"] = "inelegant" if low else "kept"

    chosen = kept()  # diverse
    weights = [1.0] * len(chosen)
    if reweight != "uniform" and chosen and unproved:
        vectors = embed([c["statement"] for c in chosen] + list(unproved))
        e, u = vectors[:len(chosen)], vectors[len(chosen):]
        weights = _transport(e, u, kappa, reweight, seed)[0].tolist()
    for c, w in zip(chosen, weights, strict=True):
        c.update(weight=w, reason="kept" if w > 0 else "weight 0")
    return out


def proof_weights(proofs, gamma=0.001):
    """Training weight exp(-gamma len(proof)) / number of verified proofs of its statement (section 3.3).

    `proofs`: the distinct verified {"statement", "proof"}; gamma per character. Floats, in the same order.
    """
    number = Counter(p["statement"] for p in proofs)
    return [math.exp(-gamma * len(p["proof"])) / number[p["statement"]] for p in proofs]


# ---------------------------------------------------------------------------------------------- reweighting


def reweight(e, u, kappa=4.0, method="optimal", seed=0):
    """Weights (N,), float64: mean 1, each in [0, kappa]; 0 drops a conjecture.

    e (N, d), u (M, d): embeddings of the conjectures and the unproved statements; only directions count.
    w_i = N sum_j pi_ij of the plan pi >= 0 that minimises  sum_ij pi_ij (1 - cos(e_i, u_j))
    subject to  sum_i pi_ij = 1/M for all j  and  sum_j pi_ij <= kappa/N for all i  (section 3.2, diversity).
    method "optimal": a plan proven within 0.3% of the minimum, or the best found in about 1,000 passes over
    the N x M costs; never above greedy's. "greedy": the official code: in an order drawn with `seed`, each
    statement goes to the most similar conjectures that are not full. "uniform": ones. N = 0 gives (0,), M = 0
    ones. ValueError for wrong shapes, NaN, infinite or zero vectors, kappa < 1, an unknown method.

    Three unproved statements lie at the first conjecture, one at the second; kappa 1.5 fills it at 3/4:
    >>> reweight(torch.eye(2), torch.eye(2)[[0, 0, 0, 1]], kappa=1.5).tolist()
    [1.5, 0.5]
    """
    return _transport(e, u, kappa, method, seed)[0]


def _transport(e, u, kappa, method, seed):
    """Weights (N,), cost of their plan, lower bound of every plan's cost (None where not computed)."""
    e, u = (torch.as_tensor(x).detach().double() for x in (e, u))
    if e.ndim != 2 or u.ndim != 2 or e.shape[1] != u.shape[1]:
        raise ValueError(f"embeddings must be (N, d) and (M, d), not {tuple(e.shape)} and {tuple(u.shape)}")
    for name, x in (("a conjecture", e), ("an unproved statement", u)):
        if not x.isfinite().all():
            raise ValueError(f"the embedding of {name} holds NaN or infinity")
        if (x.norm(dim=1) == 0).any():
            raise ValueError(f"the embedding of {name} is the zero vector, which has no direction")
    if not kappa >= 1:
        raise ValueError(f"kappa must be at least 1 because weights average 1, not {kappa}")
    if method not in ("optimal", "greedy", "uniform"):
        raise ValueError(f"method must be 'optimal', 'greedy' or 'uniform', not {method!r}")
    if method == "uniform" or not len(e) or not len(u):
        return e.new_ones(len(e)), None, None

    # Distinct directions, sorted: the input order cannot matter, and copies share their mass. Rounded,
    # because the same direction at another length differs in its last bits and would count as another one.
    e, u = ((x / x.norm(dim=1, keepdim=True)).round(decimals=12) for x in (e, u))
    e, row, copies = torch.unique(e, dim=0, return_inverse=True, return_counts=True)
    u, times = torch.unique(u, dim=0, return_counts=True)
    a = times.double() / times.sum()  # masses (M,)
    b = copies.double() * min(kappa / len(row), 1)  # capacities (N,); above 1 they would not bind
    order = torch.repeat_interleave(times.cpu())
    order = order[torch.randperm(len(order), generator=torch.Generator().manual_seed(seed))].to(u.device)
    cost, mass, bound = *_greedy(_costs(e, u[order]), b, len(order)), None
    if method == "optimal":
        cost, mass, bound = _optimal(_costs(e, u), a, b, cost, mass)
    return (mass / copies)[row] * len(row) / mass.sum(), cost, bound


def _costs(e, u, block=2**18, held=2**25):
    """Function that iterates over (slice of statements, their costs 1 - cos (B, N)), `block` entries each.

    Up to `held` entries (256 MB) are kept for the next pass; more are computed again in each pass.
    """
    def costs(j):
        return slice(j, j + step), (1 - u[j:j + step] @ e.T).clamp(min=0)

    step = max(1, block // len(e))
    kept = [costs(j) for j in range(0, len(u), step)] if len(e) * len(u) <= held else None
    return lambda: kept or map(costs, range(0, len(u), step))


def _greedy(blocks, b, m):
    """Cost and row masses (N,) of the official plan: each of m statements gives 1/m to the nearest rows."""
    left, shut, cost = b.cpu().clone(), torch.zeros(len(b), dtype=b.dtype), 0.0
    for _, cs in blocks():
        for c in cs.cpu():
            need = 1 / m
            while need > 1e-12 / m:
                i = int((c + shut).argmin())
                give = min(need, left[i].item())
                cost, need = cost + give * c[i].item(), need - give
                left[i] -= give
                if left[i] <= 1e-12 * b[i]:
                    shut[i] = torch.inf
    return cost, b - left.to(b.device)


def _optimal(blocks, a, b, best, mass, tol=0.003, passes=1000):
    """Cost, row masses (N,) of a plan within `tol` of the minimum, lower bound; from greedy's `best`, `mass`.

    The dual of the transport problem in prices x (N,); a dummy statement of cost 0 takes the spare capacity:
        max_x  sum_j a_j min_i (c_ij + x_i)  +  (kappa - 1) min_i x_i  -  sum_i b_i x_i
    Each min is smoothed to -eps log sum exp(-./eps) (entropic transport, Cuturi 2013). L-BFGS finds prices
    (Blondel et al. 2018) in fewer passes than Sinkhorn's iteration. eps shrinks until the cost of the rounded
    plan and the unsmoothed dual, which hold the minimum between them, meet.
    """
    spare, bound, done, rows = b.sum() - 1, -math.inf, 0, None
    x = torch.zeros_like(b, requires_grad=True)
    eps = sum((a[js] @ c.mean(1)).item() for js, c in blocks()) / 4 + 1e-8  # a quarter of the mean cost

    def closure():
        """Minus the smoothed dual at x (times N), its gradient in x.grad; keeps row masses and best bound."""
        nonlocal rows, bound, done
        prices, soft, hard, rows = x.detach(), 0.0, 0.0, torch.zeros_like(b)
        for js, c in blocks():
            v = c + prices
            low, p = v.amin(1), torch.softmax(v / -eps, 1)
            hard = hard + a[js] @ low
            soft = soft + a[js] @ (low + eps * p.amax(1).log())
            rows += a[js] @ p
        low, p = prices.min(), torch.softmax(prices / -eps, 0)
        bound, done = max(bound, (hard + spare * low - b @ prices).item()), done + 1
        x.grad = (b - rows - spare * p) * len(b)
        return (b @ prices - soft - spare * (low + eps * p.max().log())) * len(b)

    closure()
    while best - bound > tol * best + 1e-8 and done < passes and eps > 1e-9:
        torch.optim.LBFGS([x], max_iter=30, history_size=20, tolerance_grad=1e-9, tolerance_change=1e-12,
                          line_search_fn="strong_wolfe").step(closure)
        closure()  # the line search may have ended elsewhere
        cost, smooth, rounded = _round(x.detach(), eps, rows, a, b, blocks)
        if cost < best:
            best, mass = cost, rounded
        done += 10  # passes of the rounding
        if cost - smooth <= max(tol / 3 * cost, 0.2 * (smooth - bound)):  # else x is not good enough yet
            eps *= 0.35
    return best, mass, bound


def _round(x, eps, mass, a, b, blocks, rounds=8):
    """Feasible plan near the smoothed one at prices x: its cost, the smoothed cost, its row masses (N,).

    Rows over their capacity are scaled down, rows of hardly any mass emptied. Then statements short of mass
    turn to their nearest row with room, which serves all who do in equal parts; the last rest goes anywhere.
    """
    scale = (b / mass.clamp(min=1e-300)).clamp(max=1) * (mass > 1e-3 * b / b.sum())
    left, need, cost, smooth = b.clone(), torch.zeros_like(a), 0.0, 0.0
    for js, c in blocks():
        p = torch.softmax((c + x) / -eps, 1) * a[js, None]
        smooth += (p * c).sum().item()
        p *= scale
        cost += (p * c).sum().item()
        need[js] = (a[js] - p.sum(1)).clamp(min=0)
        left -= p.sum(0)
    near, price = torch.zeros_like(a, dtype=torch.long), torch.zeros_like(a)
    for _ in range(rounds):
        left.clamp_(min=0)
        shut = torch.where(left > 1e-12 * b, 0.0, torch.inf)
        for js, c in blocks():
            near[js] = (c + shut).argmin(1)
            price[js] = c.gather(1, near[js, None])[:, 0]
        want = torch.zeros_like(b).index_add_(0, near, need)
        give = need * (left / want.clamp(min=1e-300)).clamp(max=1)[near]
        cost += (give @ price).item()
        need -= give
        left.index_add_(0, near, -give)
    rest, room = need.sum(), left.clamp_(min=0).sum().clamp(min=1e-300)
    cost += sum((need[js] @ (c @ left) / room).item() for js, c in blocks())
    return cost, smooth, b - left * (1 - rest / room).clamp(min=0)


# ------------------------------------------------------------------------------------- benchmark and picture


def _lp(e, u, kappa):
    """The exact minimum, by scipy's HiGHS."""
    import numpy as np
    from scipy import optimize, sparse
    (n, m), cost = (len(e), len(u)), 1 - torch.cosine_similarity(e[:, None], u[None], dim=-1)
    rows, columns = sparse.kron(sparse.eye(n), np.ones((1, m))), sparse.kron(np.ones((1, n)), sparse.eye(m))
    return optimize.linprog(cost.flatten().numpy(), A_ub=rows, b_ub=np.full(n, kappa / n), A_eq=columns,
                            b_eq=np.full(m, 1 / m), method="highs").fun


def benchmark(sizes=((50, 100), (150, 300), (300, 600), (1000, 10_000)), d=512):
    """Print cost and seconds of the methods and of the LP for rising sizes (eight uneven clusters)."""
    print(f"d = {d}, {torch.get_num_threads()} threads; cost = sum pi_ij (1 - cos_ij); bound: proven\n"
          f"{'N':>5} {'M':>6} kappa  uniform   greedy      s  optimal      s    bound       LP      s")
    for n, m in sizes:
        rng = torch.Generator().manual_seed(0)
        centres = torch.randn(8, d, dtype=torch.float64, generator=rng)
        e, u = (centres[torch.rand(8, generator=rng).square().multinomial(k, True, generator=rng)]
                + 0.5 * torch.randn(k, d, generator=rng) for k in (n, m))
        for kappa in (1.5, 4.0):
            cells = f"{n:5} {m:6} {kappa:5}  {_transport(e, u, 1, 'optimal', 0)[1]:.5f}"
            for method in ("greedy", "optimal", "LP") if n * m <= 50_000 else ("greedy", "optimal"):
                start, bound = time.perf_counter(), None
                if method == "LP":
                    cost = _lp(e, u, kappa)
                else:
                    _, cost, bound = _transport(e, u, kappa, method, 0)
                cells += f"  {cost:.5f} {time.perf_counter() - start:6.2f}"
                cells += f"  {bound:.5f}" if bound else ""
            print(cells, flush=True)


def plot(path, kappa=2.0):
    """Two clusters in the plane; most conjectures lie in one, most unproved statements in the other."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    rng = torch.Generator().manual_seed(5)
    angles = (torch.cat([0.5 + 0.17 * torch.randn(n, generator=rng),
                         1.2 + 0.13 * torch.randn(m, generator=rng)]) for n, m in ((30, 12), (12, 30)))
    e, u = (torch.stack([angle.cos(), angle.sin()], 1) for angle in angles)
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    for axis, method in zip(axes, ("greedy", "optimal"), strict=True):
        w, cost, _ = _transport(e, u, kappa, method, 0)
        axis.scatter(*(1.06 * u).T, marker="x", c="tab:red", s=24, label="unproved statements")
        axis.scatter(*e.T, marker=".", c="black", s=6, label="conjectures")
        axis.scatter(*e.T, c="tab:blue", s=90 * w, alpha=0.4, label=f"their weights (area, <= {kappa:g})")
        axis.set(title=f"{method}: cost {cost:.4f}", aspect="equal", xticks=[], yticks=[])
    axes[0].legend(loc="lower left")
    figure.savefig(path, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare the reweighting methods with an exact LP.")
    parser.add_argument("--plot", metavar="FILE.png", help="draw two clusters and their weights instead")
    args = parser.parse_args()
    plot(args.plot) if args.plot else benchmark()
