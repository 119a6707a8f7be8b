"""Tables and pictures of STP, made from runs of stp.py and by trying its two other files.

  python docs/figures.py table                               proved statements by arm, and paired differences
  python docs/figures.py table out/mine_0 --runs docs/runs.jsonl       own runs beside the published ones
  python docs/figures.py progress out/stp_0 out/stp_1 --out progress.png    proved against proofs; pass rates
  python docs/figures.py drift --out drift.png               how the conjectures change over iterations
  python docs/figures.py pack out/* --out docs/runs.jsonl    the one file of runs behind the README's figures
  python docs/figures.py reward --out docs/reweighting.png   greedy weights beside an exact LP: cost, seconds
  python docs/figures.py lean                                the checker's speed beside that of bare Lean

A run is a run folder of stp.py. Runs whose names differ only in a number at the end (stp_0, stp_1) are of one
arm; the number is the seed. Runs of one seed start from the same SFT model and so make pairs.
progress, drift and reward need matplotlib; reward needs scipy too.
"""
import argparse
import itertools
import json
import math
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import lean_check  # noqa: E402

PHASES = ("conjecture", "prove", "reward", "train")  # of an iteration's seconds; others are parts of these
NEEDED = ("iteration", "given", "proved", "proofs", "tokens", "hist_given", "hist_conjectures", "seconds",
          "kept")
PACKED = (*NEEDED, "len_conjectures", "distinct_kept", "unused_hypothesis", "heldout")
BASE = "stp"  # the arm that the others are compared with


def fail(message):
    print(f"figures.py: {message}", file=sys.stderr)
    sys.exit(2)


# ------------------------------------------------------------------------------------------------------- runs


def load_folder(run):
    """Metrics of a run folder; the last row gets "heldout", pass@1 on held-out statements, if it was scored:

    of stage 3's model, else of the newest one of self-play; of several scores that of most samples counts.
    """
    rows = list(lean_check.read_jsonl(f"{run}/metrics.jsonl"))
    n = len(rows)
    models = ["sft", *(name for t in range(n) for name in (f"restart_{t:02d}", f"iter_{t:02d}/model"))]
    last = [name for name in models if Path(run, name).exists()][-1:]
    for model in (f"final_{n:02d}", f"final_{n:02d}_given", *last) if rows else ():
        files = sorted(Path(run).glob(f"eval/{model.replace('/', '_')}_{'?' * 16}/result.json"))
        scores = [json.loads(file.read_text()).get("heldout", {}) for file in files]
        if best := max(scores, key=lambda s: max((int(k.split("@")[1]) for k in s), default=0), default=None):
            rows[-1].setdefault("heldout", best["pass@1"][0])
    return rows


def load_runs(args):
    """{run: its metrics, one dict an iteration}, of the folders args.run and of the packed file args.runs."""
    runs = [{"run": Path(run).resolve().name, "metrics": load_folder(run)} for run in args.run]
    if args.runs or not args.run:
        runs += lean_check.read_jsonl(args.runs or HERE / "runs.jsonl")
    loaded = {}
    for run in runs:
        if not {"run", "metrics"} <= run.keys():
            fail(f'{args.runs}: a line without "run" and "metrics"; expected a file made by pack')
        name, rows = run["run"], run["metrics"]
        if name in loaded:
            fail(f"two runs have the name {name}: rename one folder")
        if not rows:
            fail(f"run {name} has no finished iteration")
        for row, key in itertools.product(rows, NEEDED):
            if key not in row:
                fail(f'run {name} has an iteration without "{key}": not metrics of stp.py')
        loaded[name] = rows
    return loaded or fail(f"{args.runs}: no runs")


def by_arm(runs):
    """{arm: {seed: metrics}}; the seed is the number at the end of the run's name, or ""."""
    arms = defaultdict(dict)
    for name, rows in runs.items():
        arm, seed = re.fullmatch(r"(.*?)(?:_(\d+))?", name).groups(default="")
        arms[arm][seed] = rows
    return arms


def pack(args):
    """Write runs into one small file: a line a run, with what tables and pictures need."""
    runs = load_runs(args)
    with open(f"{args.out}.tmp", "w", encoding="utf-8") as f:
        for name, rows in runs.items():
            rows = [{key: row[key] for key in PACKED if key in row} for row in rows]
            for row in rows:
                row["seconds"] = {phase: row["seconds"][phase] for phase in PHASES}
            f.write(json.dumps({"run": name, "metrics": rows}, separators=(",", ":")) + "\n")
    os.replace(f"{args.out}.tmp", args.out)
    print(f"{len(runs)} runs: {args.out}")


# ------------------------------------------------------------------------------------------------------ table


def proved_at(proofs, rows):
    """Given statements proved after so many proofs (n,), linear between iterations, nan outside the run."""
    x, y = [m["proofs"] for m in rows], [m["proved"] for m in rows]
    return np.interp(proofs, x, y, left=math.nan, right=math.nan)


def measures(proofs, rows):
    """(n + 3,): proved_at, proved at the run's end, thousands of proofs until half of the given are proved,
    percent pass@1 on held-out statements.

    A run that has little left to prove samples less, so its end may come before the last of `proofs`.
    """
    x, y, middle = [m["proofs"] for m in rows], [m["proved"] for m in rows], rows[0]["given"] / 2
    n = np.searchsorted(y, middle) + 1  # to the first iteration with so many
    half = np.interp(middle, y[:n], x[:n], right=math.nan)
    heldout = 100 * rows[-1].get("heldout", math.nan)
    return np.append(proved_at(proofs, rows), [rows[-1]["proved"], half / 1000, heldout])


def mean_and_error(values):
    """Mean of values (seeds, ...) over seeds and its standard error, which is nan for one seed."""
    error = np.std(values, axis=0, ddof=1) if len(values) > 1 else np.full(np.shape(values)[1:], math.nan)
    return np.mean(values, axis=0), error / math.sqrt(len(values))


def cells(values):
    """Mean ± standard error over seeds of values (seeds, n); a dash where a seed has not come so far."""
    for mean, error in zip(*mean_and_error(values), strict=True):
        text = f"{mean:.1f}" if math.isnan(error) else f"{mean:.1f} ± {error:.1f}"
        yield "–" if math.isnan(mean) else text


def paired_cells(values):
    """The same for differences (pairs, n), with the number of pairs that have the mean's sign."""
    for mean, error, pairs in zip(*mean_and_error(values), values.T, strict=True):
        text = f"{mean:+.1f}" if math.isnan(error) else f"{mean:+.1f} ± {error:.1f}"
        text += f", {sum(np.sign(pairs) == np.sign(mean))} of {len(pairs)}"
        if not abs(mean) > 2 * error:
            text += ", open"
        yield "–" if math.isnan(mean) else text


def print_rows(head, *rows):
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(map(str, row))} |")


def table(args):
    """Print proved given statements at equal numbers of proofs: each arm, then differences to arm stp."""
    runs = load_runs(args)
    arms, rows = by_arm(runs), []
    most = max(rows[-1]["proofs"] for rows in runs.values())
    step = next(s for k in itertools.count() for s in (10**k, 2 * 10**k, 5 * 10**k) if most < 7 * s)
    at = range(step, most + 1, step)  # at most six columns, at round numbers
    head = [*(f"{x:,}" for x in at), "end", "half", "held out"]
    for arm, seeds in arms.items():
        proved = [[metrics[0]["proved"], *measures(at, metrics)] for metrics in seeds.values()]
        tokens = np.mean([metrics[-1]["tokens"] for metrics in seeds.values()])
        seconds = sum(m["seconds"][phase] for m in itertools.chain(*seeds.values()) for phase in PHASES)
        minutes = seconds / len(seeds) / 60
        rows.append([arm, len(seeds), *cells(proved), f"{tokens / 1e6:.1f}M", f"{minutes:.0f}"])
    given = sorted({metrics[0]["given"] for metrics in runs.values()})
    print(f"Proved given statements, of {' or '.join(map(str, given))}, after so many proofs sampled: mean ± "
          "standard error over seeds.\nStart, end: after the first and the last iteration. Half: thousands "
          "of proofs until half of the given\nstatements are proved. A dash: a seed never gets there, or has "
          "ended before. Held out: pass@1 of the\nlast model, in %. Tokens, minutes: of all iterations.\n")
    print_rows(["arm", "seeds", "start", *head, "tokens", "minutes"], *rows)

    base, rows = arms.pop(BASE, {}), []
    for arm, seeds in arms.items():
        pairs = sorted(seeds.keys() & base.keys())
        if pairs:
            differences = np.array([measures(at, seeds[s]) - measures(at, base[s]) for s in pairs])
            rows.append([arm, len(pairs), *paired_cells(differences)])
    if rows:
        print(f"\nDifferences to {BASE} with the same seed: mean ± standard error, pairs with its sign. "
              "Open: under two errors.\n")
        print_rows([f"arm minus {BASE}", "pairs", *head], *rows)


# --------------------------------------------------------------------------------------------------- pictures


def pyplot():
    try:
        import matplotlib
    except ImportError:
        fail("pictures need matplotlib: pip install matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    return plt


def save(figure, path):
    try:
        figure.savefig(path, dpi=110, metadata={"Software": None})
    except ValueError as e:  # an ending that is no picture's
        fail(f"--out {path}: {e}")
    print(f"drawn: {path}")


def progress(args):
    """Draw proved given statements against proofs sampled, and pass rates early and late."""
    runs, plt = load_runs(args), pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for arm, seeds in by_arm(runs).items():
        x = np.linspace(max(rows[0]["proofs"] for rows in seeds.values()),
                        min(rows[-1]["proofs"] for rows in seeds.values()), 200)
        mean, error = mean_and_error([proved_at(x, rows) for rows in seeds.values()])
        line, = left.plot(x, mean, label=f"{arm} ({len(seeds)} seeds)" if len(seeds) > 1 else arm)
        left.fill_between(x, mean - error, mean + error, color=line.get_color(), alpha=0.2, linewidth=0)
    left.set(xlabel="proofs sampled", ylabel="given statements proved so far", xlim=(0, None),
             title="cumulative proved, mean and standard error")

    rows = [m for rows in runs.values() for m in rows if sum(m["hist_conjectures"])]
    times = [m["iteration"] for m in rows] or [0]
    periods = {"early": [m for m in rows if m["iteration"] < min(times) + 3],
               "late": [m for m in rows if m["iteration"] > max(times) - 3]}
    hists = {"hist_conjectures": "conjectures", "hist_given": "unproved given"}
    for i, (key, label) in enumerate(hists.items()):
        for j, (when, chosen) in enumerate(periods.items()):
            total = np.sum([m[key] for m in chosen] or [[0] * 9], 0)
            right.bar(np.arange(9) + 0.2 * (2 * i + j - 1.5), total / max(1, total.sum()), 0.2, color=f"C{i}",
                      alpha=0.5 + 0.5 * j, label=f"{label}, {when}")
    right.set(xlabel="pass rate (0, then eighths)", ylabel="share of statements", xticks=range(9),
              yscale="log" if rows else "linear", xticklabels=["0"] + [f"≤{b}/8" for b in range(1, 9)],
              title="pass rates, first and last three iterations with conjectures")
    for axis in (left, right):
        axis.legend(fontsize=8)
    save(figure, args.out)


def drift(args):
    """Draw how conjectures change over iterations: length, distinct ones, unused hypotheses."""
    runs, plt = load_runs(args), pyplot()
    measures = {"len_conjectures": "mean characters of a conjecture",
                "distinct_kept": "kept conjectures that differ in more than names",
                "unused_hypothesis": "kept conjectures with an unused hypothesis"}
    keys = [key for key in measures if any(key in m for m in itertools.chain(*runs.values()))] or fail(
        "no run has measures of drift")
    figure, axes = plt.subplots(1, len(keys), figsize=(13, 3.6), layout="constrained", squeeze=False)
    for axis, key in zip(axes[0], keys, strict=True):
        for arm, seeds in by_arm(runs).items():
            values = defaultdict(list)  # of the seeds, by iteration
            for m in itertools.chain(*seeds.values()):
                if m["kept"] and key in m:  # no conjectures, no mean
                    values[m["iteration"]].append(m[key])
            if values:
                axis.plot(sorted(values), [np.mean(values[t]) for t in sorted(values)], label=arm)
        axis.set(xlabel="iteration", title=measures[key])
        axis.legend(fontsize=7)
    save(figure, args.out)


# ----------------------------------------------------------------------------------------------------- reward


def lp_cost(cost, limit):
    """Least sum_ij pi_ij cost_ij over pi >= 0 with sum_i pi_ij = 1/M, sum_j pi_ij <= limit_i/N, by HiGHS.

    cost (N, M). limit: kappa, for the optimum; or weights (N,), for a plan with just these (their mean is 1).
    """
    try:
        from scipy import optimize, sparse
    except ImportError:
        fail("the exact LP needs scipy: pip install scipy")
    n, m = cost.shape
    rows = sparse.kron(sparse.eye(n), np.ones((1, m)))
    columns = sparse.kron(np.ones((1, n)), sparse.eye(m))
    solution = optimize.linprog(np.ravel(cost), A_ub=rows, b_ub=np.broadcast_to(limit, n), A_eq=columns,
                                b_eq=np.full(m, n / m), method="highs")  # masses times N: near 1
    return solution.fun / n


def cosine_costs(e, u):
    """1 - cos(e_i, u_j), (N, M), of e (N, d) and u (M, d)."""
    e, u = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (e, u))
    return 1 - e @ u.T


def clusters(n, m, d):
    """Embeddings (n, d) of conjectures and (m, d) of statements: eight clusters, unevenly filled."""
    draw = np.random.default_rng(n)
    centres, sizes = draw.standard_normal((8, d)), draw.random(8)**2
    return [draw.choice(centres, k, p=sizes / sizes.sum()) + 0.5 * draw.standard_normal((k, d))
            for k in (n, m)]


def reward(args):
    """Compare greedy and uniform weights with an exact LP, and draw them for two clusters."""
    import torch

    from reward import reweight
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def timed_weights(e, u, kappa):
        e, u = (torch.from_numpy(x).float().to(device) for x in (e, u))
        start = time.perf_counter()
        return reweight(e, u, kappa).numpy(), time.perf_counter() - start

    print(f"Cost of the best plan with these weights, over the optimum (exact LP); d = 512; {device}\n"
          "    N      M  kappa  uniform   greedy  seconds")
    for n, m in (50, 100), (150, 300), (300, 600):
        e, u = clusters(n, m, 512)
        cost = cosine_costs(e, u)
        for kappa in (1.5, 4.0):
            w, seconds = timed_weights(e, u, kappa)
            uniform, greedy = (lp_cost(cost, limit) / lp_cost(cost, kappa) for limit in (1, w))
            print(f"{n:5} {m:6} {kappa:6} {uniform:8.3f} {greedy:8.4f} {seconds:8.2f}", flush=True)
    _, seconds = timed_weights(*clusters(7_000, 65_000, 512), 4.0)
    print(f" 7000  65000    4.0        -        - {seconds:8.2f}")
    draw_reweighting(args.out, lambda *instance: timed_weights(*instance)[0])


def draw_reweighting(path, greedy, kappa=2.0):
    """Two clusters in the plane; most conjectures lie in one, most unproved statements in the other."""
    plt, draw = pyplot(), np.random.default_rng(5)
    angles = (np.concatenate([draw.normal(0.5, 0.17, n), draw.normal(1.2, 0.13, m)])
              for n, m in ((30, 12), (12, 30)))
    e, u = (np.stack([np.cos(angle), np.sin(angle)], 1) for angle in angles)
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.9), layout="constrained")
    weights = {"uniform": np.ones(len(e)), "greedy": greedy(e, u, kappa)}
    for axis, (name, w) in zip(axes, weights.items(), strict=True):
        cost = lp_cost(cosine_costs(e, u), w)
        axis.scatter(*(1.06 * u).T, marker="x", c="tab:red", s=24, label="unproved statements")
        axis.scatter(*e.T, marker=".", c="black", s=6, label="conjectures")
        axis.scatter(*e.T, c="tab:blue", s=90 * w, alpha=0.4, label=f"their weights (area, <= {kappa:g})")
        axis.set(title=f"{name}: cost {cost:.4f}", aspect="equal", xticks=[], yticks=[])
    axes[0].legend(loc="lower left")
    save(figure, path)


# ------------------------------------------------------------------------------------------------------- lean

STATEMENT = "theorem t1 (p q r : Prop) (h : p ∧ q) (g : q → r) : r ∧ p := by"
RIGHT, WRONG = "\n  have a{} := h.2\n  exact ⟨g a{}, h.1⟩", "\n  have a{} := h.2\n  exact ⟨h.1, g a{}⟩"
HANG = {"statement": STATEMENT, "proof": "\n  repeat (first | (have a := 1) | skip)"}
FAKE = '''#!PYTHON
import json, re, sys, time
if "--version" in sys.argv:
    print("Lean (version 4.20.0, x86_64-unknown-linux-gnu, commit 0, Release)")
    sys.exit(0)
hang = False
for n, line in enumerate(open(sys.argv[-1]), 1):
    hang = hang or "hang" in line
    if m := re.match('#print (?:axioms )?"?([^"\\\\n]*)', line):
        time.sleep(9999 if hang else SECONDS)
        data = m[1] if '"' in line else f"'{m[1]}' does not depend on any axioms"
        pos = {"line": n, "column": 0}
        print(json.dumps({"severity": "information", "pos": pos, "data": data}), flush=True)
'''


def attempts(n, wrong=False):
    """n different attempts; wrong: every other proof is wrong."""
    return [{"statement": STATEMENT, "proof": (WRONG if wrong and i % 2 else RIGHT).replace("{}", str(i))}
            for i in range(n)]


def checked(rows, workers, lean, **limits):
    """Seconds of the checker on rows; it must find what is right, what is wrong, what hangs."""
    start = time.monotonic()
    found = Counter(a["verdict"] for a in lean_check.check(rows, lean=lean, workers=workers, **limits))
    seconds = time.monotonic() - start
    assert found["crashed"] == found["rejected"] == 0 and found["timeout"] == rows.count(HANG), found
    return seconds


def bare(rows, copies, lean):
    """Seconds of bare Leans, copies of them side by side, each on one file with all rows."""
    text = "".join(lean_check.template(a["statement"], a["proof"]).replace("\0", f"X{i}")
                   for i, a in enumerate(rows))
    with tempfile.NamedTemporaryFile("w", suffix=".lean") as f:
        f.write(text)
        f.flush()
        start, command = time.monotonic(), [*lean_check.find_lean(lean)[0], f.name]
        processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(copies)]
        for process in processes:
            process.wait()
        return time.monotonic() - start


def utilisation(workers=16, n=36_000, seconds=0.01, timeout=4.0, share=0.003):
    """Share of the workers' time in which a fake Lean is at work: n attempts, a share of which hangs."""
    step = round(1 / share)
    rows = [HANG | {"proof": f"\n  hang{i}"} if i % step == 7 else a for i, a in enumerate(attempts(n))]
    hanging = sum("hang" in a["proof"] for a in rows)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "lean")
        with open(path, "w") as f:
            f.write(FAKE.replace("PYTHON", sys.executable).replace("SECONDS", str(seconds)))
        os.chmod(path, 0o755)
        start = time.monotonic()
        checked_rows = lean_check.check(rows, lean=path, workers=workers, timeout=timeout)
        found = Counter(a["verdict"] for a in checked_rows)
        wall = time.monotonic() - start
    assert found == {"proved": n - hanging, "timeout": hanging}, found
    return ((n - hanging) * seconds + hanging * timeout) / workers / wall


def lean(args):
    """Prints the checker's speed beside that of bare Lean: medians of rounds in which the arms take turns."""
    workers = args.workers or len(os.sched_getaffinity(0))
    if workers < 1 or args.rounds < 1:
        fail("--workers and --rounds must be above 0")
    good, half = attempts(1000 * workers), attempts(1000 * workers, wrong=True)

    def marginal(copies):  # proofs/s of bare Leans beyond their start
        return 500 * copies / (bare(good[:600], copies, args.lean) - bare(good[:100], copies, args.lean))

    rows = [(workers / bare(good[:1], workers, args.lean), marginal(workers),
             len(good) / checked(good, workers, args.lean), len(half) / checked(half, workers, args.lean))
            for _ in range(args.rounds)]
    one, beside, right, mixed = (list(arm) for arm in zip(*rows, strict=True))

    def show(name, values):
        print(f"{name:66} {statistics.median(values):8.2f}  ({min(values):.2f} to {max(values):.2f})")

    print(f"{workers} workers, {len(good)} proofs, medians of {args.rounds} rounds (and the range), proofs/s")
    show("one Lean process a proof, all workers", one)
    show("as many bare Leans as workers, beyond their start", beside)
    show("this checker, all proofs right", right)
    show("  ratio to one process a proof", [a / b for a, b in zip(right, one, strict=True)])
    show("  ratio to as many bare Leans", [a / b for a, b in zip(right, beside, strict=True)])
    show("this checker, every other proof wrong (second pass included)", mixed)
    show("  ratio to one process a proof", [a / b for a, b in zip(mixed, one, strict=True)])
    slow = [checked([*good[:500], HANG, *good[500:1000]], workers, args.lean, timeout=5.0, heartbeats=0)
            - checked(good[:1000], workers, args.lean) for _ in range(args.rounds)]
    show("1 proof of 1,000 hangs, timeout 5 s: seconds more", slow)
    show("utilisation: 16 workers, a fake Lean, 0.3% at the limit", [utilisation()])


# ---------------------------------------------------------------------------------------------- command line


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    outputs = {pack: HERE / "runs.jsonl", table: None, progress: "progress.png", drift: "drift.png",
               reward: "reweighting.png"}
    for function, output in outputs.items():
        command = commands.add_parser(function.__name__, help=function.__doc__, description=function.__doc__)
        command.set_defaults(function=function)
        if function is not reward:
            command.add_argument("run", nargs="+" if function is pack else "*", metavar="RUN",
                                 help="run folder of stp.py; without any: the runs of --runs")
            command.add_argument("--runs", metavar="FILE", help="file made by pack (docs/runs.jsonl)")
        if output:
            command.add_argument("--out", default=output, metavar="FILE", help="file to write (%(default)s)")
    command = commands.add_parser("lean", help=lean.__doc__, description=lean.__doc__)
    command.set_defaults(function=lean)
    command.add_argument("--lean", default=shlex.join([sys.executable, str(HERE.parent / "tiny" / "lean")]),
                         metavar="COMMAND", help="Lean command (%(default)s)")
    command.add_argument("--workers", type=int, default=0, metavar="N", help="Lean processes; 0: one a core")
    command.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds (%(default)s)")
    args = parser.parse_args(argv)
    try:
        args.function(args)
    except lean_check.LeanError as e:
        fail(e)
    except lean_check.UserError as e:
        fail(f"{e}; expected run folders of stp.py, or --runs FILE")
    except OSError as e:
        fail(f"cannot write: {e}")


if __name__ == "__main__":
    main()
