"""Checks Lean 4 proofs written by a model: many theorems a Lean process, a verdict for each that its neighbours cannot change.

    python lean_check.py attempts.jsonl --out verdicts.jsonl --lean_project ~/mathlib_project --header_file header.lean

Every input line is {"statement": "theorem t ... := by", "proof": "...", "header"?: "import ..."}; every output line repeats it and
adds "verdict", "message" (Lean's first error, or the reason), "axioms" and "seconds".
  proved    Lean accepts it: no error in the theorem's own lines, `#print axioms` shows that it exists and uses no axiom
            beyond propext, Classical.choice and Quot.sound
  failed    Lean does not accept it (or it needs more than --memory)
  timeout   more than --timeout seconds or --heartbeats
  rejected  tries something that no honest proof needs; the message names it
  crashed   Lean or the machine failed, twice more in a fresh process: says nothing about the proof
"""
import argparse
import atexit
import collections
import contextlib
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
import subprocess
import sys
import tempfile
import threading
import time
import tty
import unicodedata
from dataclasses import dataclass, field

AXIOMS = {"propext", "Classical.choice", "Quot.sound"}  # the axioms of ordinary mathematics in Lean
ENV = {**os.environ, "PATH": os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", os.defpath)}
RETRIES = 2  # fresh processes for a theorem whose process ended by itself
HEADER_TIMEOUT = 600.0  # seconds; a cold import of Mathlib from a slow disk
LOOK_AHEAD = 10_000  # attempts held at most
FIRST_BATCH, LARGEST_BATCH = 16, 1000  # theorems a process: until costs are known, and at most
GRACE = 0.05  # seconds a worker waits for more than a handful of theorems


class LeanError(ValueError):
    """Lean cannot be used at all: not found, too old, a project that is not built."""


class Refused(ValueError):
    """Text that is not handed to Lean; args: verdict, message."""


# ---------------------------------------------------------------------------------------------------- reading Lean text
# A parse error does not end a Lean file: Lean goes on at the next token at which a command can start, and runs it. So
# words that start commands are refused wherever Lean could read them as one, which needs Lean's own view of comments,
# strings, characters and names. Comments are blanked out before Lean sees the text, so both see the same words.

COMMANDS = set("""abbrev add_decl_doc alias attribute axiom binder_predicate class coinductive compile_inductive
 def deriving dsimproc dsimproc_decl elab elab_rules end end_local_scope example export extern
 gen_injective_theorems grind_pattern implemented_by import include inductive infix infixl infixr init_quot initialize
 initialize_simps_projections instance irreducible_def lemma library_note macro macro_rules meta mk_iff_of_inductive_prop
 mutual namespace noncomputable nonrec notation notation3 omit opaque partial postfix prefix prelude private proof_wanted
 protected public recall reset_grind_attrs seal section simproc simproc_decl structure suppress_compilation
 syntax tactic_extension theorem unif_hint universe unlock_limits unsafe unseal unsuppress_compilation variable
 with_weak_namespace""".split())
FAMILIES = re.compile(r"(register|declare|builtin|run|assert|init|deprecated|docs|dump|norm_cast_add|recommended)_\w+")
CODE = set("by_elab elab_stx include_str eval eval_expr run_tac native native_decide".split())
SEARCH = set("""exact? apply? rw? rewrites? have? try? observe observe? propose hint rw_search library_search polyrith
 suggestions locals""".split())  # what they find depends on the other theorems of the file
NAMES = set("""sorryAx reduceBool reduceNat ofReduceBool ofReduceNat trustCompiler lcProof lcUnreachable lcAny unsafeCast
 skipKernelTC unsafePerformIO""".split())
SORRY = set("sorry admit stop mstop".split())
OPTIONS = ("pp.", "trace.", "linter.", "tactic.", "synthInstance.", "maxRecDepth", "maxHeartbeats", "autoImplicit",
           "relaxedAutoImplicit", "exponentiation.", "simprocs", "push_cast", "maxSynthPendingDepth", "Nat.", "backward.")
SAFE = set("[ , ← <- ⟨ : = with have let at exact apply refine set obtain rcases using from intro ▸".split())
BRACKETS = {"(": ")", "[": "]", "{": "}", "⟨": "⟩", "⦃": "⦄"}
CLOSING = set(BRACKETS.values())
HASH = """exit|eval|print|check|reduce|synth|guard|import|help|where|time|html|widget|find|search|version|show|dump|norm_num|
simp|conv|count|lint""".replace("\n", "")
DEEPEST = 200  # brackets; Lean's own recursion limit is near
FIRST = "A-Za-z_\u0391-\u039f\u03a1\u03a2\u03a4-\u03a9\u03b1-\u03ba\u03bc-\u03fb\u1f00-\u1ffe\u2100-\u214f\U0001d49c-\U0001d59f"
PART = f"(?:[{FIRST}][{FIRST}0-9'!?\u2080-\u2089\u2090-\u209c\u1d62-\u1d6a]*|«[^\\s«»\"'()\\[\\]{{}}⟨⟩/\\\\-]+»)"
TOKEN = re.compile(rf"""(?P<space>[ \n\t]+|--[^\n]*)|(?P<comment>/-)
 |(?P<raw>r\#*")
 |(?P<string>"(?:[^"\\]|\\(?:[\\"'rnt]|x[0-9a-fA-F]{{2}}|u[0-9a-fA-F]{{4}}))*")
 |(?P<char>(?<![^\s(\[{{⟨,])'(?:[^\\'\n]|\\(?:[\\"'rnt]|x[0-9a-fA-F]{{2}}|u[0-9a-fA-F]{{4}}))')
 |(?P<name>{PART}(?:\.{PART})*)
 |(?P<number>(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|[0-9]+(?:_[0-9]+)*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)(?![A-Za-z_]))
 |(?P<symbol>:=|=>|->|<-|<=|>=|!=|==|&&|\|\||\+\+|<\|>|<\||\|>|<;>|\.\.|∃!|.)""", re.X | re.S)
HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\uffff\ud800-\udfff]")


def scan(text, limit=0, first=()):
    """Lean text -> (text with comments blanked out, tokens); Refused if Lean must not see it.

    limit: the largest maxHeartbeats that the text may set, 0: any. first: command words allowed as the first token.
    tokens: [(kind, text, start, bracket depth)]; a bracket has the depth outside it.
    """
    text = text.replace("\r\n", "\n")
    if m := HIDDEN.search(text):
        raise Refused("rejected", f"control or invisible character U+{ord(m[0]):04X}")
    code, tokens, open_, i, problem = [], [], [], 0, None
    while i < len(text):
        m = TOKEN.match(text, i)
        kind, word, start, i = m.lastgroup, m[0], i, m.end()
        if kind in ("space", "comment"):
            if kind == "comment":
                i = _comment_end(text, start)
                word = text[start:i]
                if word[2:3] in ("-", "!") and (tokens or not first):
                    raise Refused("rejected", "a doc comment inside the text")
            code.append(word if word.isspace() else re.sub(r"[^\n]", " ", word))
            continue
        code.append(word)
        if kind == "name" and not (word in first and not tokens):
            line_start = not text[text.rfind("\n", 0, start) + 1:start].strip()
            _check_name(word, "" if line_start or not tokens else tokens[-1][1])
        elif kind == "symbol":
            _check_symbol(text, start, word)
        elif kind == "raw":
            raise Refused("rejected", "a raw string")
        elif kind in ("string", "char") and tokens and (
                text[start - 1] not in " \n\t([{⟨," or "'" in text[start - 3:start] and tokens[-1][0] != "char"
                or "{" in word and re.search(r"[\w!?\]]$", tokens[-1][1])
                or re.search("['\\\\]", text) and COMMANDS.intersection(re.findall("[a-z_]+", word))):
            raise Refused("rejected", f"the {kind} {word[:20]} where Lean could read it in another way")
        if tokens and tokens[-1][1].endswith("maxHeartbeats") and limit and not (word.isdigit() and 0 < int(word) <= limit):
            raise Refused("rejected", f"maxHeartbeats {word}: beyond the limit of {limit}")
        if word in CLOSING and (not open_ or open_.pop() != word):
            problem = problem or f"unexpected '{word}'"
        tokens.append((kind, word, start, len(open_)))
        if word in BRACKETS:
            open_.append(BRACKETS[word])
            if len(open_) > DEEPEST:
                raise Refused("rejected", f"brackets nested more than {DEEPEST} deep")
    if problem or open_:
        raise Refused("failed", problem or f"missing '{open_[-1]}'")
    return "".join(code), tokens


def _comment_end(text, start):
    depth = 0  # block comments nest
    for m in re.compile("/-|-/").finditer(text, start):
        depth += 1 if m[0] == "/-" else -1
        if depth == 0:
            return m.end()
    raise Refused("failed", "unclosed comment")


def _check_symbol(text, i, word):
    if word in '"«' or word.isdigit():
        raise Refused("failed", {'"': "unclosed string, or an escape that Lean does not know", "«": "bad quoted name"}.get(
            word, "a number that runs into a letter"))
    if word == "'" and re.match(r"""'(?:.'|["\\«]|'\S)""", text[i:i + 3]):
        raise Refused("rejected", "a quote that could start a character literal")
    if m := re.match(r"@\[|#(?:" + HASH + ")", text[i:i + 16]):
        raise Refused("rejected", f"the command {m[0]}")


def _check_name(word, before):
    parts = word.replace("«", "").replace("»", "").split(".")
    # at an unknown tactic Lean goes on with its second character: `xaxiom a : False` is an error and then an axiom
    if re.sub(r"^(?:[^a-z«]|0[box])*", "", word[1:]) in COMMANDS and before not in SAFE and not re.search("[.A-Z]", before):
        raise Refused("rejected", f"'{word}' where a tactic starts: Lean may read a command in it")
    plain = unicodedata.normalize("NFKC", word)  # 𝐚𝐱𝐢𝐨𝐦 and the like
    if plain in COMMANDS or FAMILIES.fullmatch(plain):
        raise Refused("rejected", f"the command word '{word}'")
    for words, why in ((SORRY, "leaves a gap"), (CODE, "runs code"), (SEARCH, "a search, not a proof")):
        if plain in words and (plain not in ("locals", "suggestions") or before == "+"):
            raise Refused("rejected", f"'{word}': {why}")
    if bad := NAMES.intersection(parts):
        raise Refused("rejected", f"the name '{bad.pop()}'")
    if before == "set_option" and not ".".join(parts).startswith(OPTIONS):
        raise Refused("rejected", f"set_option {word}")


def template(statement, proof=None, limit=0):
    """Lean text of one theorem, with \\0 for the secret name that keeps it apart from its neighbours; `#print axioms`.

    proof: None leaves it out. The proposition and the proof each stand in brackets of ours. A text with balanced brackets cannot leave them, so the
    statement cannot bring its own proof and the proof cannot go on with commands. Columns stay as they were.
    """
    code, tokens = scan(statement, limit, ("theorem", "lemma"))
    words = [t[1] for t in tokens]
    if words[:1] not in (["theorem"], ["lemma"]) or words[-2:] != [":=", "by"] or tokens[1][0] != "name":
        raise Refused("rejected", "statement: not of the form 'theorem name ... : T := by'")
    top = [t for t in tokens[2:-2] if t[3] == 0]
    colon = next((t[2] for t in top if t[1] == ":"), None)
    name_start, name = tokens[1][2], words[1]
    universes = words[2] == "." and tokens[2][2] == name_start + len(name)
    binders = [t for t in top[universes:] if colon is None or t[2] < colon]
    end = tokens[-2][2]
    if colon is None or tokens[-1][3] or not code[colon + 1:end].strip():
        raise Refused("rejected", "statement: no proposition")
    if bad := [t[1] for t in binders if t[0] != "name" and t[1] not in BRACKETS and t[1] not in CLOSING]:
        raise Refused("rejected", f"statement: '{bad[0]}' before the colon")
    last = name_start + len(name) - len(re.search(f"{PART}$", name)[0])
    body = ["sorry", ""] if proof is None else ["by", ("" if proof[:1].isspace() else "\n") + scan(proof, limit)[0]]
    pad = [" " * (at - code.rfind("\n", 0, at) - 1) for at in (colon + 1, tokens[-1][2])]
    text = (f"section \0\n{code[:last].lstrip()}\0.{code[last:colon]}:(\n{pad[0]}{code[colon + 1:end]}\n):=(\n"
            f"{pad[1]}{body[0]}{body[1]}\n)\nend \0\n")
    return f"{text}#print axioms {code[name_start:last]}\0.{code[last:name_start + len(name)]}\n"


# ------------------------------------------------------------------------------------------------------- running Lean

@dataclass
class Job:
    """One theorem for Lean; a copy of it in the input shares the job."""
    header: str
    text: str
    result: tuple | None = None  # verdict, message, axioms, seconds
    tries: int = 0
    alone: bool = False
    sketch: bool = False  # the proof is left out


@dataclass
class Pool:
    """What the generator and its worker threads share; `cond` guards all of it."""
    argv: list
    cwd: str | None
    workers: int
    timeout: float
    heartbeats: int
    memory: float
    folder: str
    cond: threading.Condition = field(default_factory=threading.Condition)
    queues: dict = field(default_factory=dict)  # header -> deque of jobs
    bad: dict = field(default_factory=dict)  # header that Lean does not accept -> its error
    cost: list = field(default_factory=lambda: [0.0, 0.0])  # seconds of a header, of a theorem: moving averages
    running: set = field(default_factory=set)
    starts: int = 0
    ended: bool = False
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
    if not argv or not shutil.which(argv[0]):
        raise LeanError(f"Lean not found: {' '.join(argv) or 'empty --lean'} (install Lean with elan, or name it with --lean)")
    argv[0] = os.path.abspath(shutil.which(argv[0]))
    try:
        out = subprocess.run([*argv, "--version"], cwd=project, stdin=subprocess.DEVNULL, capture_output=True, timeout=300,
                             text=True, errors="replace", env=ENV)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise LeanError(f"{shlex.join(argv)} --version: {e}") from e
    m = re.search(r"Lean \(version (\d+)\.(\d+)\.(\d+)(\S*?),", out.stdout)
    if not m:
        raise LeanError(f"{shlex.join(argv)} is not Lean: --version says {(out.stdout or out.stderr).strip()[:200]!r}")
    if (int(m[1]), int(m[2])) < (4, 9):
        raise LeanError(f"{shlex.join(argv)} is Lean {m[1]}.{m[2]}.{m[3]}: 4.9 or newer is needed")
    version = f"{m[1]}.{m[2]}.{m[3]}{m[4]}"
    if project:
        _check_project(project, version)
    return argv, version


def _check_project(project, version):
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


def resident(session, _cache={"time": 0.0, "table": {}}, _lock=threading.Lock()):  # noqa: B006, B008
    """Resident bytes of all processes of a session, at most 0.2 s old."""
    with _lock:
        if time.monotonic() - _cache["time"] > 0.2:
            table = collections.Counter()
            for pid in filter(str.isdigit, os.listdir("/proc")):
                with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as f:
                    stat = f.read().rpartition(b")")[2].split()
                    table[int(stat[3])] += int(stat[21]) * os.sysconf("SC_PAGE_SIZE")
            _cache.update(time=time.monotonic(), table=table)
        return _cache["table"][session]


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
    m = re.fullmatch(r"'(.*)' (?:does not depend on any axioms|depends on axioms:\s*\[(.*)\])", report["data"].strip(), re.S)
    if report["severity"] == "error" or not m:
        return "failed", f"no theorem: {report['data']}", []
    axioms = re.split(r",\s*", m[2].strip()) if m[2] else []
    if sketch:
        good = "sorryAx" in axioms and AXIOMS.issuperset(set(axioms) - {"sorryAx"})
        return ("ok", "", axioms) if good else ("failed", f"brings its own proof, or axioms: {axioms}", axioms)
    if bad := [a for a in axioms if a not in AXIOMS]:
        return "rejected", f"uses the axiom {bad[0]}", axioms
    if any(re.search("declaration uses ['`]sorry", x["data"]) for x in messages):
        return "rejected", "uses sorry", axioms
    return "proved", "", axioms


def read_lines(process, out, deadline, memory, tail):
    """Yields the lines of a Lean process as they come; "timeout" or "memory" (a str) ends them early. stderr goes to tail."""
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
            elif b"\n" in chunk:
                first, *lines, last = chunk.split(b"\n")
                yield b"".join([*parts, first])
                yield from lines
                parts = [last]
            else:
                parts.append(chunk)
        if exited and not ready:
            return
        now = time.monotonic()
        if now > deadline():
            yield "timeout"
        if now > look:
            look = now + 0.2
            if resident(process.pid) > memory * 1e9 or len(parts) > 4096:  # a line of 256 MB is no message
                yield "memory"


def run_lean(pool, jobs):
    """Checks jobs of one header in one Lean process, sets their results; returns the jobs that have to run again."""
    secret = "X" + secrets.token_hex(8)
    head = jobs[0].header.replace("\r\n", "\n").rstrip("\n") + f'\n#print "{secret}"\n'
    texts = [job.text.replace("\0", f"{secret}_{k}") for k, job in enumerate(jobs)]
    ends = list(itertools.accumulate((t.count("\n") for t in texts), initial=head.count("\n")))
    path = os.path.join(pool.folder, secret + ".lean")
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        f.write(head + "".join(texts))
    with pool.cond:
        if pool.stop:
            return jobs
        out, terminal = pty.openpty()  # into a pipe, Lean would hold its messages back until 4 kB are full
        try:
            tty.setraw(terminal)
            process = subprocess.Popen([*pool.argv, path], cwd=pool.cwd, stdin=subprocess.DEVNULL, stdout=terminal,
                                       stderr=subprocess.PIPE, start_new_session=True, env=ENV)
        except OSError:
            os.close(out)
            raise
        finally:
            os.close(terminal)
        pool.running.add(process)
        pool.starts += 1
    k, messages, start, why, again, tail = -1, [], time.monotonic(), None, [], bytearray()  # k = -1: the header
    times = [start]
    try:
        for line in read_lines(process, out, lambda: times[-1] + (HEADER_TIMEOUT if k < 0 else pool.timeout), pool.memory, tail):
            if isinstance(line, str):
                why = line
                break
            try:
                m = json.loads(line)
                at, data, _ = m["pos"]["line"], m["data"], m["severity"]
            except (ValueError, KeyError, TypeError):
                continue  # not a message of Lean's
            if at != ends[k + 1] or k < 0 and data != secret:
                messages.append(m)
                continue
            times.append(time.monotonic())
            if k >= 0:
                verdict, message, axioms = judge(messages, m, jobs[k].sketch)
                if k and verdict == "rejected":  # an auxiliary lemma of a neighbour may carry the axiom
                    jobs[k].alone = True
                    again.append(jobs[k])
                else:
                    finish(pool, jobs[k], verdict, message.replace(f"{secret}_{k}.", ""), axioms, times[-1] - times[-2])
            left_open = any(x["severity"] == "error" and x["pos"]["line"] == at - 1 for x in messages)
            k, messages = k + 1, []
            if k == len(jobs) or left_open:
                break
        else:
            why = "ended"
    finally:
        kill(process)
        os.close(out)
        process.stderr.close()
        os.unlink(path)
        with pool.cond:
            pool.running.discard(process)
            if k > 0:
                pool.cost = [(a + b) / 2 if a else b for a, b in
                             zip(pool.cost, (times[1] - times[0], (times[-1] - times[1]) / k), strict=True)]
    rest = jobs[max(k, 0):]
    if rest and why and not pool.stop:
        errors = [m["data"] for m in messages if m["severity"] == "error"]
        rest = blame(pool, rest, k, why, errors, process.returncode, tail, time.monotonic() - times[-1])
    return again + rest


def blame(pool, jobs, k, why, errors, status, tail, seconds):
    """jobs[0] was being checked (k < 0: its header) when the process had to end: its verdict or its retry; the jobs left."""
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
            result = "failed", errors[0] if errors else "Lean came to the end of the file without a report on it"
        else:
            result = "crashed", f"Lean ended with status {status}{' while it read the header' * (k < 0)}: {text or why}"
    finish(pool, job, *result, [], seconds)
    return jobs[1:]


def finish(pool, job, verdict, message, axioms, seconds):
    with pool.cond:
        job.result, job.text = (verdict, message[:2000], axioms, round(seconds, 4)), ""
        pool.cond.notify_all()


def take(pool):
    """The jobs of the next Lean process: one header, and so many that the header costs about 5% of the time."""
    with pool.cond:
        while not pool.stop:
            if not pool.queues:
                pool.cond.wait()
                continue
            header, queue = next(iter(pool.queues.items()))
            if not pool.ended and len(queue) < 2 * FIRST_BATCH and not pool.cond.wait(GRACE) and pool.queues:
                header, queue = next(iter(pool.queues.items()))
            if not pool.queues or pool.stop:
                continue
            h, s = pool.cost
            most = min(LARGEST_BATCH, int(19 * h / s) + 1 if s else FIRST_BATCH)
            share = max(-(-len(queue) // pool.workers), int(4 * h / s) if s else 1)
            jobs = []
            while queue and len(jobs) < min(most, share) and not (jobs and (jobs[0].alone or queue[0].alone)):
                jobs.append(queue.popleft())
            if not queue:
                del pool.queues[header]
            if header in pool.bad:
                for job in jobs:
                    finish(pool, job, "crashed", pool.bad[header], [], 0.0)
                continue
            return jobs
    return None


def work(pool):
    """A worker thread: one Lean process after the other until the pool stops."""
    try:
        while jobs := take(pool):
            try:
                again = run_lean(pool, jobs)
            except OSError as e:  # no process, no disk
                again = blame(pool, jobs, -1, str(e), [], None, b"", 0.0)
            if again:
                with pool.cond:
                    pool.queues.setdefault(again[0].header, collections.deque()).extendleft(reversed(again))
                    pool.cond.notify_all()
    except BaseException as e:  # noqa: BLE001  the caller gets it
        with pool.cond:
            pool.error = e
            pool.cond.notify_all()


def stream(items, prepare, pool):
    """Yields (item, result) in input order. Lean works in the background, also while `items` makes its next item."""
    threads = [threading.Thread(target=work, args=(pool,), daemon=True) for _ in range(pool.workers)]

    def shut_down():
        with pool.cond:
            pool.stop = True
            for process in pool.running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            pool.cond.notify_all()
        for t in threads:
            t.join()
        shutil.rmtree(pool.folder, ignore_errors=True)

    def result(job):
        with pool.cond:
            pool.cond.wait_for(lambda: job.result or pool.error)
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
                with pool.cond:
                    queue = pool.queues.get(job.header)
                    if queue is None:
                        pool.queues[job.header] = queue = collections.deque()
                        pool.cond.notify()
                    queue.append(job)
            waiting.append((item, job))
            while waiting and (waiting[0][1].result or len(waiting) > LOOK_AHEAD):
                item, job = waiting.popleft()
                yield item, result(job)
        with pool.cond:
            pool.ended = True
            pool.cond.notify_all()
        while waiting:
            item, job = waiting.popleft()
            yield item, result(job)
    finally:
        atexit.unregister(shut_down)
        shut_down()


# ------------------------------------------------------------------------------------------------------------ interface

def make_pool(lean, project, workers, timeout, heartbeats, memory):
    if timeout <= 0 or memory <= 0 or heartbeats < 0 or (workers or 1) < 1:
        raise ValueError("timeout, memory and workers must be above 0, heartbeats at least 0")
    argv, version = find_lean(lean, project)
    argv = [*argv, "--json", f"-DmaxHeartbeats={heartbeats}", "-Dlinter.all=false"]
    if tuple(map(int, version.split(".")[:2])) >= (4, 16):  # else Lean stops at the 100th error; and one theorem at a time
        argv += ["-Dweak.maxErrors=0", "-Dweak.Elab.async=false"]
    return Pool(argv, project, workers or len(os.sched_getaffinity(0)), timeout, heartbeats, memory,
                tempfile.mkdtemp(prefix="lean_check_"))


def check(attempts, *, lean=None, project=None, header="", workers=None, timeout=60.0, heartbeats=400_000, memory=8.0):
    """Yields {**attempt, "verdict", "message", "axioms", "seconds"} for every attempt, in their order.

    attempts: any iterable of {"statement": "theorem ... := by", "proof": "...", "header"?: ...}; it may be slow and endless,
    checking starts with what has arrived, and at most LOOK_AHEAD attempts are held.
    lean: command; project: folder of a Lake project; workers: Lean processes (None: one a core); timeout: seconds a theorem;
    heartbeats: Lean's deterministic limit, 0: none; memory: resident GB of a Lean process. LeanError: no usable Lean.
    """
    pool = make_pool(lean, project, workers, timeout, heartbeats, memory)

    def prepare(a):
        head = a.get("header", header) or ""
        key = hashlib.blake2b("\0".join((head, a["statement"], a["proof"])).encode(errors="replace"), digest_size=16).digest()
        try:
            return key, Job(head, template(a["statement"], a["proof"], heartbeats))
        except Refused as e:
            return key, Job(head, "", (*e.args, [], 0.0))

    def verdicts():
        for a, result in stream(attempts, prepare, pool):
            yield {**a, **dict(zip(("verdict", "message", "axioms", "seconds"), result, strict=True))}
    return verdicts()


def check_statements(statements, *, known=(), lean=None, project=None, header="", workers=None, timeout=60.0,
                     heartbeats=400_000, memory=8.0):
    """Yields {**statement, "verdict", "message"} for every {"statement", "header"?}, in their order.

    ok         exactly one theorem, new, and it elaborates with its proof left out
    malformed  anything else; the message says why
    duplicate  differs from one of `known` (texts), or an earlier one, only in theorem name, white space, bound variables
    timeout, crashed  as for proofs
    """
    pool = make_pool(lean, project, workers, timeout, heartbeats, memory)
    digest = lambda s: hashlib.blake2b(normal_form(s).encode(errors="replace"), digest_size=16).digest()  # noqa: E731
    seen = set(map(digest, known))

    def prepare(d):
        key = digest(d["statement"])
        if key in seen:
            return None, Job("", "", ("duplicate", "same as a known statement or an earlier one"))
        seen.add(key)
        try:
            return key, Job(d.get("header", header) or "", template(d["statement"], None, heartbeats), sketch=True)
        except Refused as e:
            return key, Job("", "", ("malformed", e.args[1]))

    def verdicts():
        for d, (verdict, message, *_) in stream(statements, prepare, pool):
            yield {**d, "verdict": "malformed" if verdict in ("failed", "rejected") else verdict, "message": message}
    return verdicts()


def normal_form(statement):
    """The statement without its name, white space and comments."""
    try:
        tokens = scan(statement, 0, ("theorem", "lemma"))[1]
    except Refused:
        return " ".join(statement.split())
    return " ".join(t[1] for t in tokens[2:])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("input", metavar="IN.jsonl")
    p.add_argument("--out", default="-")
    p.add_argument("--lean")
    p.add_argument("--lean_project")
    p.add_argument("--header", default="")
    p.add_argument("--workers", type=int)
    p.add_argument("--timeout", type=float, default=60.0)
    p.add_argument("--heartbeats", type=int, default=400_000)
    p.add_argument("--memory", type=float, default=8.0)
    a = p.parse_args()
    with open(a.input) as f:
        for r in check(map(json.loads, f), lean=a.lean, project=a.lean_project, header=a.header, workers=a.workers,
                       timeout=a.timeout, heartbeats=a.heartbeats, memory=a.memory):
            print(json.dumps(r, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
