"""Checks Lean 4 proofs written by a model: many theorems a process, verdicts that no neighbour can change.

    python lean_check.py attempts.jsonl --out verdicts.jsonl --lean_project ~/mathlib --header_file h.lean

Every input line is {"statement": "theorem t ... := by", "proof": "...", "header"?: "import ..."}; every
output line, in the same order, repeats it and adds "verdict", "message" (Lean's first error, or the reason),
"axioms" and "seconds":
  proved    Lean accepts it: no error in the theorem's own lines, and `#print axioms` shows that the theorem
            exists and uses no axiom beyond propext, Classical.choice and Quot.sound
  failed    Lean does not accept it, or it needs more than --memory
  timeout   more than --timeout seconds or --heartbeats
  rejected  tries something that no honest proof needs; the message names it
  crashed   Lean or the machine failed, three times, each in a fresh process: says nothing about the proof
Exit status: 0, 1 when something crashed, 2 for bad input. In Python: `check(attempts, ...)` and
`check_statements(...)`, generators that work in the background while their caller, or their input, is busy.

What is covered. The text is read with Lean's own rules for comments, strings, characters and names (and those
that Lean's error recovery adds), comments are blanked out, and words that start commands, leave gaps, run
code or search the file are refused. Proposition and proof stand in brackets that balanced text cannot leave,
under a name that cannot be guessed; `open` and `set_option` end with the theorem. Options in a proof are a
white list. A theorem whose axioms or memory may come from a neighbour runs again alone. The axioms and Lean's
kernel do the rest.
What is not. This stops known cheats; it is no sandbox. Lean, its kernel, the header and the imported
libraries are trusted, so are tactics, macros and command words that the header defines. A statement may be
vacuous. Verdicts close to a limit can change with the load of the machine (--timeout, --memory) or Lean's
caches (--heartbeats).
Finished proofs deserve a second look by another program: write statement and proof to a file of a Lake
project, compile it, and run lean4checker (replays the kernel), lean4lean (another kernel) or SafeVerify /
comparator.
"""
import argparse
import atexit
import collections
import contextlib
import functools
import hashlib
import itertools
import json
import os
import pty
import re
import secrets
import select
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import tty
import unicodedata
from dataclasses import dataclass, field

from tqdm import tqdm

AXIOMS = {"propext", "Classical.choice", "Quot.sound"}  # the axioms of ordinary mathematics in Lean
ENV = dict(os.environ)
ENV["PATH"] = os.path.dirname(sys.executable) + os.pathsep + ENV.get("PATH", os.defpath)
RETRIES = 2  # fresh processes for a theorem whose process ended by itself
HEADER_TIMEOUT = 600.0  # seconds; a cold import of Mathlib from a slow disk
LOOK_AHEAD = 10_000  # attempts held at most
FIRST_BATCH = 100  # theorems a process until costs are known
LARGEST_BATCH = 1200  # Lean takes longer for a theorem, the more of them it has behind it
GRACE = 0.05  # seconds a worker waits for a full batch


class LeanError(ValueError):
    """Lean cannot be used at all: not found, too old, a project that is not built."""


class Refused(ValueError):
    """Text that is not handed to Lean; args: verdict, message."""


# ---------------------------------------------------------------------------------------- reading Lean text
# A parse error does not end a Lean file: Lean goes on at the next token where a command can start, and runs
# it. Words that start commands are refused wherever Lean could read them as one; that needs Lean's own view
# of comments, strings, characters and names. Lean gets blanks for comments, so both see the same words.

COMMAND = "(?:" + "|".join(r"""abbrev alias attribute axiom class (?:co|compile_)?inductive def deriving
 end end_local_scope example export extern gen_injective_theorems grind_(?:pattern|annotated) implemented_by
 import include instance irreducible_def lemma library_note meta mk_iff_of_inductive_prop mutual namespace
 noncomputable nonrec omit opaque partial postfix prefix prelude private proof_wanted protected public recall
 reset_grind_attrs seal section structure syntax tactic_extension theorem unif_hint universe unlock_limits
 unsafe unseal (?:un)?suppress_compilation variable with_weak_namespace add_decl_doc (?:add|erase)_aesop_rules
 set_(?:premise_selector|library_suggestions) elab(?:_rules)? infix[lr]? macro(?:_rules)? notation3?
 d?simproc(?:_decl)? initialize(?:_simps_projections)? binder_predicate
 (?:register|declare|builtin|run_(?:tac|cmd|elab|meta)|assert_not|deprecated|docs_to|dump_async)\w*
 (?:norm_cast_add|recommended|init_(?:quot|grind)|to_dual_insert|insert_to)\w*""".split()) + ")"
REFUSED = {word: reason for reason, words in {
    "leaves a gap": "sorry admit stop mstop",
    "runs code": "by_elab elab_stx include_str eval eval_expr run_tac native native_decide",
    "a search, not a proof": """exact? apply? rw? rewrites? have? try? observe observe? propose hint rw_search
        library_search polyrith locals suggestions"""}.items() for word in words.split()}
NAMES = set("""sorryAx reduceBool reduceNat ofReduceBool ofReduceNat trustCompiler lcProof lcUnreachable lcAny
 unsafeCast skipKernelTC unsafePerformIO""".split())  # also as a part of a longer name
HASH = "|".join("""exit eval print check reduce synth guard import help where time html widget find search
 version show dump norm_num simp conv count lint""".split())
OPTIONS = tuple("""pp. trace. linter. tactic. synthInstance. maxRecDepth maxHeartbeats autoImplicit Nat.
 backward. relaxedAutoImplicit exponentiation. simprocs push_cast maxSynthPendingDepth""".split())
BRACKETS = {"(": ")", "[": "]", "{": "}", "⟨": "⟩", "⦃": "⦄"}
CLOSING = set(BRACKETS.values())
DEEPEST = 200  # brackets; Lean's own recursion limit is near

LETTER = ("A-Za-z_\u0391-\u039f\u03a1\u03a2\u03a4-\u03a9\u03b1-\u03ba\u03bc-\u03fb\u1f00-\u1ffe\u2100-\u214f"
          "\U0001d49c-\U0001d59f")
PART = (rf"(?:[{LETTER}][{LETTER}0-9'!?\u2080-\u2089\u2090-\u209c\u1d62-\u1d6a]*"
        r"""|«[^\s«»"'()\[\]{}⟨⟩/\\-]+»)""")
ESCAPE = r"""\\(?:[\\"'rnt]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})"""
TOKEN = re.compile(rf"""(?P<space>[ \n\t]+)|(?P<comment>--[^\n]*|/-)|(?P<odd>r\#*")
 |(?P<string>"(?:[^"\\]|{ESCAPE})*")
 |(?P<char>(?<![^\s(\[{{⟨,])'(?:[^\\'\n]|{ESCAPE})')
 |(?P<name>{PART}(?:\.{PART})*)
 |(?P<number>(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+
   |[0-9]+(?:_[0-9]+)*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)(?![A-Za-z_]))
 |(?P<symbol>:=|=>|->|<-|<=|>=|!=|==|&&|\|\||\+\+|<\|>|<\||\|>|<;>|\.\.|∃!|[^"'«@\#0-9])
 |(?P<odd2>.)""", re.X | re.S)
HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f"
                    "\ufeff\ufff0-\uffff\ud800-\udfff]")
# Where a name stands for a tactic, Lean goes on with its second character: `h1_def a : T` would define a.
HIDES = re.compile(rf"._*{COMMAND}|.*[^a-z_«].*{COMMAND}")
COMMAND = re.compile(COMMAND)


def scan(text, limit=0, first=()):
    """Lean text -> (text for Lean, tokens); Refused if Lean must not see it.

    limit: the largest maxHeartbeats the text may set, 0: any. first: command words allowed as first token.
    tokens: [(kind, word, start in the text for Lean, bracket depth)]; a bracket has the depth outside it.
    """
    text = text.replace("\r\n", "\n")
    if m := HIDDEN.search(text):
        raise Refused("rejected", f"control or invisible character U+{ord(m[0]):04X}")
    code, length, tokens, open_, i, before, problem = [], 0, [], [], 0, "", None
    while i < len(text):
        m = TOKEN.match(text, i)
        kind, word, start, i = m.lastgroup, m[0], i, m.end()
        spelled = word
        if kind == "comment":
            i = comment_end(text, start) if word == "/-" else i
            if text[start:start + 3] in ("/--", "/-!") and (tokens or not first):
                raise Refused("rejected", "a doc comment inside the text")
            spelled = re.sub(r"[^\n]", " ", text[start:i])
        elif kind == "name" and (tokens or word not in first):
            spelled = spell(word)
            if before == "set_option" and not spelled.startswith(OPTIONS):
                raise Refused("rejected", f"set_option {word}")
        elif kind == "number" and before.endswith("maxHeartbeats"):
            if limit and not (word.isdigit() and 0 < int(word) <= limit):
                raise Refused("rejected", f"maxHeartbeats {word}: beyond the limit of {limit}")
        elif kind == "string" or kind == "char":
            check_literal(text, start, kind, word)
        elif kind == "odd" or kind == "odd2":
            check_odd(text, start, word)
        if kind != "space" and kind != "comment":
            if word in CLOSING and (not open_ or open_.pop() != word):
                problem = problem or f"unexpected '{word}'"
            tokens.append((kind, word, length, len(open_)))
            before = word
            if word in BRACKETS:
                open_.append(BRACKETS[word])
                if len(open_) > DEEPEST:
                    raise Refused("rejected", f"brackets nested more than {DEEPEST} deep")
        code.append(spelled)
        length += len(spelled)
    if problem or open_:
        raise Refused("failed", problem or f"missing '{open_[-1]}'")
    return "".join(code), tokens


def comment_end(text, start):
    depth = 0  # block comments nest
    for m in re.compile("/-|-/").finditer(text, start):
        depth += 1 if m[0] == "/-" else -1
        if depth == 0:
            return m.end()
    raise Refused("failed", "unclosed comment")


@functools.lru_cache(100_000)
def spell(word):
    """A name as Lean gets it: quoted (the same name) where error recovery could find a command in it."""
    parts = re.findall(PART, word)
    plain = unicodedata.normalize("NFKC", word)  # 𝐚𝐱𝐢𝐨𝐦 and the like
    if COMMAND.fullmatch(plain):
        raise Refused("rejected", f"the command word '{word}'")
    if plain in REFUSED:
        raise Refused("rejected", f"'{word}': {REFUSED[plain]}")
    if bad := NAMES.intersection(p.strip("«»") for p in parts):
        raise Refused("rejected", f"the name '{bad.pop()}'")
    if HIDES.fullmatch(parts[0]) or any(map(COMMAND.fullmatch, parts)):
        return ".".join(p if p[0] == "«" else f"«{p}»" for p in parts)
    return word


def check_literal(text, start, kind, word):
    """Refuses a literal that Lean could read in another way: raw, interpolated, after a slip of its lexer."""
    before = text[max(start - 3, 0):start]
    doubtful = re.search(r"['\\{]", text) and COMMAND.search(word)
    if doubtful or "'" in before or before[-1:] not in "\n\t ([{⟨,":
        raise Refused("rejected", f"the {kind} {word[:20]} where Lean could read it in another way")


def check_odd(text, i, word):
    """Refuses what Lean's lexer stumbles over (to go on one character later), and commands such as #eval."""
    if word in '"«' or word.isdigit():
        raise Refused("failed", f"not Lean: {text[i:i + 20]!r}")
    if word == "'" and re.match(r"""'(?:\w|.'|["\\«]|'\S)""", text[i:i + 3]):
        raise Refused("rejected", "a quote that could start a character literal")
    if m := re.match(rf"@\[|#(?:{HASH})|r#*\"", text[i:i + 16]):
        raise Refused("rejected", f"'{m[0]}'")


def template(statement, proof=None, limit=0):
    """Lean text of one theorem and its `#print axioms`, with \\0 for the secret that makes its name unique.

    proof: None leaves it out. Proposition and proof each stand in brackets of ours. A text with balanced
    brackets cannot leave them: the statement cannot bring its own proof, nor the proof go on with commands.
    Columns stay, but behind a name that gets quotes.
    """
    head, by, name = split_statement(statement, limit)
    body = "sorry"
    if proof is not None:
        body = by + ("by" if proof[:1].isspace() else "by\n") + scan(proof, limit)[0]
    text = f"{head}\n):=(\n{body}\n)\n"
    if "open" in text or "set_option" in text:  # after a parse error these could be commands. Costs Lean 1 ms
        text = f"section \0\n{text}end \0\n"
    return f"{text}#print axioms {name}\n"


@functools.lru_cache(10_000)
def split_statement(statement, limit):
    """(`theorem secret_name binders :( T`, blanks before its `by`, secret name); Refused: not one theorem."""
    code, tokens = scan(statement, limit, ("theorem", "lemma"))
    words = [t[1] for t in tokens]
    if words[:1] not in (["theorem"], ["lemma"]) or words[-2:] != [":=", "by"] or tokens[1][0] != "name":
        raise Refused("rejected", "statement: not of the form 'theorem name ... : T := by'")
    start, end = tokens[1][2], tokens[-2][2]
    top = [t for t in tokens[2:-2] if t[3] == 0]
    colon = next((t[2] for t in top if t[1] == ":"), end)
    if tokens[-1][3] or not code[colon + 1:end].strip():
        raise Refused("rejected", "statement: no proposition")
    name = spell(words[1])
    after = start + len(name)
    universes = words[2] == "." and tokens[2][2] == after
    for kind, word, at, _ in top[universes:]:
        if at < colon and kind != "name" and word not in BRACKETS and word not in CLOSING:
            raise Refused("rejected", f"statement: '{word}' before the colon")
    secret = name[:-1] + "_\0»" if name[-1] == "»" else name + "_\0"
    before_t, before_by = (" " * (at - code.rfind("\n", 0, at) - 1) for at in (colon + 1, tokens[-1][2]))
    head = f"{code[:start].lstrip()}{secret}{code[after:colon]}:(\n{before_t}{code[colon + 1:end]}"
    return head, before_by, secret


# --------------------------------------------------------------------------------------------- running Lean

@dataclass(eq=False)
class Job:
    """One theorem for Lean; a copy of it in the input shares the job."""
    header: str
    text: str
    result: tuple | None = None  # verdict, message, axioms, seconds
    tries: int = 0
    alone: bool = False  # needs a process of its own
    sketch: bool = False  # the proof is left out


@dataclass
class Pool:
    """What the generator and its worker threads share; `changed` guards all of it."""
    argv: list
    cwd: str | None
    workers: int
    timeout: float
    memory: float
    folder: str
    changed: threading.Condition = field(default_factory=threading.Condition)
    queues: dict = field(default_factory=dict)  # header -> deque of jobs
    bad: dict = field(default_factory=dict)  # header that Lean does not accept -> its error
    cost: tuple = (0.0, 0.0)  # seconds of a header, of a theorem: moving averages
    running: set = field(default_factory=set)
    starts: int = 0
    ended: bool = False  # all the input is here
    stop: bool = False
    error: BaseException | None = None


def find_lean(lean=None, project=None):
    """(command as a list, version) of the Lean to use; LeanError with one line that says what to do."""
    if project and not os.path.isdir(project):
        raise LeanError(f"--lean_project {project}: no such folder")
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tiny", "lean")
    argv = shlex.split(lean) if lean else ["lake", "env", "lean"] if project else ["lean"]
    if not lean and not project and not shutil.which("lean") and os.path.exists(here):
        argv = [sys.executable, here]
    name = shlex.join(argv) or "empty --lean"
    if not argv or not shutil.which(argv[0]):
        raise LeanError(f"Lean not found: {name} (install Lean with elan, or name it with --lean)")
    argv[0] = os.path.abspath(shutil.which(argv[0]))
    try:
        out = subprocess.run([*argv, "--version"], cwd=project, env=ENV, stdin=subprocess.DEVNULL,
                             capture_output=True, timeout=300, text=True, errors="replace")
    except (OSError, subprocess.TimeoutExpired) as e:
        raise LeanError(f"{name} --version: {e}") from e
    m = re.search(r"Lean \(version ((\d+)\.(\d+)\.\d+\S*?),", out.stdout)
    if not m:
        raise LeanError(f"{name} is not Lean: --version says {(out.stdout or out.stderr).strip()[:200]!r}")
    if (int(m[2]), int(m[3])) < (4, 9):
        raise LeanError(f"{name} is Lean {m[1]}: 4.9 or newer is needed")
    if project:
        check_project(project, m[1])
    return argv, m[1]


def check_project(project, version):
    with contextlib.suppress(FileNotFoundError), open(os.path.join(project, "lean-toolchain")) as f:
        pinned = f.read().strip()
        if (m := re.search(r"v?(\d+\.\d+\.\d+\S*)$", pinned)) and m[1] != version:
            raise LeanError(f"{project}/lean-toolchain asks for {pinned}, but Lean is {version}")
    text = ""
    for name in ("lakefile.lean", "lakefile.toml", "lake-manifest.json"):
        with contextlib.suppress(FileNotFoundError), open(os.path.join(project, name)) as f:
            text += f.read().lower()
    built = [os.path.join(project, root, ".lake/build/lib", lib, "Mathlib.olean")
             for root in ("", ".lake/packages/mathlib") for lib in ("", "lean")]
    if "mathlib" in text and not any(map(os.path.exists, built)):
        raise LeanError(f"{project}: Mathlib is not built (run `lake exe cache get && lake build` there)")


def resident(pid):
    """Resident bytes of a process and its children (`lake env lean` has one)."""
    total = 0
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/statm") as f:
            total = int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as f:
                total += sum(map(resident, f.read().split()))
    return total


def kill(process):
    """Ends a Lean process and whatever it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def judge(messages, report, sketch):
    """Lean's messages about one theorem, and the one of its `#print axioms` -> (verdict, message, axioms)."""
    errors = [m["data"] for m in messages if m["severity"] == "error"]
    if errors:
        return "timeout" if "(deterministic) timeout" in errors[0] else "failed", errors[0], []
    answer = r"'.*' (?:does not depend on any axioms|depends on axioms:\s*\[(.*)\])"
    m = re.fullmatch(answer, report["data"].strip(), re.S)
    if report["severity"] == "error" or not m:
        return "failed", f"no theorem: {report['data']}", []
    axioms = re.split(r",\s*", m[1].strip()) if m[1] else []
    if sketch:
        if "sorryAx" in axioms and AXIOMS.issuperset(set(axioms) - {"sorryAx"}):
            return "ok", "", axioms
        return "failed", f"brings its own proof, or axioms: {axioms}", axioms
    if bad := [a for a in axioms if a not in AXIOMS]:
        return "rejected", f"uses the axiom {bad[0]}", axioms
    if any(re.search("declaration uses ['`]sorry", x["data"]) for x in messages):
        return "rejected", "uses sorry", axioms
    return "proved", "", axioms


def read_lines(process, out, memory, deadline, tail):
    """Yields the lines of a Lean process; "timeout" or "memory" (a str) ends them. stderr goes to tail."""
    err = process.stderr.fileno()
    poll, parts, look = select.poll(), [], 0.0
    for fd in (out, err):
        os.set_blocking(fd, False)
        poll.register(fd, select.POLLIN)
    while True:
        exited = process.poll() is not None
        if exited:
            kill(process)  # a child it left would keep the pipes open
        ready = [fd for fd, _ in poll.poll(0 if exited else 100)]
        for fd in ready:
            try:
                chunk = os.read(fd, 1 << 16)
            except OSError:  # how a terminal says that its other end is closed
                chunk = b""
            if not chunk:
                poll.unregister(fd)
            elif fd == err:
                tail[:] = (tail + chunk)[-2000:]
            else:
                first, *lines = chunk.split(b"\n")
                parts.append(first)
                if lines:
                    yield b"".join(parts)
                    yield from lines[:-1]
                    parts = [lines[-1]]
        if exited and not ready:
            return
        now = time.monotonic()
        if now > deadline():
            yield "timeout"
        if now > look:
            look = now + 0.2
            if resident(process.pid) > memory * 1e9 or len(parts) > 4096:  # a line of 16 MB is no message
                yield "memory"


@contextlib.contextmanager
def lean_process(pool, text):
    """Lean at work on a text: (process, end of a terminal with its messages)."""
    path = os.path.join(pool.folder, secrets.token_hex(8) + ".lean")
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        f.write(text)
    out, terminal = pty.openpty()  # into a pipe, Lean would hold its messages back until 4 kB are full
    try:
        tty.setraw(terminal)
        with pool.changed:
            if pool.stop:
                raise InterruptedError("the pool has stopped")
            process = subprocess.Popen([*pool.argv, path], cwd=pool.cwd, env=ENV, stdin=subprocess.DEVNULL,
                                       stdout=terminal, stderr=subprocess.PIPE, start_new_session=True)
            pool.running.add(process)
            pool.starts += 1
    except OSError:
        os.close(out)
        raise
    finally:
        os.close(terminal)
    try:
        yield process, out
    finally:
        kill(process)
        os.close(out)
        process.stderr.close()
        os.unlink(path)
        with pool.changed:
            pool.running.discard(process)


def run_lean(pool, jobs):
    """Checks jobs of one header in one Lean process, sets the results; returns those that must run again."""
    if error := pool.bad.get(jobs[0].header):
        for job in jobs:
            finish(job, "crashed", error)
        return []
    batch, later = ([job for job in jobs if job.alone == alone] for alone in (False, True))
    if not batch:
        batch, later = later[:1], later[1:]
    secret = "X" + secrets.token_hex(8)
    head = jobs[0].header.replace("\r\n", "\n").rstrip("\n") + f'\n#print "{secret}"\n'
    texts = [job.text.replace("\0", f"{secret}_{k}") for k, job in enumerate(batch)]
    report_lines = list(itertools.accumulate((t.count("\n") for t in texts), initial=head.count("\n")))
    k, messages, why, tail = -1, [], "ended", bytearray()  # k: the theorem at work; -1: the header
    times = [time.monotonic()]  # start of the process and then of each theorem

    def deadline():
        return times[-1] + (HEADER_TIMEOUT if k < 0 else pool.timeout)  # k as it is at the time of the call

    with lean_process(pool, head + "".join(texts)) as (process, out):
        for line in read_lines(process, out, pool.memory, deadline, tail):
            if isinstance(line, str):
                why = line
                break
            try:
                m = json.loads(line)
                at, data, _ = m["pos"]["line"], m["data"], m["severity"]
            except (ValueError, KeyError, TypeError):
                continue  # not a message of Lean's
            if at != report_lines[k + 1] or k < 0 and data != secret:
                messages.append(m)
                continue
            times.append(time.monotonic())
            if k >= 0:
                verdict, message, axioms = judge(messages, m, batch[k].sketch)
                if k and verdict == "rejected":  # an auxiliary lemma of a neighbour may carry the axiom
                    batch[k].alone = True
                    later.append(batch[k])
                else:
                    message = message.replace(f"_{secret}_{k}", "")
                    finish(batch[k], verdict, message, axioms, times[-1] - times[-2])
            k, messages = k + 1, []
            if k == len(batch):
                break
    if k > 0:
        costs = times[1] - times[0], (times[-1] - times[1]) / k
        with pool.changed:
            pool.cost = tuple((a + b) / 2 if a else b for a, b in zip(pool.cost, costs, strict=True))
    rest = batch[max(k, 0):]
    if rest and not pool.stop:
        errors = [m["data"] for m in messages if m["severity"] == "error"]
        rest = blame(pool, rest, k, why, errors, process.returncode, tail, time.monotonic() - times[-1])
    return rest + later


def blame(pool, jobs, k, why, errors, status, tail, seconds):
    """jobs[0] was at work (k < 0: its header) when the process ended: its verdict or retry; the jobs left."""
    job = jobs[0]
    if k >= 0 and why == "timeout":
        result = "timeout", f"more than {pool.timeout:g} s"
    elif k > 0 and why == "memory":
        job.alone = True  # the neighbours before it may have used the memory
        return jobs
    elif k == 0 and why == "memory":
        result = "failed", f"memory: more than {pool.memory:g} GB"
    else:
        job.tries += 1
        if job.tries <= RETRIES:
            return jobs
        text = bytes(tail).decode(errors="replace").strip()
        if k < 0 and errors:
            pool.bad[job.header] = f"header: {errors[0]}"
            result = "crashed", pool.bad[job.header]
        elif k >= 0 and why == "ended" and status in (0, 1):
            result = "failed", errors[0] if errors else "Lean came to the end of the file without a report"
        else:
            where = " while it read the header" if k < 0 else ""
            result = "crashed", f"Lean ended with status {status}{where}: {text or why}"
    finish(job, *result, seconds=seconds)
    return jobs[1:]


def finish(job, verdict, message, axioms=(), seconds=0.0):
    job.text, job.result = "", (verdict, message[:2000], list(axioms), round(seconds, 4))


def take(pool):
    """The jobs of the next Lean process, all with one header, or None: the pool has stopped.

    So many that the header takes 5% of the time; with fewer left, a worker's share, if worth a header.
    """
    with pool.changed:
        while True:
            pool.changed.wait_for(lambda: pool.queues or pool.stop)
            header_cost, cost = pool.cost
            most = min(int(19 * header_cost / cost) + 1, LARGEST_BATCH) if cost else FIRST_BATCH
            if not pool.stop and not pool.ended and len(next(iter(pool.queues.values()))) < most:
                pool.changed.wait(GRACE)  # more may come
            if pool.stop:
                return None
            if not pool.queues:
                continue
            header, queue = next(iter(pool.queues.items()))
            share = max(-(-len(queue) // pool.workers), most // 5)
            jobs = [queue.popleft() for _ in range(min(len(queue), share, most))]
            if not queue:
                del pool.queues[header]
            return jobs


def work(pool):
    """A worker thread: one Lean process after the other until the pool stops."""
    try:
        while jobs := take(pool):
            while jobs and not pool.stop:
                try:
                    jobs = run_lean(pool, jobs)
                except OSError as e:  # no process, no disk
                    jobs = blame(pool, jobs, -1, str(e), [], None, b"", 0.0)
    except BaseException as e:  # noqa: BLE001  the caller gets it
        pool.error = e


def stream(items, prepare, pool):
    """Yields (item, result) in input order. Lean works in the background, also while `items` is busy."""
    threads = [threading.Thread(target=work, args=(pool,), daemon=True) for _ in range(pool.workers)]

    def shut_down():
        with pool.changed:
            pool.stop = True
            for process in pool.running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            pool.changed.notify_all()
        for t in threads:
            t.join()
        shutil.rmtree(pool.folder, ignore_errors=True)

    def add(job):
        with pool.changed:
            if job.header not in pool.queues:
                pool.queues[job.header] = collections.deque()
                pool.changed.notify_all()
            pool.queues[job.header].append(job)

    def result(job):
        while not job.result:
            time.sleep(0.01)  # cheaper than a switch of threads for every proof
            if pool.error:
                raise pool.error
        return job.result

    waiting, known = collections.deque(), collections.OrderedDict()
    atexit.register(shut_down)  # a caller that never finishes the generator
    try:
        for t in threads:
            t.start()
        for item in items:
            key, job = prepare(item)
            if key in known:
                job = known[key]
            elif not job.result:
                known[key] = job
                if len(known) > LOOK_AHEAD:
                    known.popitem(last=False)
                add(job)
            waiting.append((item, job))
            while waiting and (waiting[0][1].result or len(waiting) > LOOK_AHEAD):
                item, job = waiting.popleft()
                yield item, result(job)
        with pool.changed:
            pool.ended = True
            pool.changed.notify_all()
        while waiting:
            item, job = waiting.popleft()
            yield item, result(job)
    finally:
        atexit.unregister(shut_down)
        shut_down()


# ------------------------------------------------------------------------------------------------- interface

def make_pool(lean, project, workers, timeout, heartbeats, memory, *flags):
    if timeout <= 0 or memory <= 0 or heartbeats < 0 or (workers or 1) < 1:
        raise ValueError("timeout, memory and workers must be above 0, heartbeats at least 0")
    argv, version = find_lean(lean, project)
    if shutil.which("setpriv"):  # no Lean outlives this process, even if that is killed
        argv = ["setpriv", "--pdeathsig", "KILL", "--", *argv]
    argv += ["--json", f"-DmaxHeartbeats={heartbeats}", "-Dlinter.all=false", *flags]
    release = tuple(map(int, version.split(".")[:2]))
    if release >= (4, 16):
        argv.append("-Dweak.Elab.async=false")  # one theorem at a time
    if release >= (4, 25):
        argv.append("-DmaxErrors=0")  # without it Lean stops at the 100th error; `weak.` does not reach it
    return Pool(argv, project, workers or len(os.sched_getaffinity(0)), timeout, memory,
                tempfile.mkdtemp(prefix="lean_check_"))


def check(attempts, *, lean=None, project=None, header="", workers=None, timeout=60.0, heartbeats=400_000,
          memory=8.0):
    """Yields {**attempt, "verdict", "message", "axioms", "seconds"} for every attempt, in their order.

    attempts: an iterable of {"statement": "theorem ... := by", "proof": "...", "header"?: ...}; may be slow
    and endless: checking starts with what has arrived, and at most LOOK_AHEAD attempts are held.
    lean: command; project: folder of a Lake project; workers: Lean processes (None: one a core); timeout:
    seconds a theorem; heartbeats: Lean's deterministic limit, 0: none; memory: resident GB of a Lean process.
    LeanError: no usable Lean.
    """
    pool = make_pool(lean, project, workers, timeout, heartbeats, memory)
    return check_with(pool, attempts, header, heartbeats)


def check_with(pool, attempts, header, heartbeats):
    def prepare(a):
        head = a.get("header", header) or ""
        key = digest(head, a["statement"], a["proof"])
        try:
            return key, Job(head, template(a["statement"], a["proof"], heartbeats))
        except Refused as e:
            return key, Job(head, "", (*e.args, [], 0.0))

    for a, result in stream(attempts, prepare, pool):
        yield {**a, **dict(zip(("verdict", "message", "axioms", "seconds"), result, strict=True))}


def digest(*texts):
    return hashlib.blake2b("\0".join(texts).encode(errors="replace"), digest_size=16).digest()


def check_statements(statements, *, known=(), lean=None, project=None, header="", workers=None, timeout=60.0,
                     heartbeats=400_000, memory=8.0):
    """Yields {**statement, "verdict", "message"} for every {"statement", "header"?}, in their order.

    ok         exactly one theorem, new, and it elaborates with its proof left out. Lean would take a misspelt
               name for a variable (autoImplicit); here it is an error, unless the header says otherwise
    malformed  anything else; the message says why
    duplicate  differs from one of `known`, or an earlier one, only in theorem name, white space, bound names
    timeout, crashed  as for proofs
    """
    pool = make_pool(lean, project, workers, timeout, heartbeats, memory, "-DautoImplicit=false")
    seen = {digest(normal_form(s)) for s in known}

    def prepare(d):
        key = digest(normal_form(d["statement"]))
        if key in seen:
            return None, Job("", "", ("duplicate", "same as a known statement or an earlier one"))
        seen.add(key)
        try:
            text = template(d["statement"], None, heartbeats)
            return key, Job(d.get("header", header) or "", text, sketch=True)
        except Refused as e:
            return key, Job("", "", ("malformed", e.args[1]))

    def verdicts():
        for d, (verdict, message, *_) in stream(statements, prepare, pool):
            verdict = "malformed" if verdict in ("failed", "rejected") else verdict
            yield {**d, "verdict": verdict, "message": message}
    return verdicts()


QUANTIFIERS = {"∀": ",", "∃": ",", "∃!": ",", "fun": ("=>", "↦"), "λ": ("=>", "↦")}  # and their binders' end
BIG = set("∑∏⋃⋂⨆⨅∫")  # have binders too, but end at some operator: their variables keep their names
ENDS = set(", ; then else := with in from at => : ‖ ⌋ ⌉ ⟧ ⟫".split())  # of a quantifier's body, at the latest


def normal_form(statement):
    """A key, equal for statements that differ only in theorem name, white space, comments or bound variables.

    Pure text. Variables bound by the theorem, ∀, ∃ and fun become numbers where the text shows their scope. A
    name that also stands outside such a scope keeps its spelling: keys of equal propositions may differ, but
    different propositions have different keys.
    """
    try:
        tokens = scan(statement, 0, ("theorem", "lemma"))[1]
    except Refused:
        return " ".join(statement.split())
    tokens = tokens[2:-2] if [t[1] for t in tokens[-2:]] == [":=", "by"] else tokens[2:]

    def end_of(i, d, ends):
        return next((j for j, t in enumerate(tokens[i:], i) if t[3] < d or t[3] == d and t[1] in ends), 0)

    colon = end_of(0, 0, ":")
    found = [(v, -1) for v in variables(tokens, 0, colon, 0)]
    quiet = {colon}  # tokens that end no scope: those of the binder lists
    for i, (_, word, _, depth) in enumerate(tokens):
        if word in QUANTIFIERS or word in BIG:
            end = end_of(i + 1, depth, QUANTIFIERS.get(word, ","))
            if tokens[end][3] == depth:
                quiet.update(range(i, end + 1))
                found += [(v, depth) for v in variables(tokens, i + 1, end, depth) if word in QUANTIFIERS]
    number, starts = {}, collections.defaultdict(list)
    for (at, start), depth in sorted(found):
        number[at] = f"#{len(number)}"
        starts[start].append((depth, tokens[at][1], number[at]))
    scopes, out, free = [], [], set()
    for i, (kind, word, _, depth) in enumerate(tokens):
        ends = word in ENDS and i not in quiet
        while scopes and (depth < scopes[-1][0] or depth == scopes[-1][0] and ends):
            scopes.pop()
        head = word.partition(".")[0]
        bound = number.get(i)
        if kind == "name" and not bound:
            bound = next((n for _, w, n in reversed(scopes) if w == head), None)
        after = tokens[i + 1][1] if i + 1 < len(tokens) else ""
        named = i and tokens[i - 1][1] == "." or after == ":="  # a field, `(x := 1)`
        if kind == "name" and (named or not bound):
            free.add(head)
        out.append((word, bound and head, bound and bound + word[len(head):]))
        scopes += starts[i]
    return " ".join(new if head and head not in free else word for word, head, new in out)


def variables(tokens, i, end, depth):
    """(token, token after which it is in scope) of each variable of `x y : T`, `(x : T) {y}` or `x ∈ s`."""
    if tokens[i:i + 1] and tokens[i][1] == ".":  # universes
        i = end_of_group(tokens, i + 1, depth) + 1
    while i < end:
        group = tokens[i][1] in ("(", "{", "[", "⦃")
        stop = first = i + group
        while stop < end and tokens[stop][0] == "name":
            stop += 1
        if group:
            close = end_of_group(tokens, i, depth)
            if tokens[stop][1] == ":" or stop == close and tokens[i][1] != "[":
                yield from ((k, close) for k in range(first, stop))
            i = close + 1
        elif stop == first:
            return  # a pattern
        else:
            yield from ((k, end if tokens[stop][1] == ":" else k) for k in range(first, stop))
            if tokens[stop][1] not in ("(", "{", "[", "⦃"):
                return
            i = stop


def end_of_group(tokens, i, depth):
    return next(j for j in range(i + 1, len(tokens)) if tokens[j][3] == depth)


# ------------------------------------------------------------------------------------------ the command line

def read_attempts(path):
    """Yields the attempts of a JSON Lines file (-: standard input) or a .lean file; ValueError: bad input."""
    with contextlib.ExitStack() as stack:
        f = sys.stdin.buffer if path == "-" else stack.enter_context(open(path, "rb"))
        if path.endswith(".lean"):
            yield from theorems(f.read().decode())
            return
        for n, line in enumerate(f, 1):
            if not line.strip():
                continue
            try:
                a = json.loads(line)
            except ValueError as e:
                raise ValueError(f"{path}:{n}: not JSON: {e}") from e
            fields = a if isinstance(a, dict) else {}
            texts = fields.get("statement"), fields.get("proof"), fields.get("header") or ""
            if not all(isinstance(t, str) for t in texts):
                raise ValueError(f'{path}:{n}: needs texts "statement" and "proof" (and "header", if any)')
            yield a


def theorems(text):
    """The theorems of a Lean file as attempts.

    What stands before one is its header, of earlier theorems only those whose name occurs later in the file.
    """
    text, header = text.replace("\r\n", "\n"), ""
    starts = [m.start() for m in re.finditer(r"^(?=[A-Za-z@#/])", text, re.M)]
    for start, end in itertools.pairwise([0, *starts, len(text)]):
        chunk = text[start:end]
        m = re.match(r"(?:theorem|lemma)\s+(\S+)", chunk)
        if not m:
            header += chunk
            continue
        depth, statement, proof = 0, chunk, ""
        for t in re.finditer(r"[(\[{⟨⦃]|[)\]}⟩⦄]|:=", chunk):
            depth += (t[0] in BRACKETS) - (t[0] in CLOSING)
            if t[0] == ":=" and depth == 0:  # outside brackets: the end of the statement
                statement, proof = chunk[:t.start()] + ":= by", chunk[t.end():]
                by = re.match(r"\s*by\b", proof)
                proof = proof[by.end():] if by else f"\n  exact ({proof}\n)"
                break
        yield {"name": m[1], "statement": statement, "proof": proof.rstrip() + "\n", "header": header}
        if re.search(rf"(?<!\w){re.escape(m[1])}(?!\w)", text[end:]):
            header += chunk


def parse_args(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("input", nargs="?", metavar="IN",
                   help="JSON Lines, - for standard input, or a .lean file, theorem by theorem")
    p.add_argument("--out", default="-", metavar="OUT.jsonl", help="default: standard output")
    g = p.add_argument_group("Lean")
    g.add_argument("--lean", metavar="CMD", help="default: lean of the PATH, else the one of tiny/")
    g.add_argument("--lean_project", metavar="DIR", help="Lake project, built; Lean runs there by `lake env`")
    g.add_argument("--header", default="", metavar="TEXT", help="Lean text before theorems without a header")
    g.add_argument("--header_file", metavar="F", help="the same from a file")
    g = p.add_argument_group("limits")
    g.add_argument("--workers", type=int, default=0, metavar="N", help="Lean processes; 0: one a core")
    g.add_argument("--timeout", type=float, default=60.0, metavar="S", help="wall-clock seconds a theorem")
    g.add_argument("--heartbeats", type=int, default=400_000, metavar="N",
                   help="Lean's own deterministic limit a theorem; 0: none")
    g.add_argument("--memory", type=float, default=8.0, metavar="GB", help="resident, a Lean process")
    p.add_argument("--benchmark", action="store_true", help="measure the checker on this machine and stop")
    args = p.parse_args(argv)
    if not args.input and not args.benchmark:
        p.error("name an input, or --benchmark")
    if args.timeout <= 0 or args.memory <= 0 or args.heartbeats < 0 or args.workers < 0:
        p.error("--timeout and --memory must be above 0, --heartbeats and --workers at least 0")
    return args


def run(args):
    """Checks args.input into args.out; returns the exit status."""
    if args.header_file:
        with open(args.header_file, encoding="utf-8") as f:
            args.header = f.read()
    counts, start, part = collections.Counter(), time.time(), f"{args.out}.{os.getpid()}.part"
    attempts = read_attempts(args.input)
    first = list(itertools.islice(attempts, 1))  # bad input shows before Lean starts
    checked = check(itertools.chain(first, attempts), lean=args.lean, project=args.lean_project,
                    header=args.header, workers=args.workers or None, timeout=args.timeout,
                    heartbeats=args.heartbeats, memory=args.memory)
    try:
        with contextlib.ExitStack() as stack:
            out = sys.stdout if args.out == "-" else stack.enter_context(open(part, "w", encoding="utf-8"))
            for a in tqdm(checked, unit=" proofs", disable=None):
                counts[a["verdict"]] += 1
                print(json.dumps(a), file=out, flush=True)
        if args.out != "-":
            os.replace(part, args.out)
    finally:
        checked.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
    total, seconds = sum(counts.values()), time.time() - start
    print(f"{total} proofs: " + ", ".join(f"{n} {v}" for v, n in counts.most_common())
          + f"; {seconds:.1f} s, {total / seconds:.1f}/s", file=sys.stderr)
    return 1 if counts["crashed"] else 0


def benchmark(args):
    """Prints the checker's speed beside that of bare Lean: medians of rounds in which the arms take turns."""
    workers = args.workers or len(os.sched_getaffinity(0))
    statement = "theorem t (p q r : Prop) (h : p ∧ q) (g : q → r) : r ∧ p := by"
    good = [{"statement": statement, "proof": f"\n  have a{i} := h.2\n  exact ⟨g a{i}, h.1⟩"}
            for i in range(1000 * workers)]
    hang = {"statement": statement, "proof": "\n  repeat (first | (have a := 1) | skip)"}

    def pool(timeout=args.timeout, heartbeats=args.heartbeats):
        return make_pool(args.lean, args.lean_project, workers, timeout, heartbeats, args.memory)

    def bare(n, copies=1):  # seconds of Lean on a file of n theorems
        p = pool()
        path = os.path.join(p.folder, "a.lean")
        with open(path, "w", encoding="utf-8") as f:
            f.write(args.header + "\n" + "".join(
                template(a["statement"], a["proof"]).replace("\0", f"X{i}") for i, a in enumerate(good[:n])))
        start = time.monotonic()
        lean = [subprocess.Popen([*p.argv, path], cwd=p.cwd, env=ENV, stdout=subprocess.DEVNULL)
                for _ in range(copies)]
        for process in lean:
            process.wait()
        seconds = time.monotonic() - start
        shutil.rmtree(p.folder)
        return seconds

    def checked(attempts, **limits):  # (seconds, process starts) of this checker
        p, start = pool(**limits), time.monotonic()
        verdicts = collections.Counter(a["verdict"] for a in check_with(p, attempts, args.header, 0))
        assert verdicts["proved"] == len(attempts) - (hang in attempts), verdicts
        return time.monotonic() - start, p.starts

    def marginal(copies):  # proofs/s of bare Leans beyond their start
        few = bare(100, copies)
        return 500 * copies / (bare(600, copies) - few)

    rounds = [(bare(1, workers), marginal(1), marginal(workers), *checked(good)) for _ in range(5)]
    one, lone, beside, seconds, starts = (list(arm) for arm in zip(*rounds, strict=True))
    speed = [len(good) / s for s in seconds]
    print(f"{workers} workers, {len(good)} proofs; medians of {len(rounds)} rounds (and the range), proofs/s")

    def show(name, values):
        middle = statistics.median(values)
        print(f"{name:66} {middle:8.2f}  ({min(values):.2f} to {max(values):.2f})")

    show("one Lean process a proof, all workers", [workers / s for s in one])
    show("one bare Lean with many proofs, beyond its start (marginal)", lone)
    show("the same of as many bare Leans as workers, side by side", beside)
    show("this checker", speed)
    show("  process starts", starts)
    show("  ratio to one process a proof", [v * s / workers for v, s in zip(speed, one, strict=True)])
    show("  ratio to workers x marginal", [v / workers / m for v, m in zip(speed, lone, strict=True)])
    show("  ratio to that of as many bare Leans", [v / b for v, b in zip(speed, beside, strict=True)])
    rows, cost = good[:1000], []
    for _ in range(3):
        plain, slow = checked(rows), checked([*rows[:500], hang, *rows[500:]], timeout=5.0, heartbeats=0)
        cost.append((slow[0] - plain[0], slow[1] - plain[1]))
    show("1 proof among 1,000 that hangs, timeout 5 s: seconds more", [c[0] for c in cost])
    show("  process starts more", [c[1] for c in cost])
    return 0


def main():
    args = parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return benchmark(args) if args.benchmark else run(args)
    except (ValueError, OSError) as e:
        print(f"lean_check.py: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
