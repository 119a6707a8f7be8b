"""STP, the self-play theorem prover (Dong & Ma, arXiv 2502.00212), in one script.

One language model plays two roles. As conjecturer it writes new statements from theorems it has proved; as
prover it tries to prove them and a fixed set of given statements. Lean 4 judges. The model is trained on the
proofs that Lean accepts and on the conjectures that were barely provable; the next iteration starts there.

  python stp.py --iters 24                   laptop without a GPU: tiny preset, everything made on the spot
  python stp.py --iters 24                   one or eight GPUs: paper preset, a process per GPU (README: data)
  python stp.py --dry_run --preset paper     what the paper's run needs: samples, memory, disk, missing pieces
  python stp.py --conjecturer off            expert iteration; with --prover frozen: parallel sampling
  python stp.py --iters 0 --model DIR --eval FILE --samples 128       evaluation alone
  python stp.py --plot out/a out/b           several runs in one table and picture

Read it from `run` and `self_play_iteration` downwards: choose_seeds -> conjecture -> prove (Lean checks while
sampling goes on) -> reward.select -> training_examples -> finetune. What these call (processes, sampling,
training) comes after them. lean_check.py says which proofs count, reward.py which conjectures.

Differences from the paper and its official code
  1. LoRA instead of a full finetune (--lora_r 0 is the full one). The adapter is carried from iteration to
     iteration, its optimizer is not, as in the official code.
  2. The reweighting problem is solved to its optimum; the official code is greedy (--reweight greedy).
  3. Prover samples that conjectures leave unused go to the given statements, so that every iteration spends
     the same 2 K |statements| proofs and arms with and without conjectures can be compared.
  4. The weight of a proof has no verify-seconds term: it would make a run depend on the machine's speed.
  5. A conjecture must elaborate in Lean, with no unknown name taken for a variable (autoImplicit), and differ
     from every given statement in more than names and space.
  6. tiny preset only (table PRESETS): sizes shrink, an iteration has three epochs instead of one, a
     conjecture is challenging up to a pass rate of 1/2 instead of 1/4, and stage 3 repeats the proofs found.

The run folder (--out). A file or folder that exists is finished: the same command goes on after any stop.
  config.json                all flags, versions
  base/ sft/                 stage 1: the tiny base model; SFT adapter/ and merged/ model
  iter_07/seeds.jsonl        statement, proof, lemma
  iter_07/conjectures.jsonl  each parsed conjecture: seed, verdict of the checker, "tried": by the prover
  iter_07/attempts.jsonl     each distinct (statement, proof): count, verdict, message
  iter_07/rewards.jsonl      each tried conjecture: pass_rate, reason it was kept or dropped, weight
  iter_07/examples.jsonl     prompt, target, weight: what the model was trained on
  iter_07/model/             LoRA adapter/ and the merged/ model that the next iteration samples from
  final_24/                  stage 3: the re-trained model, merged/ loads with transformers
  eval/final_24/             per file: attempts.jsonl, result.json (pass@k), proofs.lean
  metrics.jsonl, progress.png

metrics.jsonl, one object an iteration
  iteration; given, proved, cumulative: given statements, those proved so far, their share; proofs, tokens:
  sampled by the prover so far; seeds; sampled, wellformed, distinct, tried: conjectures written, that parse
  and elaborate, that are new, that the prover tried; provable, barely, kept: of those tried, with any proof,
  challenging, with weight > 0; rate_given, rate_conjectures: mean pass rates; hist_given, hist_conjectures:
  counts of pass rate 0, then of eight equal bins of (0, 1], over statements unproved at the iteration's start
  and over tried conjectures; len_conjectures, len_kept: mean characters; lemmas: distinct lemmas invoked by
  new proofs; proofs_each: mean distinct proofs of a proved statement; examples_proofs, examples_conjectures;
  verdicts: counts; loss; seconds: by phase (prove_wait: waiting for Lean after the last sample).
"""
import argparse
import array
import contextlib
import functools
import glob
import hashlib
import importlib.metadata
import importlib.util
import itertools
import json
import math
import multiprocessing
import os
import random
import re
import shlex
import shutil
import signal
import sys
import threading
import time
import warnings
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

import lean_check

# reward.py imports torch, which takes seconds: it is loaded at its first use, so that --help starts at once.
spec = importlib.util.find_spec("reward")
spec.loader = importlib.util.LazyLoader(spec.loader)
sys.modules["reward"] = reward = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reward)

HERE = os.path.dirname(os.path.abspath(__file__))
PAPER_HEADER = ("import Mathlib\nimport Aesop\nset_option maxHeartbeats 400000\n"
                "open BigOperators Real Nat Topology Rat\n")

# Flags carry the paper's values as defaults; a preset names only what differs.
PRESETS = {
    "paper": {},
    "tiny": dict(
        # nothing to download
        model="scratch", header="", lean=shlex.join([sys.executable, f"{HERE}/tiny/lean"]),
        statements=[f"{HERE}/tiny/statements.jsonl"], library=[f"{HERE}/tiny/library.jsonl"], sft=[],
        # sizes for two CPU cores
        max_prompt=384, max_new=128, K=4, K0=4, samples=8, shard=512, timeout=5.0,
        # one or two proofs of four: with one alone too few conjectures are kept to train the conjecturer
        challenge=0.5,
        # a small model takes large steps and needs many of them
        lora_r=32, lora_alpha=64, lr=5e-4, sft_lr=5e-4, retrain_lr=5e-4, batch_size=8, epochs=3,
        # self-play trains on a proof in 3 iterations of 3 epochs; once beside the SFT data is too little
        retrain_repeat=9),
}


class UserError(Exception):
    """Bad input: printed as one line, exit status 2."""


# ------------------------------------------------------------------------------------------------------ flags

def make_parser():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False,
                                formatter_class=argparse.ArgumentDefaultsHelpFormatter)

    def add(flag, default, help, **how):  # without `how` a switch, or a value of the type of its default
        if not how:
            how = {"action": "store_true"} if default is False else {"type": type(default)}
        group.add_argument(flag, default=default, help=help, **how)

    group = p.add_argument_group("run")
    add("--preset", "auto", "auto: paper if CUDA is there", choices=("auto", "tiny", "paper"))
    add("--iters", 24, "self-play iterations; 0: no self-play, evaluate --model")
    add("--out", "out", "run folder")
    add("--seed", 0, "random seed of everything")
    add("--procs", 0, "processes of training; 0: one per GPU, else one per core, at most 4")
    add("--gpu_memory", 80, "GB of a GPU, for the plan and its warnings", type=float)
    add("--keep", 1, "newest iterations whose model stays on disk; 0: all")
    add("--overwrite", False, "delete --out first if it holds an older run")
    add("--dry_run", False, "print plan, memory, disk and what is missing; run nothing")
    add("--plot", None, "compare finished runs: a table, progress.png here; exit", nargs="+", metavar="RUN")

    group = p.add_argument_group("data (JSON list or JSON Lines)")
    add("--statements", ["data/leanworkbook.jsonl"], nargs="+", metavar="FILE",
        help="given statements: formal_statement or statement; optional header, split, name")
    add("--library", [], "theorems with proofs: name, statement, proof; optional file, lemma, header",
        nargs="*", metavar="FILE")
    add("--sft", ["data/sft.jsonl"], "prompt, target, optional weight", nargs="*", metavar="FILE")
    add("--header", PAPER_HEADER, "Lean header of statements that bring none")

    group = p.add_argument_group("model")
    add("--model", "deepseek-ai/DeepSeek-Prover-V1.5-SFT",
        "base model, hub name or folder; scratch: build and pretrain a tiny one on --library")
    add("--layers", 3, "scratch model: layers")
    add("--width", 64, "scratch model: hidden size, a multiple of 32")
    add("--pretrain_epochs", 5, "scratch model: epochs of all weights on the SFT data")
    add("--pretrain_lr", 1.5e-3, "scratch model: learning rate")
    add("--lora_r", 64, "LoRA rank on all linear layers; 0: full finetune")
    add("--lora_alpha", 128, "LoRA scale times rank")

    group = p.add_argument_group("sampling")
    add("--engine", "auto", "auto: vllm if CUDA is there", choices=("auto", "vllm", "hf"))
    add("--tensor_parallel", 1, "GPUs a vLLM engine spans: --procs / this many engines sample")
    add("--K", 32, "proofs sampled per statement")
    add("--K0", 64, "the same in iteration 0")
    add("--temperature", 1.0, "0: greedy")
    add("--max_prompt", 1024, "prompt tokens; longer ones lose their beginning")
    add("--max_new", 1024, "completion tokens")
    add("--shard", 16384, "samples per shard file, the unit of work and of resuming")

    group = p.add_argument_group("conjecturing (section 3.1)")
    add("--conjecturer", "on", "frozen: conjectures are tried but never trained on; off: expert iteration",
        choices=("on", "frozen", "off"))
    add("--seed_rate", 0.35, "a statement seeds when its best pass rate is above this")
    add("--lemma_cap", 0.1, "largest share of seeds with the same lemma")
    add("--per_seed", 8, "most conjectures sampled per seed")
    add("--resample", 0.05, "chance to try a proved given statement again")

    group = p.add_argument_group("reward (section 3.2, reward.py)")
    add("--challenge", 0.25, "largest pass rate of a kept conjecture; 1: no filter")
    add("--elegance", 0.2, "share dropped for short proofs of long statements; 0: none")
    add("--elegance_group", "lemma", "official code: lemma; paper: all", choices=("lemma", "all"))
    add("--reweight", "optimal", "Wasserstein reweighting towards unproved statements; uniform: none",
        choices=("optimal", "greedy", "uniform"))
    add("--kappa", 4.0, "largest weight of a conjecture (1: uniform)")

    group = p.add_argument_group("training (section 3.3)")
    add("--prover", "on", "frozen: no training in self-play", choices=("on", "frozen"))
    add("--lr", 5e-5, "learning rate of self-play")
    add("--epochs", 1, "epochs an iteration")
    add("--batch_size", 2048, "sequences an optimizer step, over all processes")
    add("--tokens_per_step", 8192, "tokens a micro-batch, per process")
    add("--max_len", 2048, "tokens of a training sequence; longer ones are dropped")
    add("--replay", 3, "iterations whose proofs are trained on and seed")
    add("--train_rate", 0.5, "largest pass rate of a statement whose proofs train")
    add("--gamma", 0.001, "proof weight exp(-gamma characters); 0: length is free")
    add("--sft_lr", 1e-4, "stage 1: learning rate")
    add("--sft_epochs", 1, "stage 1: epochs")
    add("--no_retrain", False, "skip stage 3, the final re-training from the base model")
    add("--retrain_lr", 1e-4, "stage 3: learning rate")
    add("--retrain_proofs", 16, "stage 3: most proofs per statement")
    add("--retrain_repeat", 1, "stage 3: times each such proof is trained on; SFT data: once")
    add("--restart_every", 0, "also re-train every R iterations and go on from it; 0: no")

    group = p.add_argument_group("evaluation")
    add("--eval", None, "statements scored at the end; default: --statements", nargs="+", metavar="FILE")
    add("--samples", 128, "samples per statement, for pass@1, 2, 4, ...; 0: no evaluation")

    group = p.add_argument_group("Lean (lean_check.py)")
    add("--lean", None, "Lean command; default: lean of the PATH", type=str)
    add("--lean_project", None, "folder of a built Lake project, for Mathlib", type=str)
    add("--lean_workers", 0, "Lean processes; 0: one per core")
    add("--timeout", 200.0, "seconds a proof")
    add("--heartbeats", 400000, "Lean's deterministic limit; 0: none")
    add("--memory", 8.0, "GB a Lean process")
    return p


def parse_args(argv=None):
    """The flags, with what `auto`, 0 and an absent --eval stand for on this machine filled in."""
    p, gpus = make_parser(), n_gpus()
    preset = p.parse_known_args(argv)[0].preset
    if preset == "auto":
        preset = "paper" if gpus else "tiny"
    p.set_defaults(**PRESETS[preset])
    args = p.parse_args(argv)
    args.preset = preset
    args.engine = ("vllm" if gpus else "hf") if args.engine == "auto" else args.engine
    args.procs = args.procs or gpus or min(4, len(os.sched_getaffinity(0)))
    args.eval = args.eval or args.statements
    return args


def n_gpus():
    """Number of CUDA devices, counted without importing torch and without opening one."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    # A container has a /dev of its own.
    devices = glob.glob("/dev/nvidia[0-9]*") or glob.glob("/proc/driver/nvidia/gpus/*")
    if visible is None:
        return len(devices)
    return min(len(devices), sum(d.strip() not in ("", "-1") for d in visible.split(",")))


# ------------------------------------------------------------------------------------------------------ files

def read_jsonl(path):
    """Yields the objects of a JSON list or JSON Lines file. Raises UserError naming file and line."""
    try:
        with open(path, encoding="utf-8") as f:
            start = f.read(1)
            f.seek(0)
            if start == "[":
                yield from json.load(f)
                return
            for n, line in enumerate(f, 1):  # noqa: B007  the error below names n
                if line.strip():
                    yield json.loads(line)
    except json.JSONDecodeError as e:
        line = e.lineno if start == "[" else n
        why = f"not JSON ({e.msg}); expected one object a line or one list"
        raise UserError(f"{path}, line {line}: {why}") from None
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"{path}: cannot be read ({e})") from None


def write_jsonl(path, rows):
    """Writes rows and only then gives the file its name, so that a file that exists is complete."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path + ".tmp", "w", encoding="utf-8") as f:
        for row in rows:
            f.write(json.dumps(row, ensure_ascii=False) + "\n")
    os.replace(path + ".tmp", path)


def phase(path, make):
    """The rows of `path`; if it does not exist yet, `make()` yields them and they are written first."""
    if not os.path.exists(path):
        write_jsonl(path, make())
    return list(read_jsonl(path))


def rng(args, *where):
    """A random generator of its own for each phase, so that a resumed run draws the same numbers."""
    return random.Random(f"{args.seed}/{'/'.join(map(str, where))}")


@functools.cache
def load_statements(path):
    """Given statements as they come: ":=", ":= by", ":= by sorry" or ":= sorry" at the end, any header.

    Returns dicts {"name", "statement" ending in ":= by", "split", maybe "header"}, the first of equal ones.
    What is no statement is left out and counted; it is an error if nothing else is there.
    """
    found, unusable = {}, []
    for n, row in enumerate(read_jsonl(path), 1):
        text = row.get("formal_statement") or row.get("statement") if isinstance(row, dict) else None
        if not isinstance(text, str):
            unusable.append(f'entry {n}: no "statement" or "formal_statement"')
            continue
        text = re.sub(r"\s*:=\s*(by\s*)?(sorry\s*)?$", "", text.strip())
        if len(re.findall(r"^\s*(?:theorem|lemma|example)\b", text, re.M)) != 1 or ":" not in text:
            unusable.append(f"entry {n}: not one theorem: {text[:60]!r}")
            continue
        row = {"name": row.get("name") or f"statement_{n}", "statement": text + " := by",
               "split": row.get("split") or "all", **({"header": row["header"]} if row.get("header") else {})}
        found.setdefault(row["statement"], row)
    if not found:
        raise UserError(f"{path}: no statement in it" + "".join(f"; {why}" for why in unusable[:1]))
    if unusable:
        print(f"{path}: {len(unusable)} of {n} entries are left out; {unusable[0]}", file=sys.stderr)
    return list(found.values())


def load_given(args):
    """All given statements: the split "train" where there is one, else every statement."""
    rows = {s["statement"]: s for path in args.statements for s in load_statements(path)}.values()
    return [s for s in rows if s["split"] == "train"] or list(rows)


def load_library(args):
    """Library theorems, and the dictionary of lemmas, their names: a proof invokes a lemma that it names."""
    rows = [row for path in args.library for row in read_jsonl(path)]
    for n, row in enumerate(rows, 1):
        if not (isinstance(row, dict) and {"name", "statement", "proof"} <= row.keys()):
            raise UserError(f'--library, entry {n}: needs "name", "statement" and "proof"')
    return rows, {row["name"]: row["statement"] for row in rows}


# ---------------------------------------------------------------------------------------------------- prompts
# The official formats, byte for byte, so that the released SFT data and checkpoints can be used.

STOP_PROOF, STOP_CONJECTURE = "\n```", "</hard theorem>"


def prover_prompt(statement, header):
    return f"Complete the following Lean 4 code:\n\n```lean4\n{header}{statement}"


def conjecturer_prompt(lemma_statement, statement, proof):
    return ("Complete the following Lean 4 code:\n\n```lean4\n"
            f"<lemma>\n{lemma_statement or 'theorem true: True'}\n"
            f"<easy theorem>\n{statement}{proof}\n<hard theorem>\n theorem")


def parse_conjecture(completion):
    """The statement in a conjecturer's completion: cut at the first ":=", closed with ":= by"."""
    return "theorem " + completion.split(STOP_CONJECTURE)[0].split(":=")[0].strip() + " := by"


def prover_example(row, args, weight=1.0):
    return {"prompt": prover_prompt(row["statement"], row.get("header", args.header)),
            "target": row["proof"] + STOP_PROOF, "weight": weight}


def conjecturer_example(seed, conjecture, lemmas, weight=1.0):
    return {"prompt": conjecturer_prompt(lemmas.get(seed["lemma"]), seed["statement"], seed["proof"]),
            "target": conjecture.removeprefix("theorem") + "\n" + STOP_CONJECTURE, "weight": weight}


# ------------------------------------------------------------------------------------ the three stages of STP

def run(args):
    """SFT, self-play for --iters iterations, re-training, evaluation; what is finished is read back."""
    given, library, lemmas = check_input(args)
    settle(args)
    base = f"{args.out}/base/merged" if args.model == "scratch" else args.model
    policy, history = stage_1(base, library, lemmas, args), History(replay=deque(maxlen=args.replay))
    path = f"{args.out}/metrics.jsonl"
    rows = list(read_jsonl(path)) if os.path.exists(path) else []
    print(HEADING, flush=True)
    for t in range(args.iters):
        folder, restart = f"{args.out}/iter_{t:02d}", f"{args.out}/restart_{t + 1:02d}"
        if t < len(rows):  # finished in an earlier run
            stats = json.loads(Path(f"{folder}/attempts.json").read_text())
            history.add(load_attempts(folder), stats["tokens"])
            if os.path.exists(f"{folder}/model"):
                policy = trained(f"{folder}/model", base, args)
        else:
            policy, row = self_play_iteration(t, given, lemmas, history, policy, args)
            rows.append(row)
            write_jsonl(path, rows)
        print(report(rows[t]), flush=True)
        if args.restart_every and (t + 1) % args.restart_every == 0 and t + 1 < args.iters and (
                t + 1 == len(rows) or os.path.exists(restart)):  # else a later model has taken its place
            policy = stage_3(restart, base, library, lemmas, args, upto=t + 1)
        for old in (f"{args.out}/iter_{t - args.keep:02d}/model", f"{args.out}/restart_{t - args.keep:02d}"):
            if 0 < args.keep <= t and not policy[2].startswith(old):  # an iteration may train nothing
                shutil.rmtree(old, ignore_errors=True)
    if args.iters and not args.no_retrain:
        print("final re-training from the base model")
        policy = stage_3(f"{args.out}/final_{args.iters:02d}", base, library, lemmas, args, upto=args.iters)
    print(f"final model: {policy[2]}")
    if args.samples:
        evaluate(policy[2], args)
    if rows:
        plot(load_arms([args.out]), f"{args.out}/progress.png")


def finetune(folder, base, adapter, examples, args, **how):
    """Trains by LoRA, or all weights (--lora_r 0). Returns the new policy and the mean loss."""
    loss = train(folder, base, adapter, examples, args, full=args.lora_r == 0, **how)
    return trained(folder, base, args), loss


def trained(folder, base, args):
    """The policy that training left: (base to go on from, its LoRA adapter or None, model to sample from)."""
    merged = f"{folder}/merged"
    return (base, f"{folder}/adapter", merged) if args.lora_r else (merged, None, merged)


# ----------------------------------------------------------------------------- stage 1: supervised finetuning

def stage_1(base, library, lemmas, args):
    """Pretrains a scratch model, finetunes the base on SFT data. Evaluation alone takes a model as it is."""
    if args.iters == 0 and args.model != "scratch":
        return base, None, base
    examples = sft_examples(library, lemmas, args)
    if args.model == "scratch" and not os.path.exists(f"{args.out}/base"):
        build_scratch_model(f"{args.out}/random", examples, args)
        train(f"{args.out}/base", f"{args.out}/random", None, examples, args,
              lr=args.pretrain_lr, epochs=args.pretrain_epochs, full=True, pretrain=True)
        shutil.rmtree(f"{args.out}/random")
    return finetune(f"{args.out}/sft", base, None, examples, args, lr=args.sft_lr, epochs=args.sft_epochs)[0]


def sft_examples(library, lemmas, args):
    """Examples of both roles (section 3.1): --sft files as they are, and those mined from the library.

    For theorem B whose proof uses lemma L, the nearest earlier theorem A of the same file that uses L too
    gives the conjecturer example (L, A) -> B; the nearest earlier A of all gives one for "no lemma".
    """
    examples = [row for path in args.sft for row in read_jsonl(path)]
    for n, e in enumerate(examples, 1):
        if not (isinstance(e, dict) and all(isinstance(e.get(k), str) for k in ("prompt", "target"))):
            raise UserError(f'--sft, entry {n}: needs "prompt" and "target"')
    latest = defaultdict(dict)  # file -> lemma or None -> latest theorem that uses it
    for b in library:
        examples.append(prover_example(b, args))
        seen = latest[b.get("file")]
        uses = [*sorted(reward.invoked(b["proof"], lemmas)), None]
        for L in uses:
            if L in seen:
                examples.append(conjecturer_example({**seen[L], "lemma": L}, b["statement"], lemmas))
        seen.update(dict.fromkeys(uses, b))
    return examples


# ----------------------------------------------------------------------------------------- stage 2: self-play

@dataclass
class History:
    """Best pass rate of each given statement tried, attempts of the last --replay iterations, totals."""
    best: dict = field(default_factory=dict)
    replay: deque = field(default_factory=deque)
    proofs: int = 0
    tokens: int = 0

    def add(self, attempts, tokens):
        for s, rate in reward.pass_rates([a for a in attempts if a["role"] == "given"]).items():
            self.best[s] = max(rate, self.best.get(s, 0))
        self.replay.append(attempts)
        self.proofs += sum(a["count"] for a in attempts)
        self.tokens += tokens


def load_attempts(folder):
    """An iteration's proved attempts; of the others, far more, one row for each statement and verdict."""
    proved, others = [], Counter()
    for a in read_jsonl(f"{folder}/attempts.jsonl"):
        if a["verdict"] == "proved":
            proved.append(a)
        else:
            others[a["statement"], a["role"], a["verdict"]] += a["count"]
    return proved + [{"statement": statement, "role": role, "verdict": verdict, "proof": "", "count": count}
                     for (statement, role, verdict), count in others.items()]


def self_play_iteration(t, given, lemmas, history, policy, args):
    """One iteration of self-play (section 3). Returns the new policy and the iteration's line of metrics."""
    import torch
    folder, (base, adapter, model) = f"{args.out}/iter_{t:02d}", policy
    draw, seconds, clock = rng(args, t, "given"), {}, time.time()

    def lap(name):
        nonlocal clock
        seconds[name], clock = round(time.time() - clock, 2), time.time()

    unproved = [s for s in given if not history.best.get(s["statement"])]
    again = [s for s in given if (rate := history.best.get(s["statement"])) and
             (rate < args.seed_rate or draw.random() < args.resample)]
    statements = unproved + again

    # Conjecture: from the proofs of given statements, write new statements.
    seeds = phase(f"{folder}/seeds.jsonl", lambda: choose_seeds(history, lemmas, len(statements), t, args))
    conjectures = phase(f"{folder}/conjectures.jsonl", lambda: conjecture(
        folder, seeds, given, lemmas, len(statements), len(unproved), t, model, args))
    tried = [c for c in conjectures if c["tried"]]
    lap("conjecture")

    # Prove and verify: K samples for each given statement and conjecture.
    K = args.K if t else args.K0
    spare = K * (len(statements) - len(tried)) // max(1, len(statements))
    jobs = [{**s, "role": "given", "n": K + max(0, spare)} for s in statements]
    jobs += [{**c, "role": "conjecture", "n": K} for c in tried]
    stats = prove(f"{folder}/attempts.jsonl", jobs, model, args)
    attempts = load_attempts(folder)
    lap("prove")

    # Reward: keep barely provable, relevant, elegant conjectures, reweighted towards the unproved statements.
    rewards = phase(f"{folder}/rewards.jsonl", lambda: reward.select(
        tried, [a for a in attempts if a["role"] == "conjecture"], [s["statement"] for s in unproved],
        lambda texts: embed(f"{folder}/embeddings", texts, model, args), challenge=args.challenge,
        elegance=args.elegance, elegance_group=args.elegance_group, reweight=args.reweight, kappa=args.kappa,
        seed=args.seed))
    torch.cuda.empty_cache()  # this process reweights on the first GPU, which the trainer and vLLM fill
    lap("reward")

    # Train: the same model on both roles.
    history.add(attempts, stats.pop("tokens"))
    examples = phase(f"{folder}/examples.jsonl", lambda: training_examples(history, rewards, lemmas, args))
    loss = None
    if examples and args.prover == "on":
        policy, loss = finetune(f"{folder}/model", base, adapter, examples, args,
                                lr=args.lr, epochs=args.epochs)
    lap("train")
    return policy, metrics(t, given, unproved, seeds, conjectures, attempts, rewards, examples, history, loss,
                           seconds | stats, lemmas)


def choose_seeds(history, lemmas, budget, t, args):
    """Seeds (statement, proof, lemma) from replayed proofs of given statements, at most `budget` (step 1)."""
    if args.conjecturer == "off":
        return []
    draw, count, seeds = rng(args, t, "seeds"), Counter(), {}
    proofs = [a for attempts in history.replay for a in attempts if a["role"] == "given" and
              a["verdict"] == "proved" and history.best[a["statement"]] > args.seed_rate]
    draw.shuffle(proofs)
    for p in proofs:
        for lemma in sorted(reward.invoked(p["proof"], lemmas)) + [None] * (draw.random() < 0.5):
            if (p["statement"], lemma) in seeds or lemma and count[lemma] >= args.lemma_cap * budget:
                continue
            count[lemma] += 1
            seeds[p["statement"], lemma] = {"statement": p["statement"], "proof": p["proof"], "lemma": lemma,
                                            **({"header": p["header"]} if "header" in p else {})}
    return list(itertools.islice(seeds.values(), budget))


def conjecture(folder, seeds, given, lemmas, n_statements, n_unproved, t, model, args):
    """Samples conjectures, has Lean check that they are new and well-formed, marks those to try (step 2)."""
    if not seeds:
        return
    n = max(1, min(args.per_seed, 3 * n_statements // len(seeds)))
    rows = [{**s, "prompt": conjecturer_prompt(lemmas.get(s["lemma"]), s["statement"], s["proof"]), "n": n}
            for s in seeds]
    parsed = []
    for seed, texts in sample(f"{folder}/conjecture", rows, STOP_CONJECTURE, model, args, {}):
        source = {"lemma": seed["lemma"], "seed": seed["statement"], "seed_proof": seed["proof"],
                  **({"header": seed["header"]} if "header" in seed else {})}
        parsed += [{"statement": parse_conjecture(text), **source} for text in texts]
    rng(args, t, "conjectures").shuffle(parsed)
    checked = lean_check.check_statements(parsed, known=[s["statement"] for s in given], **lean_options(args))
    places = n_unproved
    for c in tqdm(checked, desc="  Lean, conjectures", total=len(parsed), leave=False, disable=None):
        tried = c["verdict"] == "ok" and places > 0
        places -= tried
        yield {**c, "tried": tried}
    shutil.rmtree(f"{folder}/conjecture")


def prove(path, jobs, model, args):
    """Samples proofs, Lean checks them as they come (steps 3, 4). Returns tokens and seconds of each part.

    jobs: statements with "n", the number of samples. Writes one line for each distinct (statement, proof).
    """
    folder, stats = path.removesuffix(".jsonl"), {"tokens": 0}
    if os.path.exists(path):
        return json.loads(Path(folder + ".json").read_text())
    rows = [{**j, "prompt": prover_prompt(j["statement"], j.get("header", args.header)),
             "keep": j["statement"]} for j in jobs]

    def attempts():
        fields = ("statement", "header", "name", "split", "role", "lemma")
        for row, texts in sample(folder, rows, STOP_PROOF, model, args, stats):
            for proof, count in Counter(texts).items():
                yield {**{k: row[k] for k in fields if k in row}, "proof": proof, "count": count}

    def verdicts():
        start, total, crashed, lean = time.time(), 0, 0, 0.0
        for a in lean_check.check(attempts(), **lean_options(args)):
            total += 1
            crashed += a["verdict"] == "crashed"
            lean += a["seconds"]
            yield a
        if crashed > 0.1 * total:
            raise RuntimeError(f"Lean failed on {crashed} of {total} proofs ({a['message']}); "
                               "mend it and start again")
        sampling = stats.pop("seconds", 0)
        wait = time.time() - start - sampling
        stats.update(sample=round(sampling, 2), prove_wait=round(wait, 2), lean=round(lean, 2))
        Path(folder + ".json").write_text(json.dumps(stats))

    write_jsonl(path, verdicts())
    shutil.rmtree(folder, ignore_errors=True)
    return stats


def lean_options(args):
    return dict(lean=args.lean, project=args.lean_project, header=args.header, timeout=args.timeout,
                workers=args.lean_workers or None, heartbeats=args.heartbeats, memory=args.memory)


def training_examples(history, rewards, lemmas, args):
    """Replayed proofs of statements of pass rate <= 1/2, and kept conjectures, with weights (step 6)."""
    replay = [a for attempts in history.replay for a in attempts]
    rates = reward.pass_rates(replay)
    proofs = {(a["statement"], a["proof"]): a for a in replay
              if a["verdict"] == "proved" and rates[a["statement"]] <= args.train_rate}
    proofs = list(proofs.values())
    for a, weight in zip(proofs, reward.proof_weights(proofs, args.gamma), strict=True):
        yield prover_example(a, args, weight)
    for c in rewards:
        if c["weight"] > 0 and args.conjecturer == "on":
            seed = {"statement": c["seed"], "proof": c["seed_proof"], "lemma": c["lemma"]}
            yield conjecturer_example(seed, c["statement"], lemmas, c["weight"])


# --------------------------------------------------------------------------------- stage 3: final re-training

def stage_3(folder, base, library, lemmas, args, upto):
    """From the base: SFT data and all proofs found, of given and of challenging statements (section 3.3)."""
    draw, proofs = rng(args, os.path.basename(folder)), defaultdict(dict)
    for t in range(upto):
        attempts = load_attempts(f"{args.out}/iter_{t:02d}")
        rates = reward.pass_rates(attempts)
        for a in attempts:
            if a["verdict"] == "proved" and (a["role"] == "given" or rates[a["statement"]] <= args.challenge):
                proofs[a["statement"]][a["proof"]] = a
    examples = sft_examples(library, lemmas, args)
    for found in proofs.values():
        for a in draw.sample(list(found.values()), min(len(found), args.retrain_proofs)):
            example = prover_example(a, args, math.exp(-args.gamma * len(a["proof"])))
            examples += [example] * args.retrain_repeat
    return finetune(folder, base, None, examples, args, lr=args.retrain_lr, epochs=args.sft_epochs)[0]


# ---------------------------------------------------------------------------------------- phases as processes
# Sampling, embedding and training run in child processes: only a process's end surely frees GPU memory.

@contextlib.contextmanager
def workers(function, n, *job):
    """Runs function(rank, n, *job) in n processes; yields alive(), which raises as soon as one of them fails.

    The last of job is the flags. Of samplers there are fewer: one for each --tensor_parallel GPUs.
    """
    gpus_each = job[-1].tensor_parallel if function is sample_worker else 1
    n //= gpus_each
    context = multiprocessing.get_context("forkserver")
    # Imported once, not in each child; not beside GPUs, where a package that looks for CUDA while it is
    # imported (as bitsandbytes does) would leave all children without it.
    context.set_forkserver_preload([] if n_gpus() else ["torch", "transformers", "peft"])
    children = [context.Process(target=child, args=(function, rank, n, gpus_each, *job)) for rank in range(n)]

    def alive():
        running = any(c.is_alive() for c in children)  # before the statuses: the last one may fail in between
        if failed := [(c.exitcode, rank) for rank, c in enumerate(children) if c.exitcode]:
            status, rank = min(failed)  # one that was killed before those that lost its connection
            raise RuntimeError(f"{function.__name__}: process {rank} of {n} ended with status {status}; "
                               "its own message is above (-9: killed, often for lack of memory)")
        return running

    try:
        for c in children:
            c.start()
        yield alive
        while alive():
            time.sleep(0.02)
    finally:
        for c in (c for c in children if c.pid):  # Ctrl-C may come before all have started
            if c.is_alive():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(c.pid, signal.SIGKILL)
                c.kill()
            c.join()


def child(function, rank, n, gpus_each, *job):
    os.setsid()  # a group of its own: Ctrl-C reaches the parent alone, which ends the group
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os.killpg(0, signal.SIGKILL)), daemon=True).start()
    if gpus := n_gpus():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        ids = visible.split(",") if visible else [str(i) for i in range(gpus)]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(ids[rank * gpus_each:(rank + 1) * gpus_each])
    import torch
    from transformers.utils import logging
    logging.disable_progress_bar()  # a bar for each loading of the model would bury the run's own lines
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    if gpus:
        torch.set_float32_matmul_precision("high")  # TF32 for the products of the fp32 adapter
    else:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // n))
    function(rank, n, *job)


def load_model(path, full=False):
    """bf16 on a GPU, fp32 on a CPU and where all weights are trained."""
    import torch
    from transformers import AutoModelForCausalLM
    cuda = torch.cuda.is_available()
    dtype = torch.bfloat16 if cuda and not full else torch.float32
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to("cuda" if cuda else "cpu")


def pad(rows, device, side="right"):
    """Token ids (B, T) of rows of unequal length, zeros at one side, and their mask: 0 where filled up."""
    import torch
    stack = functools.partial(torch.nn.utils.rnn.pad_sequence, batch_first=True, padding_side=side)
    ids = stack([torch.tensor(row, dtype=torch.long) for row in rows])
    mask = stack([torch.ones(len(row), dtype=torch.long) for row in rows])
    return ids.to(device), mask.to(device)


# --------------------------------------------------------------------------------------------------- sampling

def sample(folder, rows, stop, model, args, stats):
    """Samples row["n"] completions of row["prompt"] for each row; yields (row, completions) as shards finish.

    Prompts are sorted by length and cut into shards of --shard samples; a shard is a file with its own seed,
    so the result does not depend on the number of processes. Stats gets tokens and seconds. Prompts whose
    "keep" (a statement) is longer than --max_prompt get no completions.
    """
    start, shards, size = time.time(), {}, args.shard  # shards: file -> its rows
    for row in sorted(rows, key=lambda r: (-len(r["prompt"]), r["prompt"])):
        if size >= args.shard:
            name, size = f"{folder}/{len(shards):05d}", 0
            shards[name] = []
        shards[name].append(row)
        size += row["n"]
    for name, shard in shards.items():
        if not os.path.exists(name + ".in"):
            write_jsonl(name + ".in", ({k: r.get(k) for k in ("prompt", "keep", "n")} for r in shard))
    with (workers(sample_worker, args.procs, list(shards), stop, model, args) as alive,
          tqdm(total=sum(r["n"] for r in rows), desc=f"  {os.path.basename(folder)}", unit="sample",
               leave=False, disable=None) as bar):
        for name, shard in shards.items():
            while not os.path.exists(name + ".out"):
                if not alive() and not os.path.exists(name + ".out"):
                    raise RuntimeError(f"{name}.out: the samplers ended without writing it")
                time.sleep(0.02)
            for row, out in zip(shard, read_jsonl(name + ".out"), strict=True):
                stats["tokens"] = stats.get("tokens", 0) + out["tokens"]
                bar.update(row["n"])
                yield row, out["texts"]
        stats["seconds"] = time.time() - start


def sample_worker(rank, n, names, stop, model, args):
    from transformers import AutoTokenizer
    todo = [name for name in names[rank::n] if not os.path.exists(name + ".out")]
    if not todo:
        return
    tokenizer = AutoTokenizer.from_pretrained(model)
    engine = (vllm_engine if args.engine == "vllm" else hf_engine)(model, tokenizer, stop, args)
    for name in todo:
        rows = list(read_jsonl(name + ".in"))
        fits = [len(tokenizer(r["keep"] or "").input_ids) <= args.max_prompt for r in rows]
        prompts = [(encode_prompt(tokenizer, r["prompt"], args.max_prompt), r["n"])
                   for r in itertools.compress(rows, fits)]
        where = f"{args.seed}/{os.path.relpath(name, args.out)}"
        seed = int.from_bytes(hashlib.sha256(where.encode()).digest()[:4])
        outs = iter(engine(prompts, seed) if prompts else ())
        write_jsonl(name + ".out", [next(outs) if fit else {"texts": [], "tokens": 0} for fit in fits])


def encode_prompt(tokenizer, prompt, limit):
    """Token ids of the prompt; one over the limit keeps its end, and its beginning-of-sequence token."""
    ids = tokenizer(prompt).input_ids
    bos = ids[:1] if ids[:1] == [tokenizer.bos_token_id] else []
    return ids if len(ids) <= limit else bos + ids[len(ids) - limit + len(bos):]


def vllm_engine(model, tokenizer, stop, args):
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine lives and dies with this process
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"  # --tensor_parallel: a fork could not use CUDA
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")  # each start's report would bury our lines
    from vllm import LLM, SamplingParams
    sizes = {"dtype": "bfloat16"} if n_gpus() else {"dtype": "float32", "kv_cache_memory_bytes": 2**29}
    llm = LLM(model=model, seed=args.seed, tensor_parallel_size=args.tensor_parallel,
              max_model_len=args.max_prompt + args.max_new, **sizes)

    def complete(prompts, seed):
        params = [SamplingParams(n=n if args.temperature else 1, seed=(seed + 1000003 * i) % 2**31,
                                 temperature=args.temperature, top_p=1.0, top_k=0,
                                 max_tokens=args.max_new, stop=[stop])
                  for i, (_, n) in enumerate(prompts)]  # vLLM wants no more than one greedy completion
        outs = llm.generate([{"prompt_token_ids": ids} for ids, _ in prompts], params, use_tqdm=False)
        return [{"texts": [c.text for c in o.outputs] * (n // len(o.outputs)),
                 "tokens": sum(len(c.token_ids) for c in o.outputs)}
                for o, (_, n) in zip(outs, prompts, strict=True)]
    return complete


def hf_engine(model, tokenizer, stop, args, batch=256, every=8):
    """Transformers: a prompt is read once for all its samples, and finished rows leave every few tokens."""
    import torch
    from transformers import DynamicCache
    model, eos = load_model(model).eval(), tokenizer.eos_token_id

    def choose(logits):
        if not args.temperature:
            return logits.argmax(-1, keepdim=True)
        return torch.multinomial((logits.float() / args.temperature).softmax(-1), 1)

    def generate(prompts, rows):
        """Yields (row, completion, number of its tokens). rows: indices of prompts, one for each sample."""
        place = {i: k for k, i in enumerate(dict.fromkeys(rows))}  # each prompt is read once
        ids, mask = pad([prompts[i] for i in place], model.device, side="left")
        cache = DynamicCache(config=model.config)
        logits = model(ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0),
                       past_key_values=cache, logits_to_keep=1).logits[:, -1]
        at = torch.tensor([place[i] for i in rows], device=model.device)
        cache.batch_select_indices(at)
        mask, done = mask[at], choose(logits[at])  # done: new tokens (B, T)
        while True:
            if done.shape[1] % every == 0 or done.shape[1] == args.max_new:
                stay = []
                for k, tokens in enumerate(done.tolist()):
                    tokens = tokens[:tokens.index(eos)] if eos in tokens else tokens
                    text = tokenizer.decode(tokens, skip_special_tokens=True)
                    if stop in text or len(tokens) < done.shape[1] or len(tokens) == args.max_new:
                        yield rows[k], text.split(stop)[0], len(tokens)
                    else:
                        stay.append(k)
                if not stay:
                    return
                rows, at = [rows[k] for k in stay], torch.tensor(stay, device=model.device)
                cache.batch_select_indices(at)
                mask, done = mask[at], done[at]
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
            logits = model(done[:, -1:], attention_mask=mask, position_ids=mask.sum(1, keepdim=True) - 1,
                           past_key_values=cache).logits[:, -1]
            done = torch.cat([done, choose(logits)], 1)

    def complete(prompts, seed):
        torch.manual_seed(seed)
        outs = [{"texts": [], "tokens": 0} for _ in prompts]
        by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i][0]))
        rows = [i for i in by_length for _ in range(prompts[i][1])]
        with torch.inference_mode():
            for start in range(0, len(rows), batch):
                for i, text, tokens in generate([ids for ids, _ in prompts], rows[start:start + batch]):
                    outs[i]["texts"].append(text)
                    outs[i]["tokens"] += tokens
        return outs
    return complete


def embed(folder, statements, model, args):
    """Embeddings (n, d), float32: mean of the last hidden layer over the first 512 tokens (section 3.2)."""
    import torch
    os.makedirs(folder, exist_ok=True)
    with workers(embed_worker, args.procs, folder, statements, model, args):
        pass
    parts = [torch.load(f"{folder}/{rank}.pt") for rank in range(args.procs)]
    out = torch.empty(len(statements), parts[0].shape[1])
    for rank, part in enumerate(parts):
        out[rank::args.procs] = part
    shutil.rmtree(folder)
    return out.to("cuda" if torch.cuda.is_available() else "cpu")


def embed_worker(rank, n, folder, statements, model, args):
    import torch
    from transformers import AutoTokenizer
    tokenizer, net = AutoTokenizer.from_pretrained(model), load_model(model).eval().base_model
    ids = [tokenizer(s).input_ids[:512] for s in statements[rank::n]]
    out = torch.empty(len(ids), net.config.hidden_size)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for at in range(0, len(order), 64):
        group = order[at:at + 64]
        tokens, mask = pad([ids[i] for i in group], net.device)
        with torch.inference_mode():
            hidden = net(input_ids=tokens, attention_mask=mask).last_hidden_state.float()  # (B, T, d)
        out[group] = ((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).cpu()
    torch.save(out, f"{folder}/{rank}.pt")


# --------------------------------------------------------------------------------------------------- training

def train(folder, base, adapter, examples, args, *, lr, epochs=1, full=False, pretrain=False):
    """Trains on weighted examples and returns the mean loss. Writes adapter/ (unless full) and merged/.

    base: model that LoRA sits on, or that is trained itself if full. adapter: LoRA folder to go on from.
    pretrain: a longer warm-up and linear decay, which a model with random weights needs.
    """
    if not os.path.exists(folder):
        job = dict(folder=folder + ".tmp", base=base, adapter=adapter, lr=lr, epochs=epochs, full=full,
                   pretrain=pretrain)
        shutil.rmtree(job["folder"], ignore_errors=True)
        write_jsonl(f"{job['folder']}/examples.jsonl", examples)
        with workers(train_worker, args.procs, job, args):
            pass
        os.remove(f"{job['folder']}/examples.jsonl")
        os.replace(job["folder"], folder)
    return json.loads(Path(f"{folder}/loss.json").read_text())["loss"]


def train_worker(rank, world, job, args):
    import torch
    from torch import distributed
    from transformers import AutoTokenizer
    torch.manual_seed(args.seed)
    if world > 1:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        distributed.init_process_group(
            "nccl" if torch.cuda.is_available() else "gloo", rank=rank, world_size=world,
            init_method=f"file://{os.path.abspath(job['folder'])}/rendezvous")
    tokenizer = AutoTokenizer.from_pretrained(job["base"])
    model = trainable_model(job, args)
    ddp = torch.nn.parallel.DistributedDataParallel(model) if world > 1 else model
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=job["lr"], betas=(0.9, 0.95), weight_decay=0.0)
    data = tokenize(read_jsonl(f"{job['folder']}/examples.jsonl"), tokenizer, args)
    draw = random.Random(args.seed)
    batches = [batch for _ in range(job["epochs"]) for batch in make_batches(data, args.batch_size, draw)]
    losses = []
    bar = tqdm(batches, desc="  training", unit="step", leave=False, disable=rank > 0 or None)
    for step, batch in enumerate(bar):
        *others, last = micro_batches(batch, args.tokens_per_step, world)[rank]
        norm = sum(weight * (len(ids) - start) for ids, start, weight in batch)  # over all processes
        total = 0.0
        for group in (*others, last):
            with contextlib.nullcontext() if group is last or world == 1 else ddp.no_sync():
                loss = weighted_loss(ddp, group) / norm
                (loss * world).backward()  # DDP averages gradients; the loss is a sum over processes
            total += loss.item()
        total = torch.tensor(total, device=model.device)
        if world > 1:
            distributed.all_reduce(total)
        if not math.isfinite(total):
            sys.exit(f"training: loss is {total.item()} at step {step}; "
                     f"lower the learning rate ({job['lr']})")
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        lr = job["lr"] * min(1.0, (step + 1) / (100 if job["pretrain"] else 5))  # warm-up, then constant
        optimizer.param_groups[0]["lr"] = lr * (1 - step / len(batches)) if job["pretrain"] else lr
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total.item())
    if world > 1:  # before saving, which may take longer than a process group waits
        distributed.barrier()
        del ddp  # first, or it would hold the interpreter while it waits for threads of gloo that need it
        distributed.destroy_process_group()
    if rank == 0:
        save(model, tokenizer, sum(losses) / max(1, len(losses)), job)


def trainable_model(job, args):
    """The base with a LoRA adapter (fp32 on a bf16 base), new or going on; if job["full"], the base alone."""
    import peft
    import torch
    model = load_model(job["base"], job["full"])
    if not job["full"] and job["adapter"]:
        model = peft.PeftModel.from_pretrained(model, job["adapter"], is_trainable=True)
    elif not job["full"]:
        model = peft.get_peft_model(model, peft.LoraConfig(
            r=args.lora_r, lora_alpha=args.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"))
    if torch.cuda.is_available():
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    return model.train()


def save(model, tokenizer, loss, job):
    """Adapter and merged model. LoRA never changes the base's weights, so this merge is into a fresh base."""
    if not job["full"]:
        model.save_pretrained(f"{job['folder']}/adapter")
        model = model.merge_and_unload()
    for part in model, tokenizer:
        part.save_pretrained(f"{job['folder']}/merged")
    Path(f"{job['folder']}/loss.json").write_text(json.dumps({"loss": loss}))


def tokenize(examples, tokenizer, args):
    """List of (token ids of prompt + target, where the target starts, weight); long prompts are cut."""
    data = []
    for e in examples:
        target = tokenizer(e["target"], add_special_tokens=False).input_ids
        prompt = encode_prompt(tokenizer, e["prompt"], args.max_prompt)
        if len(prompt) + len(target) <= args.max_len:
            ids = array.array("i", prompt + target)  # a list takes nine times that
            data.append((ids, len(prompt), e.get("weight", 1.0)))
    return data


def make_batches(data, size, draw):
    """Batches in random order. Up to 1,024 sequences are cut from one length-sorted pool: less padding."""
    data, pool, batches = draw.sample(data, len(data)), max(1024 // size, 1) * size, []
    for at in range(0, len(data), pool):
        by_length = sorted(data[at:at + pool], key=lambda item: len(item[0]))
        batches += [by_length[i:i + size] for i in range(0, len(by_length), size)]
    return draw.sample(batches, len(batches))


def micro_batches(batch, tokens, world):
    """Splits a batch into micro-batches of at most `tokens` padded tokens, the same number for each process.

    Returns a list of `world` lists. Sorted by length for little padding; a missing last one is filled by a
    copy of weight 0, so that all processes take part in the same number of backward passes.
    """
    groups = [[]]
    for item in sorted(batch, key=lambda x: len(x[0])):
        if groups[-1] and len(item[0]) * (len(groups[-1]) + 1) > tokens:
            groups.append([])
        groups[-1].append(item)
    while len(groups) < world and max(map(len, groups)) > 1:  # a small batch still uses all processes
        longest = max(groups, key=len)
        groups.remove(longest)
        groups += [longest[::2], longest[1::2]]
    ids, start, _ = batch[0]
    groups += [[(ids, start, 0.0)]] * (-len(groups) % world)
    return [groups[rank::world] for rank in range(world)]


def weighted_loss(model, group):
    """Sum over the group's sequences of weight x cross entropy of the target tokens."""
    import torch
    device = next(model.parameters()).device
    tokens, _ = pad([ids for ids, _, _ in group], device)  # (B, T)
    weight = torch.tensor([[w * (start <= t < len(ids)) for t in range(1, tokens.shape[1])]
                           for ids, start, w in group], device=device)  # (B, T-1): of predicting token t
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1].float()  # causal: needs no padding mask
    loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
    return (loss * weight).sum()


# What a token of the scratch model never crosses: a list of variables, one variable, or the text between two
# variables on one line. So an atom is one token, and so is "\n  apply Iff.mp ‹".
WORDS = r"(?:\b\w ){3,}|\b[^\W\d_]\b|\n?(?:(?!\b[^\W\d_]\b|\n).)+|\n"


def build_scratch_model(folder, examples, args):
    """Writes a small random Llama and its tokenizer, byte-level BPE inside WORDS.

    Initial weights are wider than usual (0.08): with 0.02 a narrow model trains mostly on a plateau.
    """
    import tokenizers
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging
    logging.disable_progress_bar()
    words = tokenizers.pre_tokenizers
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = words.Sequence([words.Split(tokenizers.Regex(WORDS), "isolated"),
                                        words.ByteLevel(add_prefix_space=False, use_regex=False)])
    bpe.decoder = tokenizers.decoders.ByteLevel()
    bpe.train_from_iterator([e["prompt"] + e["target"] for e in examples], tokenizers.trainers.BpeTrainer(
        vocab_size=512, special_tokens=["<pad>", "<eos>"], show_progress=False,
        initial_alphabet=words.ByteLevel.alphabet()))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", eos_token="<eos>")
    torch.manual_seed(args.seed)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=args.width, intermediate_size=3 * args.width,
        num_hidden_layers=args.layers,
        num_attention_heads=args.width // 16, num_key_value_heads=args.width // 16,
        head_dim=32, max_position_embeddings=args.max_prompt + args.max_new, tie_word_embeddings=True,
        initializer_range=0.08, rope_parameters={"rope_type": "default", "rope_theta": 100.0},
        pad_token_id=0, eos_token_id=1, bos_token_id=None))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


# --------------------------------------------------------------------------------------- metrics and pictures

def histogram(rates):
    """Counts of pass rate 0, then of the eight equal bins of (0, 1]."""
    bins = Counter(math.ceil(r * 8) for r in rates)
    return [bins[i] for i in range(9)]


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else 0.0


def metrics(t, given, unproved, seeds, conjectures, attempts, rewards, examples, history, loss, seconds,
            lemmas):
    """One line of metrics.jsonl; every figure is explained at the top of this file."""
    proved = sum(rate > 0 for rate in history.best.values())
    proofs = [a for a in attempts if a["verdict"] == "proved"]
    verdicts = Counter()
    for a in attempts:
        verdicts[a["verdict"]] += a["count"]
    checked = Counter(c["verdict"] for c in conjectures)
    reasons = Counter(r["reason"] for r in rewards)
    tried = [c["statement"] for c in conjectures if c["tried"]]
    kept = [r["statement"] for r in rewards if r["weight"] > 0]
    rates = reward.pass_rates(attempts)
    rates_given = [rates[s["statement"]] for s in unproved if s["statement"] in rates]
    rates_conjectures = [rates[s] for s in tried if s in rates]
    conjecturer_examples = sum(e["target"].endswith(STOP_CONJECTURE) for e in examples)
    return {
        "iteration": t, "given": len(given), "proved": proved, "cumulative": round(proved / len(given), 4),
        "proofs": history.proofs, "tokens": history.tokens,
        "seeds": len(seeds), "sampled": len(conjectures),
        "wellformed": checked["ok"] + checked["duplicate"], "distinct": checked["ok"], "tried": len(tried),
        "provable": sum(r > 0 for r in rates_conjectures),
        "barely": len(rewards) - reasons["unproved"] - reasons["too easy"] - reasons["unjudged"],
        "kept": len(kept),
        "rate_given": round(mean(rates_given), 4), "rate_conjectures": round(mean(rates_conjectures), 4),
        "hist_given": histogram(rates_given), "hist_conjectures": histogram(rates_conjectures),
        "len_conjectures": round(mean(map(len, tried)), 1), "len_kept": round(mean(map(len, kept)), 1),
        "lemmas": len({lemma for a in proofs for lemma in reward.invoked(a["proof"], lemmas)}),
        "proofs_each": round(len(proofs) / max(1, len({a["statement"] for a in proofs})), 2),
        "examples_proofs": len(examples) - conjecturer_examples, "examples_conjectures": conjecturer_examples,
        "verdicts": dict(sorted(verdicts.items())), "loss": loss and round(loss, 4), "seconds": seconds}


HEADING = ("iter      proved        proofs  conjectures: sampled wellformed barely kept  rate: given conj."
           "  seconds: sample  Lean  wait train    loss")


def report(m):
    """An iteration's line under HEADING."""
    s, loss = m["seconds"], "-" if m["loss"] is None else f"{m['loss']:.3f}"
    return (f"{m['iteration']:4d} {m['proved']:6d}/{m['given']:<6d} {m['proofs']:8d} {m['sampled']:20d} "
            f"{m['wellformed']:10d} {m['barely']:6d} {m['kept']:4d} "
            f"{m['rate_given']:12.3f} {m['rate_conjectures']:5.3f} {s['conjecture'] + s['sample']:16.1f} "
            f"{s['lean']:5.1f} {s['prove_wait']:5.1f} {s['train']:5.1f} {loss:>8}")


def load_arms(runs):
    """{arm: {run: its metrics}}; runs whose folders differ only in a number at the end are of one arm."""
    arms = defaultdict(dict)
    for run in runs:
        name = os.path.basename(os.path.normpath(run))
        arms[re.sub(r"_\d+$", "", name)][name] = list(read_jsonl(f"{run}/metrics.jsonl"))
    return arms


def proved_at(proofs, rows):
    """Given statements proved after so many proofs (n,), linear between iterations, nan outside the run."""
    import numpy as np
    ends = {"left": math.nan, "right": math.nan}
    return np.interp(proofs, [m["proofs"] for m in rows], [m["proved"] for m in rows], **ends)


def print_table(arms):
    """Proved given statements at equal numbers of proofs: each run, then mean and range of an arm's seeds."""
    phases = ("conjecture", "prove", "reward", "train")
    most = max(rows[-1]["proofs"] for seeds in arms.values() for rows in seeds.values())
    step = next(s for k in itertools.count() for s in (10**k, 2 * 10**k, 5 * 10**k) if most < 12 * s)
    at = range(step, most + 1, step)
    print("| run | start | " + " | ".join(f"{x:,}" for x in at) + " | last | tokens | minutes |")
    print("|" + "---|" * (len(at) + 5))
    for arm, seeds in arms.items():
        proved = []
        for name, rows in seeds.items():
            last = rows[-1]
            minutes = sum(m["seconds"][phase] for m in rows for phase in phases) / 60
            proved.append([rows[0]["proved"], *proved_at(at, rows)])
            cells = ["–" if math.isnan(y) else f"{y:.0f}" for y in proved[-1]]
            print(f"| {name} | {' | '.join(cells)} | {last['proved']} at {last['proofs']:,} | "
                  f"{last['tokens'] / 1e6:.1f}M | {minutes:.0f} |")
        if len(seeds) > 1:
            cells = ["–" if math.isnan(sum(ys)) else f"**{mean(ys):.0f}** ({min(ys):.0f} to {max(ys):.0f})"
                     for ys in zip(*proved, strict=True)]
            print(f"| {arm}, mean | {' | '.join(cells)} | | | |")


def plot(arms, path):
    """Left: proved given statements against proofs sampled, by arm. Right: pass rates early and late."""
    try:
        import matplotlib
    except ImportError:
        print(f"{path} not drawn: pip install matplotlib")
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np
    arms = {arm: list(seeds.values()) for arm, seeds in arms.items()}
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    for arm, seeds in arms.items():
        x = np.linspace(max(rows[0]["proofs"] for rows in seeds),
                        min(rows[-1]["proofs"] for rows in seeds), 200)
        y = [proved_at(x, rows) for rows in seeds]
        line, = left.plot(x, np.mean(y, 0), label=arm + (f" ({len(seeds)} seeds)" if len(seeds) > 1 else ""))
        left.fill_between(x, np.min(y, 0), np.max(y, 0), color=line.get_color(), alpha=0.2, linewidth=0)
    rows = [m for seeds in arms.values() for rows in seeds for m in rows if sum(m["hist_conjectures"])]
    times = [m["iteration"] for m in rows] or [0]
    first, last = min(times), max(times)
    hists = ("hist_conjectures", "conjectures"), ("hist_given", "unproved given")
    for i, (name, label) in enumerate(hists):
        for j, (when, chosen) in enumerate((("early", [m for m in rows if m["iteration"] < first + 3]),
                                            ("late", [m for m in rows if m["iteration"] > last - 3]))):
            total = np.sum([m[name] for m in chosen] or [[0] * 9], 0)
            right.bar(np.arange(9) + 0.2 * (2 * i + j - 1.5), total / max(1, total.sum()), 0.2, color=f"C{i}",
                      alpha=0.5 + 0.5 * j, label=f"{label}, {when}")
    left.set(xlabel="proofs sampled", ylabel="given statements proved so far", title="cumulative proved")
    right.set(xlabel="pass rate (0, then eighths)", ylabel="share of statements", xticks=range(9),
              yscale="log" if rows else "linear", xticklabels=["0"] + [f"≤{b}/8" for b in range(1, 9)],
              title="pass rates, first and last three iterations with conjectures")
    for axis in (left, right):
        axis.legend(fontsize=8)
    fig.tight_layout()
    fig.savefig(path, dpi=120)
    plt.close(fig)
    print(f"drawn: {path}")


# ------------------------------------------------------------------------------------------------- evaluation

def evaluate(model, args):
    """Samples --samples proofs of every statement of the --eval files; prints and writes pass@k per split."""
    name = os.path.relpath(os.path.dirname(model), args.out)  # each model of the run has its own evaluations
    name = "model" if name.startswith("..") else name
    for path in args.eval:
        folder, statements = f"{args.out}/eval/{name}/{Path(path).stem}_{args.samples}", load_statements(path)
        jobs = [{**s, "role": "given", "n": args.samples} for s in statements]
        prove(f"{folder}/attempts.jsonl", jobs, model, args)
        passed, crashed, proofs = Counter(), Counter(), defaultdict(dict)
        for a in read_jsonl(f"{folder}/attempts.jsonl"):
            if a["verdict"] == "proved":
                passed[a["statement"]] += a["count"]
                proofs[a.get("header", args.header)].setdefault(a["statement"], a)
            elif a["verdict"] == "crashed":
                crashed[a["statement"]] += a["count"]
        for i, (header, found) in enumerate(proofs.items()):  # imports come first: one file for each header
            with open(f"{folder}/proofs{i or ''}.lean", "w", encoding="utf-8") as f:
                f.write(header)
                for n, a in enumerate(found.values(), 1):  # names repeat: a namespace each
                    by = a["statement"] + ("" if a["proof"][:1].isspace() else "\n")
                    f.write(f"\nnamespace proof_{n} -- {a['name']}\n{by}{a['proof']}\nend proof_{n}\n")
        result, ks = {}, [2**i for i in range(args.samples.bit_length())]
        for split in sorted({s["split"] for s in statements}):
            counts = [(args.samples - crashed[s["statement"]], passed[s["statement"]])
                      for s in statements if s["split"] == split]  # too long for a prompt counts as unproved
            proved = sum(c > 0 for _, c in counts)
            print(f"{os.path.relpath(path)}, {split}: {proved} of {len(counts)} statements proved")
            result[split] = {f"pass@{k}": pass_at_k(counts, k, rng(args, "eval")) for k in ks}
            for k, r in result[split].items():
                print(f"  {k:>9} {100 * r['pass']:6.2f}% ± {100 * r['standard_error']:.2f}   "
                      f"groups of k: {100 * r['group_mean']:6.2f}% ± {100 * r['group_deviation']:.2f}")
        Path(f"{folder}/result.json").write_text(json.dumps(result, indent=1))


def pass_at_k(counts, k, draw):
    """pass@k over statements with (samples n, successes c) each.

    pass: mean of the unbiased estimator 1 - C(n-c, k) / C(n, k), with its standard error over statements.
    Group mean and deviation: the paper's figures, over disjoint groups of k samples in random order.
    """
    counts = [(n, c) for n, c in counts if n >= k]
    values = [1 - math.comb(n - c, k) / math.comb(n, k) for n, c in counts]
    m = mean(values)
    error = math.sqrt(sum((v - m) ** 2 for v in values)) / max(1, len(values))
    orders = [draw.sample([1] * c + [0] * (n - c), n) for n, c in counts]
    groups = [mean(any(o[at:at + k]) for o in orders)
              for at in range(0, min((n for n, _ in counts), default=0) - k + 1, k)]
    mu = mean(groups)
    return {"pass": m, "standard_error": error, "group_mean": mu,
            "group_deviation": math.sqrt(mean((x - mu) ** 2 for x in groups)), "statements": len(counts)}


# --------------------------------------------------------------------------------------------- plan and start

def model_shape(args):
    """(layers, width, widths of queries, keys and MLP, vocabulary, tied embeddings?), and their source."""
    if args.model == "scratch":
        w = args.width
        return (args.layers, w, 2 * w, 2 * w, 3 * w, 512, True), "built on the spot"
    c = model_config(args.model)
    if not c:
        return (30, 4096, 4096, 4096, 11008, 102400, False), "assumed: it is not on this machine"
    heads = c.num_attention_heads
    head = getattr(c, "head_dim", None) or c.hidden_size // heads
    kv = (getattr(c, "num_key_value_heads", None) or heads) * head
    return (c.num_hidden_layers, c.hidden_size, heads * head, kv, c.intermediate_size, c.vocab_size,
            c.tie_word_embeddings), "config.json"


@functools.cache
def model_config(model):
    """The config.json of a folder, or of a hub name that was downloaded; None if there is none."""
    from transformers import AutoConfig
    try:
        return AutoConfig.from_pretrained(model, local_files_only=True)
    except OSError:
        return None


def training_memory(args, P, lora, L, d, V):
    """Bytes a training process takes for weights, for what is trained, and for activations.

    P, lora: parameters of the model and of its adapter; L layers of width d, vocabulary V. A weight takes 2
    (bf16), or 4 where all are trained. A trained parameter takes 4 (only LoRA's: its own weight) + 4 gradient
    + 8 Adam + 4 buckets of DistributedDataParallel. A token of a micro-batch takes each layer's input, 100 d
    or so inside the one layer that is computed again, and 12 V: logits, log-softmax and gradient in fp32.
    """
    size = 2 if args.lora_r else 4
    return size * P, 20 * lora or 16 * P, args.tokens_per_step * (size * d * L + 100 * d + 12 * V)


def plan(args):
    """(label, text) of what a run samples, checks, needs in memory and on disk; warnings of short memory."""
    known, known_eval = (all(map(os.path.exists, paths)) for paths in (args.statements, args.eval))
    n = len(load_given(args)) if known else 89_000
    scored = args.samples * (sum(len(load_statements(path)) for path in args.eval) if known_eval else n)
    first, proofs = 2 * args.K0 * n, 2 * args.K * n  # of iteration 0, of any other
    total = first + proofs * (args.iters - 1) if args.iters else 0
    tokens = min(165, args.max_new)  # a proof; the paper: 19.8B tokens for 120M proofs

    (L, d, q, kv, mlp, V, tied), source = model_shape(args)
    P = L * d * (2 * q + 2 * kv + 3 * mlp) + V * d * (1 if tied else 2)
    P = float(f"{P:.3g}")  # no more digits: norms and biases are not counted
    lora = args.lora_r * L * (2 * (d + q) + 2 * (d + kv) + 3 * (d + mlp))  # inputs + outputs of linear layers
    gpu, parallel = args.gpu_memory * 1e9, args.tensor_parallel
    sampler = 2 * P / parallel
    cache = max(0, 0.9 * gpu - sampler)  # vLLM takes 92%; 2% for its own activations
    context = cache * parallel / (4 * L * kv)  # tokens: keys and values of 2 bytes in each layer
    weights, training, activations = training_memory(args, P, lora, L, d, V)
    trainer = weights + training + activations

    model, attempt = weights + 4 * lora, 1000 + 3 * tokens  # attempt: statement, proof, Lean's message
    kept = args.keep or args.iters
    models = kept + 3 + (kept // args.restart_every + 1 if args.restart_every else 0)  # sft, next, final

    def gb(x):
        return f"{x / 1e9:,.1f} GB"

    rows = [
        ("model", f"{args.model}: {P / 1e9:.2f}B parameters, {L} layers, width {d} ({source})"),
        ("statements", f"{n:,} ({', '.join(args.statements)})" if known else
         f"{n:,} (assumed: LeanWorkbook; the file is not here)"),
        ("iterations", f"{args.iters}, each at most (numbers fall as statements get proved):"),
        ("  conjectures", f"{min(args.per_seed, 3) * n:,} sampled, {n:,} tried"),
        ("  proofs", f"{proofs:,} sampled and checked (iteration 0: {first:,}); "
                     f"{proofs * tokens / 1e9:,.2f}B tokens at {tokens} a proof"),
        ("whole run", f"{total:,} proofs, and {scored:,} to evaluate: {args.samples} a statement"),
        ("processes", f"{args.procs // parallel} x {parallel} GPU for sampling, {args.procs} for training, "
                      f"of {args.gpu_memory:g} GB each"),
        ("  sampler", f"weights {gb(sampler)} + KV cache {gb(cache)}: {context:,.0f} tokens at a time"),
        ("  trainer", f"weights {gb(weights)} + {'LoRA' if lora else 'gradients'} and optimizer "
                      f"{gb(training)} + activations {gb(activations)} = {gb(trainer)}"),
        ("disk", f"an iteration {gb(model + proofs * attempt)} (model {gb(model)}, attempts of {attempt:,} "
                 f"bytes), whole run {gb(models * model + (total + scored) * attempt)}"),
    ]
    warnings = []
    if trainer > 0.95 * gpu:
        less = ("lower --tokens_per_step" if trainer - activations < 0.95 * gpu else
                "lower --lora_r, or take a smaller --model" if lora else "use LoRA (--lora_r 64)")
        warnings.append(f"training needs {gb(trainer)} of {args.gpu_memory:g}: {less}")
    if cache < 2e9:
        warnings.append("no room for a KV cache: raise --tensor_parallel")
    return rows, warnings


def dry_run(args):
    rows, warnings = plan(args)
    for name, lines in ("warning", warnings), ("missing here", missing(args) or ["nothing"]):
        rows += [("" if i else name, line) for i, line in enumerate(lines)]
    for name, line in rows:
        print(f"{name:17}{line}")


def missing(args):
    """What a run needs and this machine lacks, each with what brings it."""
    gpus, scratch = n_gpus(), args.model == "scratch"
    files = {path: flag for flag in ("eval", "sft", "library", "statements") for path in getattr(args, flag)}
    lacks = [f"--{flag}: no file {path} (README, section The real thing, tells how to make it)"
             for path, flag in files.items() if not os.path.exists(path)]
    if not scratch and not model_config(args.model):
        folder = os.path.exists(args.model) or args.model.startswith((".", "/", "~"))
        lacks.append(f"--model: {args.model} is " + ("no folder with a config.json" if folder else
                     f"not on this machine; run: hf download {args.model}"))
    if gpus:
        import torch
    lacks += [message for lack, message in (
        (scratch and not args.library, "--library: a scratch model needs theorems to learn from"),
        (args.engine == "vllm" and not importlib.util.find_spec("vllm"),
         "--engine vllm: not installed; run: pip install vllm (or use --engine hf)"),
        (gpus and not torch.version.cuda,
         "torch: this build has no CUDA; run: pip install -r requirements.txt in a new virtual environment"),
        (gpus and args.procs > gpus,
         f"--procs {args.procs}: this machine has {gpus} GPUs, and each process takes one"),
        ("import Mathlib" in args.header and not args.lean_project,
         "--lean_project: the header imports Mathlib; name a built Lake project (README, The real thing)"),
    ) if lack]
    try:
        lean_check.find_lean(args.lean, args.lean_project)
    except lean_check.LeanError as e:
        lacks.append(f"--lean: {e}")
    return lacks


def check_flags(args):
    stems, parallel = [Path(path).stem for path in args.eval], args.tensor_parallel
    for bad, message in (
        (args.iters < 0 or args.procs < 1 or args.K < 1,
         "--iters must be 0 or more, --procs and --K 1 or more"),
        (parallel < 1 or args.procs % parallel,
         f"--tensor_parallel {parallel} does not divide the {args.procs} processes (--procs, one per GPU)"),
        (args.kappa < 1, "--kappa must be 1 or more: weights average 1"),
        (args.timeout <= 0 or args.memory <= 0, "--timeout and --memory must be above 0"),
        (args.heartbeats < 0 or args.lean_workers < 0, "--heartbeats 0 or more, --lean_workers 0 or more"),
        (args.retrain_proofs < 0 or args.retrain_repeat < 1,
         "--retrain_proofs must be 0 or more, --retrain_repeat 1 or more"),
        (args.width % 32, "--width must be a multiple of 32"),
        (len(stems) > len(set(stems)), f"--eval: two files named {max(stems, key=stems.count)}; rename one"),
    ):
        if bad:
            raise UserError(message)


def check_input(args):
    """Given statements, library and lemmas, once all files, the model and Lean are found in order."""
    if lacks := missing(args):
        raise UserError("\n  ".join(["missing:", *lacks]) if len(lacks) > 1 else lacks[0])
    for path in args.eval:
        load_statements(path)
    trial = {"statement": "theorem stp_trial : True := by", "proof": "\n  exact True.intro"}
    trial, = lean_check.check([trial], **lean_options(args))
    if trial["verdict"] != "proved":
        raise UserError(f"--lean, --header: Lean does not prove True under the header ({trial['message']})")
    data = load_given(args), *load_library(args)
    for warning in plan(args)[1] if n_gpus() else ():
        print(f"warning: {warning}", file=sys.stderr)
    return data


def settle(args):
    """Makes the run folder and its config.json; refuses a folder that was made with other flags."""
    free = {"iters", "procs", "keep", "overwrite", "dry_run", "gpu_memory", "plot", "eval", "samples",
            "lean_workers", "no_retrain"}
    path = f"{args.out}/config.json"
    if args.overwrite and os.path.exists(path):
        shutil.rmtree(args.out)
    if os.path.exists(path):
        old = json.loads(Path(path).read_text())["flags"]
        if differ := ", ".join(f"--{k} {old.get(k)} -> {v}" for k, v in vars(args).items()
                               if k not in free and old.get(k) != v):
            raise UserError(f"{args.out} was made with other flags: {differ}; "
                            "use another --out or --overwrite")
        return
    try:
        if os.path.isdir(args.out) and os.listdir(args.out) and not os.path.exists(f"{args.out}/sft"):
            raise UserError(f"{args.out} exists and is no run folder; use another --out")
        config = {"command": " ".join(sys.argv), "flags": vars(args), "python": sys.version.split()[0],
                  **{p: importlib.metadata.version(p) for p in ("torch", "transformers", "peft")},
                  "lean": lean_check.find_lean(args.lean, args.lean_project)[1]}
        os.makedirs(args.out, exist_ok=True)
        Path(path + ".tmp").write_text(json.dumps(config, indent=1))
        os.replace(path + ".tmp", path)
    except OSError as e:
        raise UserError(f"--out {args.out}: cannot be written ({e.strerror})") from None


def main():
    args = parse_args()
    why = "CUDA device found" if n_gpus() else "no CUDA device"
    hint = "; 7B run: see README" if args.preset == "tiny" else ""
    print(f"{why}: {args.preset} preset{hint}", flush=True)
    go_on = "the same command goes on from the last finished phase"
    try:
        if args.plot:
            arms = load_arms(args.plot)
            print_table(arms)
            plot(arms, "progress.png")
            return 0
        check_flags(args)
        (dry_run if args.dry_run else run)(args)
    except (UserError, lean_check.LeanError) as e:
        print(f"stp.py: {e}", file=sys.stderr)
        return 2
    except Exception as e:  # a failed phase
        if os.path.exists(args.out) and shutil.disk_usage(args.out).free < 1e6:
            print(f"stp.py: --out {args.out}: the disk is full; make room, and {go_on}", file=sys.stderr)
            return 2
        if not isinstance(e, (RuntimeError, OSError)):
            raise
        print(f"stp.py: {e}\n{go_on}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nstopped; {go_on}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
