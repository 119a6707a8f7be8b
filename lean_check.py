"""Checks Lean 4 proofs written by a model: many theorems a process, verdicts that no neighbour can change.

    python lean_check.py attempts.jsonl --out verdicts.jsonl --lean_project ~/mathlib --header_file h.lean

Input lines are {"statement": "theorem t ... := by", "proof": "...", "header"?: "import ..."}; output lines,
in the same order, repeat them and add "verdict", "message" (Lean's first error, or the reason), "axioms" and
"seconds". Exit status: 0, 1 when something crashed, 2 for bad input. The verdicts:
  proved    no error in the theorem's own lines, and `#print axioms` shows that the theorem exists and uses no
            axiom beyond propext, Classical.choice and Quot.sound
  failed    Lean does not accept it (in brackets: so no `where` or `termination_by` behind it), it needs more
            than --memory, or it kills Lean
  timeout   more than --timeout seconds or --heartbeats
  rejected  leaves a gap, or tries something that no honest proof needs; the message names it
  crashed   the header, Lean or the machine failed: says nothing about the proof

Why a verdict can be trusted:
1. Lean reports each theorem's axioms under a name that cannot be guessed; with an error none is proved. What
   code in a theorem might write goes to stderr, which decides nothing.
2. Text that Lean might read differently than `lex` is refused, so proposition and proof cannot leave the
   brackets put around them: a command in them is a parse error.
3. After a parse error Lean goes on and may run what follows in a text, so "proved" counts only where nothing
   failed before in the same process: what was proved behind a failure runs again, among such theorems only.
4. What failed behind a text in which Lean so went on runs again without that text, and a theorem runs again
   alone when its axioms may be a neighbour's or when Lean died while checking it. One with `open` or a name
   like t.match_1 always runs alone: a neighbour may have made what it opens, or taken what it names.
5. What runs code without a parse error, or searches the file, is refused by the lists below.
This is no sandbox: Lean, its kernel, the header and the libraries are trusted. Finished proofs deserve
a second look by lean4checker, lean4lean or SafeVerify. Lean is niced: what feeds GPUs comes first.
"""
import argparse
import bisect
import collections
import contextlib
import functools
import hashlib
import itertools
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types

from tqdm import tqdm

AXIOMS = {"propext", "Classical.choice", "Quot.sound"}  # the axioms of ordinary mathematics in Lean
PARSE_ERROR = re.compile(r"([a-z][^\n]* )?(un)?expected\b|missing |unterminated |invalid |tabs "  # beginnings
                         "|unknown (tac|parser)|ambiguous parser|failed to determine")
ENV = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}:{os.environ.get('PATH', os.defpath)}"}
HEADER_TIMEOUT, HEADER_TRIES = 600.0, 3  # seconds (a cold import from a slow disk); processes
BATCH, GRACE = 500, 0.05  # theorems a Lean process, at most; seconds a worker waits for a full batch
HELD = 500_000  # attempts held at most: they wait for their verdict, or for an earlier one


class UserError(Exception):
    """Bad input: printed as one line, exit status 2."""


class LeanError(UserError):
    """Lean cannot be used at all."""


class Refused(ValueError):
    """Text that is not handed to Lean; args: verdict, message."""


# ---------------------------------------------------------------------------------------- reading Lean text

REFUSED = {word: reason for reason, words in {
    "runs code": """by_elab by_elabq elab elab_rules include_str macro macro_rules run_tac run_tacq run_conv
        run_cmd run_elab run_meta native_decide plausible slim_check with_panel_widgets show_panel_widgets
        bv_check bv_decide? from_lrat pi_lower_bound pi_upper_bound success_if_fail_with_msg println! IO EIO
        BaseIO Lean System Internal unsafe unsafeIO unsafeEIO unsafeBaseIO unsafePerformIO unsafeCast
        reduceBool reduceNat ofReduceBool ofReduceNat""",
    "names a declaration": "decl_name with_decl_name proxy_equiv derive_fintype",
    "a search": "exact? apply? rw? have? have?! have!? try? observe? rw_search polyrith",
}.items() for word in words.split()}  # as a part of a longer name, too
COMMANDS = {"theorem", "axiom", "variable", "instance", "example", "notation"}  # no term in our brackets
GAPS = {"sorry", "admit", "sorryAx"}  # in a statement, or a header
OPTIONS = tuple("""pp. trace. linter. tactic. synthInstance. maxRecDepth maxHeartbeats autoImplicit Nat.
 backward. relaxedAutoImplicit simprocs push_cast maxSynthPendingDepth""".split())
BRACKETS = {"(": ")", "[": "]", "{": "}", "⟨": "⟩", "⦃": "⦄"}
BINDER_ENDS = {",", "=>", "↦", ":=", "then", "with", "from"}  # one of them follows `∀ x : T`
# A tactic stands behind one of LEADS, or begins a line; not where the line before ends in one of CONTINUED (a
# term goes on, no tactic ends so), nor behind a bracket or dot in a column where none has stood. What is in
# its `(name := term)` Lean compiles and runs, if it is a TERM: more than literals, names and constructors.
CONTINUED = {*""":= : , ⟨ [ <| $ ▸ ↦ ∘ = ≠ < ≤ > ≥ ∈ ∧ ∨ → ↔
 using exact refine refine' apply from show calc""".split()}
ARROWS = {"fun", "λ", "=>", "↦", ";", "·", "by", "by?"}  # the next => behind the first two is a function's
LEADS = "|".join(r"""by by\? decreasing_by decreasing_with try try_this in with first solve repeat1?'? then
 else checkpoint all_goals any_goals focus show_term classical unhygienic recover says fail_if_success
 squeeze_scope fail_if_no_progress check_tactic_fails map_tacs\s*\[ iterate(?:\s+\d\w*)? with_\w+""".split())
TACTIC = re.compile(rf"""(?:^[ ]*|([;·]|(?<!<)\||(?<![^\s({{;])\.(?=\s|hint\b)|=>|<;>(?:\s*\[)?
 |\b(?:disch|discharger|norm)\s*:=|(?<![A-Za-z_])(?:{LEADS})(?![\w'?!]))\s*)
 ((?:[({{.]\s*)*+)(?=([a-z_]\w*[?!'*]*)?)""", re.M | re.X)
SEARCH = re.compile(r"""(?:hint|observe|propose)(?![\w.'])(?!\s*:=)|trace(?![\w.'])(?!\s*")""")
OPTION = r"(?:[\w.'!?]|«[^»]*»)+"
CONFIGURATION = re.compile(rf"""\s*(?:only\b|[!?*]|[+-]{OPTION}
 |([\[(])(?:(?<=\[)|\s*(?:add|erase)\b|\s*({OPTION})\s*:=))""", re.X)
TERM = re.compile(r"""[^\w.'"\s{}\[\](),:=]|:(?!=)|[\w\])}⟩'"]\s*[\[({⟨]|[\w\])}⟩'"]\s+[\w"'.]
 |[\])}⟩'"]\.|\b\d\w*\.[^\W\d]""", re.X)  # an operator, a type, an application (twice), a projection (twice)
LETTER = ("A-Za-z_\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u017f\u0391-\u039f\u03a1\u03a2\u03a4-\u03a9\u03b1-\u03ba"
          "\u03bc-\u03fb\u1f00-\u1ffe\u2100-\u214f\U0001d49c-\U0001d59f")
PART = rf"(?:[{LETTER}][{LETTER}0-9'!?\u2080-\u2089\u2090-\u209c\u1d62-\u1d6a\u2c7c]*|«[^»]*»)"
ESCAPE = r"""\\(?:[\\"'rnt]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})"""
STRING_ESCAPE = re.compile(rf"{ESCAPE}|\\\n\s*")
TOKEN = re.compile(rf"""[ \t\r\n]*(?:(?P<comment>--[^\n]*|/-)
 |(?P<string>"[^"\\]*(?:\\.[^"\\]*)*"|r(\#*)".*?"\3)|(?P<open>r\#*"|"|«(?![^»]*»))
 |(?P<name>`{{0,2}}{PART}(?:\.{PART})*)
 |(?P<number>0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|[0-9]+(?:_[0-9]+)*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
 |(?P<char>(?<![^\s(\[{{⟨⦃,])'(?:[^\\']|{ESCAPE})')
 |(?P<symbol>:=|::|<\+:|<:\+:?|=>|->|<-|<=|>=|!=|==|&&|\|\||\+\+|<\|>|<\||\|>|<;>|\.\.|''|∃!|[^ \t\r\n])
 )""", re.X | re.S)


# kind: comment, string, char, name, number, symbol; start: its place; depth: brackets open around it
Token = collections.namedtuple("Token", "kind word start depth")


def lex(text):
    """Lean text -> list of Token, read by Lean's rules and not judged; Refused: unclosed."""
    tokens, depth, i = [], 0, 0
    while m := TOKEN.match(text, i):
        kind, word, start, i = m.lastgroup, m[m.lastgroup], m.start(m.lastgroup), m.end()
        if word == "/-":
            inside, kind = 0, "open"
            for m in re.compile("/-|-/").finditer(text, start):
                inside += 1 if m[0] == "/-" else -1  # block comments nest
                if not inside:
                    kind, word, i = "comment", text[start:m.end()], m.end()
                    break
        if kind == "open":
            raise Refused("failed", f"unclosed comment or string: {text[start:start + 20]!r}")
        depth -= depth > 0 and word in BRACKETS.values()
        tokens.append(Token(kind, word, start, depth))
        depth += word in BRACKETS
    return tokens


def scan(text, limit=0, first=()):
    """Lean text -> (the text, comments blanked out; its other tokens). Refused: Lean must not see it.

    limit: the largest maxHeartbeats it may set, 0: any. first: words a statement begins with; none: a proof.
    """
    text = text.replace("\r\n", "\n")
    code, tokens, open_, closed, before, end = [], [], [], {}, "", 0
    every = lex(text)
    words = [t.word for t in every if t.kind != "comment"] + [""]
    for token in every:
        kind, word, start, _ = token
        if kind == "comment":
            if word[:3] in ("/--", "/-!") and (tokens or not first):
                raise Refused("rejected", "a doc comment inside the text")
            code += text[end:start], re.sub(r"[^\n]", " ", word)
            end = start + len(word)
            continue
        plain = word.replace("«", "").replace("»", "").lstrip("`") if kind == "name" else word
        after, behind = words[len(tokens) + 1], text[start + len(word):start + len(word) + 2]
        reason = "a command" if word in COMMANDS else refusal(kind, plain, before, after, behind, limit)
        if reason and (tokens or word not in first):
            raise Refused("rejected", f"{word[:40]}: {reason}")
        if word in BRACKETS:
            open_.append(start)
        elif word in BRACKETS.values():
            if not open_ or BRACKETS[text[open_[-1]]] != word:
                raise Refused("failed", f"unexpected '{word}'")
            closed[open_.pop()] = start
        tokens.append(token)
        before = plain
    code = "".join(code) + text[end:]
    if open_ or any(t.depth > 200 for t in tokens):  # Lean's own recursion limit is near
        raise Refused("failed", f"no bracket closes '{text[open_[-1]]}'" if open_ else "brackets too deep")
    if m := re.search("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]", code):
        raise Refused("rejected", f"control character U+{ord(m[0]):04X}")
    if not first or any(t.word in ("by", "by?", "decreasing_by") for t in tokens[:-1]):
        check_tactics(code, tokens, closed, not first and re.match(r"\s*\n", code))
    return code, tokens


def refusal(kind, word, before, after, behind, limit):
    """Why Lean must not see a word, or None. before, after: its neighbours; behind: text after it."""
    if kind == "name":
        if before == "set_option" and not word.startswith(OPTIONS):
            return "an option that is not on the list"
        if before == "#" and word in ("leansearch", "loogle", "moogle", "search", "statesearch"):
            return "a search"
        if word == "eval" and (before == "#" or behind[:1] == "%"):
            return "runs code"
        flag = before == "+" or before in ("(", "{", ",", "with") and after == ":="
        if word in ("native", "locals", "premises", "suggestions") and flag:
            return "a flag that runs code or searches the file"
        if word == "unsafe" and before == "add":  # a rule for aesop
            return None
        return next((REFUSED[part] for part in word.split(".") if part in REFUSED), None)
    if word == "∎":
        return "a search"
    if kind == "number" and limit and before.endswith("maxHeartbeats"):
        fits = re.fullmatch("[0-9_]+", word) and 0 < int(word) <= limit
        return None if fits else f"beyond the limit of {limit}"
    if kind == "number" and re.match(f"[{LETTER}«]", behind):
        return "a number that runs into a name"  # as in `iterate 1simp`
    if kind == "string" and ("{" in word or word[0] == '"' and "\\" in STRING_ESCAPE.sub("", word)):
        return "a brace, in which Lean may run code, or an escape that Lean has not"
    if word == "'" and re.match(r"""\\|["'(){}\[\]⟨⟩⦃⦄«»]'""", behind):
        return "could start a character literal"  # as in xs[i]'(', where ]' is a token or not
    return "an attribute" if word == "@" and behind[:1] == "[" else None


def check_tactics(code, tokens, closed, columns):
    """Refuses tactics that run a term or search.

    tokens: of the code; closed: bracket -> its other one; columns: does Lean see the columns of code?
    """
    text, places, used = list(code), [t.start for t in tokens], set()
    words = ["" if code[t.start - 1:t.start] == "." else t.word for t in tokens]  # .from is a name
    for before, t in itertools.pairwise(tokens):
        if before.word in ("<;>", "map_tacs") and t.word == "[":  # a list of tactics
            text[t.start:closed[t.start]] = code[t.start:closed[t.start]].replace(",", ";")
    for m in TACTIC.finditer(code := "".join(text)):
        behind, tactic, i = m[1], m[3], m.end(3)
        k = bisect.bisect_left(places, m.start())
        starts = {at - code.rfind("\n", 0, at) for at in range(*m.span(2)) if code[at] > " "}
        starts.add(m.end(2) - code.rfind("\n", 0, m.end(2)))
        if behind is None and k and (words[k - 1] in CONTINUED or
                                     columns and (m[2] or not tactic) and not used & starts):
            continue  # not a tactic, but its argument
        used |= starts
        if not tactic:
            continue
        before = (words[j] for j in range(k - 1, -1, -1) if words[j] in ARROWS)
        if behind == "=>" and next(before, "") in ("fun", "λ"):
            continue  # the body of a function
        if m[0] != "|" and SEARCH.match(code, m.end(2)):  # not as in |trace A|
            raise Refused("rejected", f"the tactic '{tactic}': a search, or runs a term")
        while m := CONFIGURATION.match(code, i):  # only, ! or +flag; [...] and (add ...) as a whole; (name :=
            i = closed.get(m.start(1), m.end()) + 1 if m[1] else m.end()
            value = code[m.end():i - 1] if m[2] and m[2] not in ("disch", "discharger", "norm") else ""
            value = re.sub(r"(?<!\w)(?:Occurrences)?\.(pos|neg)\s+(?=\[)", "", value.replace(" with ", ", "))
            if TERM.search(value):
                raise Refused("rejected", f"a term in the configuration of '{tactic}': Lean would run it")


def template(statement, proof=None, limit=0):
    """Lean text of one theorem, with \\0 for the secret in its name; Refused: must not reach Lean.

    proof: None leaves it out. In our brackets the proposition cannot bring its own proof, nor the proof be
    followed by commands. Columns are kept.
    """
    head, column, name = split_statement(statement, limit)
    body = "sorry"
    if proof is not None:
        code = scan(proof, limit)[0]
        blank = code[:len(code) - len(code.lstrip())]
        others = [len(m) for m in re.findall(r"\n( *)(?=[^ \n])", code)]
        if blank.endswith("\n") and code.strip():  # only in brackets may it stand in column 0
            raise Refused("failed", "the proof is not indented")
        if "\n" not in blank and others and 1 < len(blank) <= min(others) < column + 2 + len(blank):
            code = "\n" + code  # all lines indented, but the first has lost its line break
        body = f"{' ' * column}by{'' if blank else ' '}{code}"
    return f"{head}\n):=(\n{body}\n)\n#print axioms {name}\n"


@functools.lru_cache(10_000)
def split_statement(statement, limit):
    """(`theorem secret_name binders :( T`, column of its `by`, secret name)."""
    code, tokens = scan(statement, limit, ("theorem", "lemma"))
    words = [t.word for t in tokens]
    if words[:1] not in (["theorem"], ["lemma"]) or words[-2:] != [":=", "by"] or tokens[1].kind != "name":
        raise Refused("rejected", "statement: not of the form 'theorem name ... : T := by'")
    (_, name, start, _), end, by = tokens[1], tokens[-2].start, tokens[-1]
    top = [t for t in tokens[2:-2] if t.depth == 0]
    colon, *more = [t.start for t in top if t.word == ":"] or [end]
    before = [t for t in top if t.start < colon and t.kind != "name" and t.word not in ".([{⟨⦃⦄⟩}])"]
    typed = more and not any(t.start > more[-1] and t.word in BINDER_ENDS for t in top)  # as `T : Prop`
    if by.depth or not code[colon + 1:end].strip() or before or typed:
        raise Refused("rejected", "statement: not one theorem with binders and one proposition")
    if ("let", "rec") in itertools.pairwise(words) or {*GAPS, "type_of"} & set(words):
        raise Refused("rejected", "sorry, let rec, type_of: left open, or the proof may choose what it means")
    secret = re.sub(f"(?<![^.`])({PART})$", "\0.\\1", name)  # its last part stays: a proof may call itself
    # Behind the secret even `fun` is a name; `namespace fun` fails, as `theorem fun` would. It takes 1 ms.
    asked = f"namespace {name}\nend {name}\n" if re.fullmatch(r"[^\d.«]{2,}|_|[^\0-~]", name) else ""
    column_t, column_by = (at - code.rfind("\n", 0, at) - 1 for at in (colon + 1, by.start))
    head = f"{asked}{code[:start].lstrip()}{secret}{code[start + len(name):colon]}:(\n"
    return f"{head}{' ' * column_t}{code[colon + 1:end]}", column_by, secret


def normal_form(statement):
    """A key: statements that differ only in theorem name, white space or comments have the same."""
    with contextlib.suppress(Refused):
        return " ".join([t.word for t in lex(statement) if t.kind != "comment"][2:])
    return " ".join(statement.split())


class Job:
    """One theorem for Lean, or one refused, which has its result at once; copies in the input share it."""

    def __init__(self, header, statement, proof, limit):
        self.header, self.text, self.result = header, "", None  # result: verdict, message, axioms, seconds
        try:
            self.text = template(statement, proof, limit)
        except Refused as e:
            self.finish(*e.args)
        self.good = False  # proved, but behind a failure: runs again among such jobs
        self.alone = bool(re.search(r"\bopen\b|\.«?(match|proof)?_", self.text))  # see 4 at the top
        self.tries = 0  # processes that did not get through the header

    def finish(self, verdict, message, axioms=(), seconds=0.0):
        self.text, self.result = "", (verdict, message[:2000], list(axioms), round(seconds, 4))


def find_lean(lean=None, project=None):
    """(command as a list, version) of the Lean to use; LeanError with one line that says what to do."""
    tiny = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tiny", "lean")
    name = lean or ("lake env lean" if project else "lean" if shutil.which("lean") else shlex.quote(tiny))
    argv = None
    with contextlib.suppress(ValueError):  # an unclosed quotation mark
        argv = shlex.split(name)
    if not argv or not shutil.which(argv[0]):
        raise LeanError(f"Lean not found: {name} (install Lean with elan, or name it with --lean)")
    argv[0] = os.path.abspath(shutil.which(argv[0]))
    try:
        out = subprocess.run([*argv, "--version"], cwd=project, env=ENV, stdin=subprocess.DEVNULL,
                             capture_output=True, timeout=300, text=True, errors="replace")
    except (OSError, subprocess.TimeoutExpired) as e:
        raise LeanError(f"{name} --version: {e}") from e
    m = re.search(r"Lean \(version ((\d+)\.(\d+)\.\d+\S*?),", out.stdout)
    if not m or (int(m[2]), int(m[3])) < (4, 9):
        raise LeanError(f"{name} is not Lean 4.9 or newer: --version says {(out.stdout or out.stderr)!r}")
    return argv, m[1]


def resident(pid):
    """Resident bytes of a process and its children (`lake env lean` has one)."""
    total = 0
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/statm") as f:
            total = int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            total += sum(map(resident, f.read().split()))
    return total


def end(p, why):
    p.why = why
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(p.pid, signal.SIGKILL)


def watch(pool):
    """Until all work is done, kills processes over a limit, and what an ended one has left running."""
    while not pool.stop:
        for p in list(pool.running):
            ended, late = p.poll() is not None, time.monotonic() > p.deadline
            if ended or late or resident(p.pid) > pool.memory * 1e9:
                end(p, p.why if ended else "timeout" if late else f"memory: more than {pool.memory:g} GB")
        time.sleep(0.1)


def went_on(messages):
    """Did Lean go on after a parse error, and maybe run commands? It then complains at least of our `)`."""
    places = [(m["pos"]["line"], m["pos"]["column"]) for m in messages]
    broken = [at for at, m in zip(places, messages, strict=True)  # Lean gives a parse error its full range
              if m["severity"] == "error" and (m.get("keepFullRange") or PARSE_ERROR.match(m["data"]))]
    return bool(broken) and max(places) > min(broken)


def judge(messages, report, sketch):
    """Lean's messages about one theorem, that of its `#print axioms` -> (verdict, message, axioms).

    sketch: its proof is left out, a `sorry` instead.
    """
    if m := next((m for m in messages if m["severity"] == "error"), None):
        late = "(deterministic) timeout" in m["data"] and m.get("kind", "runtime.").startswith("runtime.")
        return "timeout" if late else "failed", m["data"], []  # Lean before 4.15 has no kinds of messages
    answer = r"'.*' (?:does not depend on any axioms|depends on axioms:\s*\[(.*)\])"
    m = re.fullmatch(answer, report["data"].strip(), re.S)
    if report["severity"] == "error" or not m:
        return "failed", f"no theorem: {report['data']}", []
    axioms = re.split(r",\s*", m[1].strip()) if m[1] else []
    others = [a for a in axioms if a not in AXIOMS]
    if sketch and others != ["sorryAx"]:
        return "failed", f"brings its own proof, or axioms: {axioms}", axioms
    if sketch:
        return "ok", "", axioms
    if any(m["data"].startswith(("declaration uses 'sorry", "declaration uses `sorry")) for m in messages):
        return "rejected", "uses sorry", axioms
    if others:
        return "rejected", f"uses the axiom {others[0]}", axioms
    return "proved", "", axioms


def start_lean(pool, jobs):
    """(Lean at work on jobs of one header, secret in their names, lines of the reports: header, jobs)."""
    secret = "X" + secrets.token_hex(8)
    header = jobs[0].header.replace("\r\n", "\n")
    options = (f"set_option maxHeartbeats {pool.heartbeats} "
               "set_option pp.fullNames true set_option pp.universes false")  # axioms by one name
    texts = [f'{header}\n{options}\n#print "{secret}"\n']
    texts += [job.text.replace("\0", f"{secret}_{k}") for k, job in enumerate(jobs)]
    with open(f"{pool.folder.name}/{secret}.lean", "w", encoding="utf-8", newline="\n") as f:
        f.writelines(texts)
    with pool.changed:
        if pool.stop:
            raise InterruptedError("the pool has stopped")
        p = subprocess.Popen([*pool.argv, f.name], cwd=pool.cwd, env=ENV, start_new_session=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        p.why, p.deadline, p.said = "ended", time.monotonic() + HEADER_TIMEOUT, b""
        pool.running.add(p)
    p.listener = threading.Thread(target=listen, args=(p,), daemon=True)
    p.listener.start()
    return p, secret, list(itertools.accumulate(t.count("\n") for t in texts))


def listen(p):
    """Keeps the end of what a Lean says on stderr, where code in a theorem may write: it decides nothing."""
    with p.stderr:
        while part := p.stderr.read1():
            p.said = (p.said + part)[-300:]


def run_lean(pool, jobs):
    """Checks jobs of one header in one Lean process, sets results; returns jobs, some to run again."""
    p, secret, lines = start_lean(pool, jobs)
    k, messages, again = -1, [], []  # k: the theorem at work; -1: the header
    clean, loose, start = True, False, 0.0  # nothing has failed so far; a command may have run
    try:
        while k < len(jobs) and (line := p.stdout.readline(1 << 24)):
            try:
                m = json.loads(line)
                at, data, _ = m["pos"]["line"], m["data"], m["severity"]  # KeyError: one is missing
            except (ValueError, KeyError, TypeError):
                continue  # not a message of Lean's
            if at != lines[k + 1] or (data != secret if k < 0 else f"{secret}_{k}" not in data):
                messages.append(m)
                continue
            now = time.monotonic()
            if k < 0 and any(m["severity"] == "error" for m in messages):
                break
            if k >= 0:
                job, went = jobs[k], went_on(messages)
                verdict, message, axioms = judge(messages, m, pool.sketch)
                job.good = verdict in ("proved", "ok")
                borrowed = k > 0 and verdict == "rejected" and message != "uses sorry"
                if borrowed or (not clean if job.good else loose):
                    job.alone = borrowed or went  # went: others would have to run again behind it, again
                    again.append(job)
                else:
                    plain = [text.replace(f"{secret}_{k}.", "") for text in (message, *axioms)]
                    job.finish(verdict, plain[0], plain[1:], now - start)
                clean, loose = clean and job.good, loose or went
            k, messages, start = k + 1, [], now
            twice = k < len(jobs) and jobs[k].good  # it was in time before: a busy machine must not undo that
            p.deadline = now + pool.timeout * (2 if twice else 1)
    finally:
        end(p, p.why)
        status = p.wait()
        p.listener.join(1.0)  # a process that Lean left behind may hold its stderr
        p.stdout.close()
        pool.running.discard(p)
        with contextlib.suppress(OSError):  # somebody emptied the folder for temporary files
            os.unlink(f"{pool.folder.name}/{secret}.lean")
    if p.why == "timeout" and time.monotonic() < p.deadline:  # the theorem reported while it was being ended
        p.why = "ended"
    if p.why == "ended" and status not in (0, 1):
        last = p.said.decode(errors="replace").strip().rpartition("\n")[2]
        p.why = f"Lean ended with status {status}: {last}"
    return again + (blame(pool, jobs, k, loose, p.why, messages) if k < len(jobs) else [])


def blame(pool, jobs, k, loose, why, messages=()):
    """jobs[k] was at work (k < 0: the header) when Lean ended: its verdict; returns what must run again."""
    job, errors = jobs[k], [m["data"] for m in messages if m["severity"] == "error"]
    if k < 0 and errors:
        with pool.changed:
            if job.header not in pool.bad and job.header != pool.header:
                print(f"lean_check.py: the header of a statement: {errors[0]}", file=sys.stderr)
            pool.bad[job.header] = f"header: {errors[0]}"
    elif k < 0:
        for job in jobs:
            job.tries += 1
            if job.tries == HEADER_TRIES:
                job.finish("crashed", f"while Lean read the header: {why}")
    elif why == "timeout" and not loose:
        job.finish("timeout", f"more than {pool.timeout:g} s", seconds=pool.timeout)
    elif len(jobs) > 1:
        job.alone = True  # a neighbour may have done it
    else:
        verdict, message, _ = judge(messages, {"severity": "error", "data": why}, False)
        job.finish(verdict, message)
    return jobs[max(k, 0):]


def put(pool, jobs):
    with pool.changed:
        for job in jobs:
            if job.header in pool.bad and not job.result:
                job.finish("crashed", pool.bad[job.header])
            elif not job.result:
                queue = pool.queues.setdefault((job.header, job.good, job.alone), [])
                queue.append(job)
                if len(queue) == 1:
                    pool.changed.notify_all()


def work(pool):
    """A worker thread: takes jobs of one kind for a Lean process, until the pool stops."""
    try:
        while not pool.stop:
            with pool.changed:
                pool.changed.wait_for(lambda: pool.queues or pool.stop)
                if not pool.ended and len(next(iter(pool.queues.values()), ())) < BATCH:
                    pool.changed.wait(GRACE)  # more may come
                if not pool.queues:  # another worker was faster, or the pool has stopped
                    continue
                kind = next(iter(pool.queues))
                queue = pool.queues.pop(kind)
                share = 1 if kind[2] else min(BATCH, max(-(-len(queue) // pool.workers), BATCH // 10))
                jobs = queue[:share]
                if queue[share:]:
                    pool.queues[kind] = queue[share:]  # behind the others: kinds take turns
            try:
                put(pool, run_lean(pool, jobs) if jobs[0].header not in pool.bad else jobs)
            except (OSError, UnicodeError) as e:  # no process, no disk, a header without encoding
                put(pool, blame(pool, [job for job in jobs if not job.result], -1, False, str(e)))
    except BaseException as e:  # noqa: BLE001  the caller gets it
        pool.error = e


def stream(items, pool):
    """Yields (item, result) in input order. Lean works in the background, also while `items` is busy."""
    threads = [threading.Thread(target=f, args=(pool,), daemon=True) for f in [watch] + [work] * pool.workers]
    waiting, jobs = collections.deque(), {}
    try:
        for t in threads:
            t.start()
        for item in itertools.chain(items, [None]):
            if item is None:
                pool.ended = True
            else:
                header = pool.header if item.get("header") is None else item["header"]
                parts = header, item["statement"], None if pool.sketch else item["proof"]
                key = hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()  # repr: for surrogates
                if key not in jobs:
                    jobs[key] = Job(*parts, pool.heartbeats)
                    put(pool, [jobs[key]])
                waiting.append((item, jobs[key]))
            while waiting and (item is None or waiting[0][1].result or len(waiting) > HELD):
                first, job = waiting.popleft()
                while not job.result:
                    time.sleep(0.01)  # cheaper than a switch of threads for every proof
                    if pool.error:
                        raise pool.error
                yield first, job.result
    finally:
        with pool.changed:
            pool.stop = True
            pool.changed.notify_all()
        for p in list(pool.running):
            end(p, "stopped")
        for t in threads:
            if t.is_alive():  # an interrupt may come before its start
                t.join()
        pool.folder.cleanup()


def make_pool(lean, project, header, workers, timeout, heartbeats, memory, sketch=False):
    """What a generator and its threads share. sketch: proofs are left out."""
    if timeout <= 0 or memory <= 0 or heartbeats < 0 or (workers or 1) < 1:
        raise ValueError("timeout, memory and workers must be above 0, heartbeats at least 0")
    argv, version = find_lean(lean, project)
    die = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []  # with this process
    argv[2:2] = die * (argv[1:2] == ["env"])  # `lake env` has Lean as a child, which would outlive it
    argv = ["nice", "stdbuf", "-oL", *die, *argv, "--json", "-Dlinter.all=false"]
    release = tuple(map(int, version.split(".")[:2]))  # one theorem at a time; no end at the 100th error
    argv += ["-Dweak.Elab.async=false"] * (release >= (4, 16)) + ["-DmaxErrors=0"] * (release >= (4, 25))
    argv += ["-DautoImplicit=false"] * sketch
    return types.SimpleNamespace(
        argv=argv, cwd=project, timeout=timeout, heartbeats=heartbeats, memory=memory, sketch=sketch,
        workers=workers or len(os.sched_getaffinity(0)), header=header or "",  # of those without one
        folder=tempfile.TemporaryDirectory(prefix="lean_check_", ignore_cleanup_errors=True),
        changed=threading.Condition(),  # guards what follows
        queues={}, bad={},  # (header, good, alone) -> jobs; header that Lean does not accept -> its error
        running=set(), ended=False, stop=False, error=None)  # ended: all the input is here


def check(attempts, *, lean=None, project=None, header="", workers=None, timeout=60.0, heartbeats=400_000,
          memory=8.0):
    """Yields {**attempt, "verdict", "message", "axioms", "seconds"} for every attempt, in their order.

    attempts: {"statement": "theorem ... := by", "proof": "...", "header"?: ...}, maybe endless. header: of
    those without one; under one that Lean does not accept all are "crashed", with the message "header: ...".
    timeout: seconds a theorem; heartbeats: 0: no limit; memory: resident GB. LeanError: no usable Lean.
    """
    pool = make_pool(lean, project, header, workers, timeout, heartbeats, memory)
    for a, result in stream(attempts, pool):
        yield {**a, **dict(zip(("verdict", "message", "axioms", "seconds"), result, strict=True))}


def check_statements(statements, *, lean=None, project=None, header="", workers=None, timeout=60.0,
                     heartbeats=400_000, memory=8.0):
    """Yields {**statement, "verdict", "message"} for every {"statement", "header"?}, in their order.

    ok         one theorem, and it elaborates with its proof left out, without autoImplicit (which takes a
               misspelt name for a variable), unless the header says otherwise
    malformed  it does not; the message says why
    timeout, crashed: as for proofs
    """
    pool = make_pool(lean, project, header, workers, timeout, heartbeats, memory, sketch=True)
    for d, (verdict, message, *_) in stream(statements, pool):
        verdict = "malformed" if verdict in ("failed", "rejected") else verdict
        yield {**d, "verdict": verdict, "message": message}


def on_ray(function, items, *, workers=None, chunk=100, **options):
    """The rows of function, check or check_statements, by tasks on all nodes of a ray cluster, a CPU each.

    A task has `chunk` items; at most `workers` tasks are under way, None: twice the CPUs. A lost node's
    run again elsewhere. LeanError names a node without a usable Lean.
    """
    import ray
    task = ray.remote(num_cpus=1, max_retries=-1, scheduling_strategy="SPREAD")(check_chunk)
    most = workers or 2 * int(ray.cluster_resources()["CPU"])
    items, waiting, running = iter(items), collections.deque(), []
    try:
        while part := list(itertools.islice(items, chunk)):
            running.append(task.remote(function, part, options))
            waiting.append(running[-1])
            while len(running) >= most:
                running = ray.wait(running)[1]
            while waiting and ray.wait([waiting[0]], timeout=0)[0]:
                yield from ray.get(waiting.popleft())
        while waiting:
            yield from ray.get(waiting.popleft())
    except ray.exceptions.RayTaskError as e:
        raise e.cause from e  # its LeanError, in one line
    finally:
        end_tasks(list(waiting), force=False)  # so that Lean's files go


def check_chunk(function, items, options):
    """A task's rows; LeanError names the node."""
    try:
        return list(function(items, workers=1, **options))
    except LeanError as e:
        raise LeanError(f"node {os.uname().nodename}: {e}") from None


def end_tasks(tasks, force):
    """Ends those under way, by a kill or by KeyboardInterrupt. Cancelling one that is done may abort ray."""
    import ray
    left = ray.wait(tasks, num_returns=len(tasks), timeout=0)[1] if tasks else []
    for t in left:
        ray.cancel(t, force=force)
    if left:
        ray.wait(left, num_returns=len(left), timeout=30)


def read_jsonl(path):
    """Yields the objects of a JSON list or JSON Lines file (-: standard input); UserError: file and line."""
    n = 1
    try:
        with open(0 if path == "-" else path, "rb") as f:
            listed = f.peek().removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["
            for n, line in enumerate([f.read()] if listed else f, 1):  # noqa: B007  the error names n
                text = line.decode("utf-8-sig").rstrip()
                for k, row in enumerate(json.loads(text if listed else f"[{text}]"), n):
                    if not isinstance(row, dict):
                        raise UserError(f"{path}, {'entry' if listed else 'line'} {k}: not an object {{...}}")
                    yield row
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror})") from None
    except (ValueError, RecursionError) as e:
        line = n + getattr(e, "lineno", 1) - 1
        raise UserError(f"{path}, line {line}: {e}; expected JSON, a list or an object a line") from None


def read_attempts(path):
    """Yields the attempts of such a file."""
    for n, a in enumerate(read_jsonl(path), 1):
        texts = [a.get("statement"), a.get("proof"), "" if a.get("header") is None else a["header"]]
        if not all(isinstance(text, str) for text in texts):
            raise UserError(f'{path}, entry {n}: needs texts "statement" and "proof"')
        yield a


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("input", help="JSON Lines or a JSON list; - for standard input")
    p.add_argument("--out", default="-", help="JSON Lines; default: standard output")
    p.add_argument("--lean", help="command; default: lean of the PATH, else the one of tiny/")
    p.add_argument("--lean_project", dest="project", help="folder of a Lake project: `lake env lean`")
    p.add_argument("--header_file", help="Lean text before theorems without a header")
    p.add_argument("--workers", type=int, help="Lean processes; default: one a core")
    p.add_argument("--timeout", type=float, default=60.0, help="wall-clock seconds a theorem")
    p.add_argument("--heartbeats", type=int, default=400_000, help="Lean's own limit a theorem; 0: none")
    p.add_argument("--memory", type=float, default=8.0, help="resident GB of a Lean process")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options, start, counts = vars(p.parse_args()), time.time(), collections.Counter()
    attempts, path, header = (options.pop(name) for name in ("input", "out", "header_file"))
    plain = path != "-" and (os.path.isfile(path) or not os.path.exists(path))  # no pipe, no device
    path = os.path.realpath(path) if plain else path
    part = f"{path}.{os.getpid()}.part" if plain else path
    try:
        attempts = read_attempts(attempts)
        attempts = itertools.chain(list(itertools.islice(attempts, 1)), attempts)  # bad input shows first
        with contextlib.ExitStack() as stack:
            header = stack.enter_context(open(header, encoding="utf-8")).read() if header else ""
            out = sys.stdout if path == "-" else stack.enter_context(open(part, "w"))
            stack.callback(lambda: plain and os.path.exists(part) and os.unlink(part))
            checked = stack.enter_context(contextlib.closing(check(attempts, header=header, **options)))
            for a in tqdm(checked, unit=" proofs", disable=None):
                if a["message"].startswith("header: ") and a.get("header") is None:
                    raise LeanError(f"Lean does not accept the header: {a['message'][8:]}")
                counts[a["verdict"]] += 1
                print(json.dumps(a), file=out, flush=True)
            if plain:
                os.replace(part, path)
    except (UserError, ValueError, OSError) as e:
        print(f"lean_check.py: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lean_check.py: stopped", file=sys.stderr)
        return 130
    verdicts = ", ".join(f"{n} {v}" for v, n in counts.most_common())
    print(f"{counts.total()} proofs: {verdicts}; {time.time() - start:.1f} s", file=sys.stderr)
    return 1 if counts["crashed"] else 0


if __name__ == "__main__":
    sys.exit(main())
