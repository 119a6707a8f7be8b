"""STP, the self-play theorem prover (Dong & Ma, arXiv 2502.00212), in one script.

One language model plays two roles. As conjecturer it writes new statements from theorems it has proved; as
prover it tries to prove them and a fixed set of given statements. Lean 4 judges. The model is trained on the
proofs that Lean accepts and on the conjectures that were barely provable; the next iteration starts there.

  python stp.py --iters 24                   laptop: tiny preset, nothing to download; GPUs: paper preset
  python stp.py --dry_run --preset paper     what it will sample, train and check, hours, what is missing
  python stp.py --conjecturer off            expert iteration; with --prover frozen: parallel sampling
  python stp.py --iters 0 --model DIR --eval FILE --samples 128       evaluation alone
  python stp.py --ray auto                   on all nodes of a ray cluster (README)
  python docs/figures.py table out/a out/b   several runs in one table; progress: in one picture

Read it from `run` and `self_play_iteration` downwards: choose_seeds -> conjecture -> prove (Lean checks while
sampling goes on) -> reward.select -> training_examples -> train. The functions they call come after them.
lean_check.py says which proofs count, reward.py which conjectures.

Differences from the paper and its official code
  1. LoRA, with its learning rates, instead of a full finetune (--lora_r 0). The adapter is carried from
     iteration to iteration, its optimizer is not, as in the official code; but there expert iteration starts
     from the base in each round (--restart_every 1 comes close).
  2. Defaults are for one node: a subset of the given statements, K = 16, batches of 512 (paper: README).
  3. Conjectures are sampled with the prompt that the conjecturer is trained on. The official code samples
     without the header, and with "theorem" at the end.
  4. Prover samples that conjectures leave unused go to the given statements, so that every iteration spends
     2 K |statements| proofs (up to a remainder) and arms with and without conjectures can be compared.
  5. The weight of a proof has no verify-seconds term: it would make a run depend on the machine's speed.
  6. A conjecture must elaborate in Lean without autoImplicit, which takes unknown names for variables, and
     must not be a given statement under another name.
  7. A proof uses a lemma if it contains the lemma's full name; the official code asks Lean, which also sees
     names that `open` shortens and `h.lemma`. Without a library "no lemma" seeds have no cap.
  8. Stage 1 mines from the nearest earlier theorem, not from all, and also for "no lemma". An epoch takes all
     examples (its last batch may be smaller), and a training runs whole epochs, at least 5 steps in all.
     Stage 3 takes the SFT data as it is; the official code leaves its proofs of LeanWorkbook out there.
  9. Conjectures are reweighted towards what was unproved when the iteration began; in the official code, when
     it ended. There a statement may also count several times (miniF2F- and ProofNet-valid, last rounds).
 10. tiny preset only (table PRESETS): sizes, three epochs an iteration, conjectures are challenging up to a
     pass rate of 1/2 instead of 1/4, Lean's heartbeats are limited, and stage 3 repeats the proofs found.
 11. The official self-play drops a conjecture whose pass rate is exactly 1/4, limits seeds and conjectures by
     the number of all given statements (here: of the iteration's, of the unproved ones), and its replay lacks
     a statement's failures before its first proof.

The run folder (--out). A file or folder that exists is finished: the same command goes on after any stop, and
takes up the verdicts in attempts.jsonl.tmp (from a wrong Lean? delete it).
  config.json, metrics.jsonl (see `metrics`); sft/, final_24/: adapter/, and merged/, which transformers loads
  iter_07/   seeds, conjectures (Lean's verdict; "tried": by the prover), attempts (each distinct proof, its
             count and verdict), rewards (reason, weight), examples .jsonl; model/ (only the newest: merged/);
             conjecture/ (what was sampled), attempts.json (tokens, seconds)
  eval/NAME_CONTENT/    attempts.jsonl, result.json (pass@k), proofs.lean (one for each header)
"""
import argparse
import array
import contextlib
import fcntl
import functools
import hashlib
import inspect
import itertools
import json
import logging
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
from multiprocessing import forkserver
from pathlib import Path

import torch
from torch import distributed
from tqdm import tqdm

import lean_check
import reward
from lean_check import UserError, read_jsonl

HERE = os.path.dirname(os.path.abspath(__file__))
PAPER_HEADER = ("import Mathlib\nimport Aesop\nset_option maxHeartbeats 0\n"
                "open BigOperators Real Nat Topology Rat\n\n")

# Flags carry the paper preset's values as defaults; the tiny preset names what differs.
PRESETS = {
    "paper": {},
    "tiny": dict(
        # nothing to download
        model=f"{HERE}/tiny/base", header="", lean=shlex.join([sys.executable, f"{HERE}/tiny/lean"]),
        statements=[f"{HERE}/tiny/statements.jsonl"], library=[f"{HERE}/tiny/library.jsonl"], sft=[],
        # sizes for two CPU cores
        subset=0, max_prompt=384, max_new=128, K=4, K0=4, samples=8, shard=512, timeout=5.0,
        heartbeats=400_000, lean_seconds=0.005, tokens_per_second=5000, train_tokens_per_second=5000,
        # one or two proofs of four: with one alone too few conjectures are kept to train the conjecturer
        challenge=0.5,
        # a small model takes large steps and needs many of them
        lora_r=32, lr=5e-4, sft_lr=5e-4, batch_size=16, epochs=3,
        # self-play trains on a proof in 3 iterations of 3 epochs; once beside the SFT data is too little
        retrain_repeat=9),
}


# ------------------------------------------------------------------------------------------------------ flags

class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UserError(message)


def number(text, kind, low, high):
    with contextlib.suppress(ValueError):
        if math.isfinite(value := kind(text)) and low <= value <= high:
            return value
    raise argparse.ArgumentTypeError(f"{text} is no {kind.__name__} from {low} to {high}")


def make_parser():
    p = Parser(description=__doc__.split("\n")[0], allow_abbrev=False,
               formatter_class=argparse.ArgumentDefaultsHelpFormatter)

    def add(flag, default, help, low=0, high=math.inf, **how):  # without `how`: a switch, or a number
        if default is False:
            how = {"action": "store_true"}
        elif not how:
            how = {"type": functools.partial(number, kind=type(default), low=low, high=high)}
        group.add_argument(flag, default=default, help=help, **how)

    group = p.add_argument_group("run")
    add("--preset", "auto", "auto: paper if CUDA is there", choices=("auto", "tiny", "paper"))
    add("--iters", 24, "self-play iterations; 0: no self-play, evaluate --model")
    add("--out", "out", "run folder", type=str)
    add("--seed", 0, "random seed of everything", high=2**32 - 1)
    add("--procs", 0, "processes of sampling and training; 0: one per GPU, else one per core, at most 4")
    add("--ray", None, "run on this ray cluster: auto, or HOST:PORT (README)", type=str)
    add("--dry_run", False, "print the plan, in counts and hours, and what is missing; run nothing")

    group = p.add_argument_group("data (JSON list or JSON Lines)")
    add("--statements", ["data/leanworkbook.json"], "given: statement; maybe header, split, name", nargs="+")
    add("--subset", 10_000, "number of given statements to use, drawn at random; 0: all")
    add("--skip_bad", False, "go on though more than half of a file of statements is unusable")
    add("--library", ["data/lemmas.jsonl"], "lemmas: name, statement; maybe proof, file, header", nargs="*")
    add("--sft", ["data/sft.jsonl"], "prompt, target; maybe weight", nargs="*")
    add("--header", PAPER_HEADER, "Lean header of statements without their own", type=str)

    group = p.add_argument_group("model and sampling")
    add("--model", "deepseek-ai/DeepSeek-Prover-V1.5-SFT", "base model, hub name or folder", type=str)
    add("--lora_r", 64, "LoRA rank on all linear layers, with alpha twice as large; 0: full finetune")
    add("--engine", "auto", "auto: vllm on GPUs, else hf; the tiny preset takes GPUs if an engine is named",
        choices=("auto", "vllm", "hf"))
    add("--K", 16, "proofs sampled per statement; up to twice as many where conjectures are too few", low=1)
    add("--K0", 32, "the same in iteration 0", low=1)
    add("--temperature", 1.0, "0: greedy", high=2)
    add("--max_prompt", 1024, "prompt tokens; longer ones lose their beginning", low=16)
    add("--max_new", 1024, "completion tokens", low=1)
    add("--shard", 4096, "samples per shard file, the unit of work and of resuming", low=1)

    group = p.add_argument_group("conjecturing (section 3.1)")
    add("--conjecturer", "on", "frozen: conjectures are not trained on; off: expert iteration",
        choices=("on", "frozen", "off"))
    add("--seed_rate", 0.35, "a given statement gives seeds when its best pass rate is above this", high=1)
    add("--lemma_cap", 0.1, "largest share of seeds with the same lemma, or with none", high=1)
    add("--per_seed", 8, "most conjectures sampled per seed", low=1)
    add("--resample", 0.05, "chance to try a proved given statement again; 1 below --seed_rate", high=1)

    group = p.add_argument_group("reward (section 3.2, reward.py)")
    add("--challenge", 0.25, "largest pass rate of a kept conjecture, in stage 3 too; 1: no limit", high=1)
    add("--elegance", 0.2, "share dropped for short proofs of long statements; 0: none", high=0.99)
    add("--reweight", "wasserstein", "uniform: all kept ones weigh 1", choices=("wasserstein", "uniform"))
    add("--kappa", 4.0, "largest weight of a conjecture (1: uniform; the average is 1)", low=1)

    group = p.add_argument_group("training (section 3.3)")
    add("--prover", "on", "frozen: no training in self-play", choices=("on", "frozen"))
    add("--lr", 3e-4, "learning rate of self-play, for LoRA; the paper's, for --lora_r 0: 5e-5")
    add("--epochs", 1, "epochs an iteration, but at least 5 steps", low=1)
    add("--batch_size", 512, "sequences an optimizer step, over all processes", low=1)
    add("--tokens_per_step", 8192, "tokens a micro-batch, per process", low=1)
    add("--replay", 3, "iterations whose proofs are trained on", low=1)
    add("--train_rate", 0.5, "largest pass rate of a statement whose proofs are trained on", high=1)
    add("--gamma", 0.001, "proof weight exp(-gamma characters); 0: length is free")
    add("--sft_lr", 3e-4, "learning rate of stages 1 and 3; the paper's: 1e-4")
    add("--no_retrain", False, "skip stage 3, the final re-training from the base model")
    add("--retrain_given", False, "final stage 3: without proofs of conjectures")
    add("--retrain_proofs", 16, "stage 3: most proofs per statement")
    add("--retrain_repeat", 1, "stage 3: times each such proof is trained on; SFT data: once", low=1)
    add("--restart_every", 0, "also re-train every R iterations and go on from it; 0: no")

    group = p.add_argument_group("evaluation")
    add("--eval", None, "files of statements scored at the end; default: a tenth, held out", nargs="+")
    add("--samples", 128, "samples per statement, for pass@1, 2, 4, ...; 0: no evaluation")

    group = p.add_argument_group("Lean (lean_check.py)")
    add("--lean", None, "Lean command; default: the project's, or lean of the PATH", type=str)
    add("--lean_project", None, "folder of a built Lake project, for Mathlib", type=str)
    add("--lean_workers", 0, "Lean processes; 0: one per core")
    add("--timeout", 200.0, "seconds a proof", low=0.1)
    add("--heartbeats", 0, "Lean's deterministic limit of a proof; 0: none")
    add("--memory", 8.0, "GB a Lean process", low=0.1)

    group = p.add_argument_group("what --dry_run assumes")
    add("--tokens_per_second", 5000, "sampled by a GPU (not measured)", low=1)
    add("--train_tokens_per_second", 8000, "trained on by a GPU (7B, LoRA: 7,789 on an H100)", low=1)
    add("--lean_seconds", 2.0, "of one core, to check a proof", low=1e-6)
    return p


def parse_args(argv=None):
    """The flags, with what `auto` and 0 stand for; args.nodes, gpus, cpus: those to use."""
    p, argv = make_parser(), sys.argv[1:] if argv is None else argv
    if not all(map(is_text, argv)):
        p.error("an argument is not text in UTF-8")
    known = p.parse_known_args(argv)[0]
    here = 1, torch.cuda.device_count(), len(os.sched_getaffinity(0))
    nodes, gpus, cpus = join_ray(known.ray) if known.ray else here
    preset = known.preset.replace("auto", "paper" if gpus else "tiny")
    p.set_defaults(**PRESETS[preset])
    args = p.parse_args(argv)
    args.preset, args.nodes, args.cpus, args.header = preset, nodes, cpus, as_header(args.header)
    args.gpus = 0 if preset == "tiny" and args.engine == "auto" else gpus
    args.engine = ("vllm" if args.gpus else "hf") if args.engine == "auto" else args.engine
    args.procs = args.procs or args.gpus or min(4, cpus)
    if args.ray:  # its tasks run in folders of their own
        args.out = os.path.abspath(args.out)
        args.lean_project = args.lean_project and os.path.abspath(args.lean_project)
    return args


# ------------------------------------------------------------------------------------------------------ files

def write_jsonl(path, rows):
    """Writes rows and only then gives the file its name, so that a file that exists is complete."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(f"{path}.tmp", "w", encoding="utf-8") as f:
        for row in rows:
            f.write(json.dumps(row, ensure_ascii=False) + "\n")
        f.flush()
        os.fsync(f.fileno())  # else a power cut may leave the name without the text
    os.replace(f"{path}.tmp", path)


def phase(path, make):
    """The rows of `path`; if it is not there, `make()` yields them and they are written first."""
    if not os.path.exists(path):
        write_jsonl(path, make())
    return list(read_jsonl(path))


def rng(args, *where):
    """A random generator of its own for each phase, so that a resumed run draws the same numbers."""
    return random.Random(f"{args.seed}/{'/'.join(map(str, where))}")


def digest(value):
    """Short name of a value's content: two files that hold the same rows have the same one."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()


# ---------------------------------------------------------------------------------------------------- prompts
# The official formats (self-play and the released SFT data), so that released models and data can be used.

STOP_PROOF, STOP_CONJECTURE = "\n```", "</hard theorem>"


def lean_prompt(text, header):
    """The prompt of both roles: the prover goes on behind a statement, the conjecturer behind its seed."""
    return f"Complete the following Lean 4 code:\n\n```lean4\n{header}{text.strip()}"


def parse_conjecture(completion):
    """The statement in a conjecturer's completion: cut at the first ":=", closed with ":= by"."""
    return completion.split(STOP_CONJECTURE)[0].split(":=")[0].strip() + " := by"


def prover_example(row, args, weight=1.0):
    return {"prompt": lean_prompt(row["statement"], row.get("header", args.header)),
            "target": row["proof"], "weight": weight}


def conjecturer_example(seed, conjecture, lemmas, args, weight=1.0):
    """seed: statement, proof, maybe header, and the name of a lemma, None for "no lemma"."""
    text = (f"<lemma>\n{lemmas.get(seed['lemma'], 'theorem true: True')}\n"
            f"<easy theorem>\n{(seed['statement'] + seed['proof']).strip()}\n<hard theorem>")
    return {"prompt": lean_prompt(text, seed.get("header", args.header)),
            "target": f"\n{conjecture.strip()}\n{STOP_CONJECTURE}", "weight": weight}


# ------------------------------------------------------------------------------------ the three stages of STP
# A policy is the folder of a trained model, adapter/ and merged/ in it; None is the base model.

def run(data, args):
    """SFT, self-play for --iters iterations, re-training, evaluation; what is finished is read back."""
    policy, history, path = None, History(replay=deque(maxlen=args.replay)), Path(args.out, "metrics.jsonl")
    rows = list(read_jsonl(path)) if path.exists() else []
    if args.iters:
        policy, _ = train(f"{args.out}/sft", None, sft_examples(data, args), args, args.sft_lr)  # stage 1
        print(HEADING, flush=True)
    for t in range(args.iters):
        policy, row = self_play_iteration(t, data, history, policy, args)
        if t == len(rows):
            rows.append(row)
            write_jsonl(path, rows)
            for old in [*path.parent.glob("iter_*/model/merged"), *path.parent.glob("restart_*/merged")]:
                if old != Path(merged(policy, args)):  # the next iteration needs the newest; adapters stay
                    shutil.rmtree(old)
        print(report(rows[t]), flush=True)
        if args.restart_every and (t + 1) % args.restart_every == 0 and t + 1 < args.iters:
            policy = stage_3(f"{args.out}/restart_{t + 1:02d}", data, args, upto=t + 1)
            history.replay.clear()  # "periodic refreshing": the replay buffer is emptied
    if args.iters and not args.no_retrain:
        print("final re-training from the base model", flush=True)
        folder = f"{args.out}/final_{args.iters:02d}" + "_given" * args.retrain_given
        policy = stage_3(folder, data, args, upto=args.iters, given_only=args.retrain_given)
    print(f"final model: {merged(policy, args)}", flush=True)
    if args.samples and data.scored:
        evaluate(policy, data, args)


def merged(policy, args):
    """The model folder of a policy: its own, or the base model's."""
    return f"{policy}/merged" if policy else args.model


# ----------------------------------------------------------------------------- stage 1: supervised finetuning

def sft_examples(data, args):
    """Examples of both roles (section 3.1): --sft files as they are, and those mined from the library.

    For theorem B whose proof uses lemma L, the nearest earlier theorem A of the same file that uses L too
    gives the conjecturer example (L, A) -> B; the nearest earlier A of all gives one for "no lemma".
    """
    examples = list(data.sft)
    latest = defaultdict(dict)  # file -> lemma or None -> latest theorem that uses it
    for b in data.theorems:
        examples.append(prover_example(b, args))
        seen = latest[str(b.get("file"))]
        uses = [*sorted(reward.invoked(b["proof"], data.lemmas)), None]
        for L in uses:
            if L in seen:
                seed = {**seen[L], "lemma": L}
                examples.append(conjecturer_example(seed, b["statement"], data.lemmas, args))
        seen.update(dict.fromkeys(uses, b))
    return examples


# ----------------------------------------------------------------------------------------- stage 2: self-play

@dataclass
class History:
    """What self-play remembers of all iterations, and the attempts of the last --replay ones."""
    best: dict = field(default_factory=dict)  # given statement that was tried -> best pass rate
    proofs: dict = field(default_factory=dict)  # (given statement, proof) -> verified attempt: for seeds
    conjectures: set = field(default_factory=set)  # those with a proof
    replay: deque = field(default_factory=deque)
    sampled: int = 0  # proofs
    tokens: int = 0

    def add(self, attempts, tokens):
        for s, rate in reward.pass_rates([a for a in attempts if a["role"] == "given"]).items():
            self.best[s] = max(rate, self.best.get(s, 0))
        for a in attempts:
            if a["verdict"] == "proved" and a["role"] == "given":
                self.proofs.setdefault((a["statement"], a["proof"]), a)
            elif a["verdict"] == "proved":
                self.conjectures.add(a["statement"])
        self.replay.append(attempts)
        self.sampled += sum(a["count"] for a in attempts)
        self.tokens += tokens


def load_attempts(folder):
    """An iteration's proved attempts; the others, far more, summed up in a row per statement and verdict."""
    proved, others = [], Counter()
    for a in read_jsonl(f"{folder}/attempts.jsonl"):
        if a["verdict"] == "proved":
            proved.append(a)
        else:
            others[a["statement"], a["role"], a["verdict"]] += a["count"]
    return proved + [{"statement": statement, "role": role, "verdict": verdict, "proof": "", "count": count}
                     for (statement, role, verdict), count in others.items()]


def self_play_iteration(t, data, history, policy, args):
    """One iteration of self-play (section 3). Returns the new policy and the iteration's line of metrics."""
    folder, draw, ends = f"{args.out}/iter_{t:02d}", rng(args, t, "given"), {"start": time.time()}
    unproved = [s for s in data.given if not history.best.get(s["statement"])]
    # Of the proved ones: those with too low a pass rate for a seed, and a random few of the others.
    again = [s for s in data.given if (rate := history.best.get(s["statement"])) and
             (rate < args.seed_rate or draw.random() < args.resample)]
    statements = unproved + again

    # Conjecture: from the proofs of given statements, write new statements.
    seeds = phase(f"{folder}/seeds.jsonl", lambda: choose_seeds(history, data, len(statements), t, args))
    conjectures = phase(f"{folder}/conjectures.jsonl", lambda: conjecture(
        folder, seeds, history, data, len(statements), len(unproved), t, policy, args))
    tried = [c for c in conjectures if c["tried"]]
    ends["conjecture"] = time.time()

    # Prove and verify: K samples of each; given statements also get those that conjectures leave unused.
    K = args.K if t else args.K0
    spare = K * (len(statements) - len(tried)) // max(1, len(statements))  # for each (difference 4)
    jobs = [{**s, "role": "given", "n": K + spare} for s in statements]
    jobs += [{**c, "role": "conjecture", "n": K} for c in tried]
    stats = prove(folder, jobs, policy, args)
    attempts = load_attempts(folder)
    ends["prove"] = time.time()

    # Reward: keep barely provable, relevant, elegant conjectures, reweighted towards the unproved statements.
    rewards = phase(f"{folder}/rewards.jsonl", lambda: reward.select(
        tried, [a for a in attempts if a["role"] == "conjecture"], [s["statement"] for s in unproved],
        lambda texts: embed(f"{folder}/embeddings.pt", texts, policy, args), challenge=args.challenge,
        elegance=args.elegance, reweight=args.reweight, kappa=args.kappa, seed=args.seed))
    torch.cuda.empty_cache()  # what reweighting used: the next processes want the whole GPU
    ends["reward"] = time.time()

    # Train: the same model on both roles.
    written = sum(row["tokens"] for f in Path(folder).glob("conjecture/*.jsonl") for row in read_jsonl(f))
    history.add(attempts, written + stats["tokens"])  # sampled by the conjecturer and by the prover
    examples = phase(f"{folder}/examples.jsonl", lambda: training_examples(history, rewards, data, args))
    training = {}
    if examples and args.prover == "on":
        policy, training = train(f"{folder}/model", policy, examples, args, args.lr, args.epochs)
    ends["train"] = time.time()
    seconds = {part: round(end - start, 2) for (_, start), (part, end) in itertools.pairwise(ends.items())}
    return policy, metrics(t, data, unproved, seeds, conjectures, attempts, rewards, examples, history,
                           stats, training, seconds)


def choose_seeds(history, data, budget, t, args):
    """At most `budget` seeds (statement, proof, lemma) from given statements of a pass rate > --seed_rate.

    A proof gives a seed with each lemma that it uses and, with probability 1/2, one with None, "no lemma". A
    lemma that has its share --lemma_cap of the budget gives no more, nor does None, if there is a library.
    """
    if args.conjecturer == "off":
        return []
    draw, count, seeds = rng(args, t, "seeds"), Counter(), {}
    proofs = [a for a in history.proofs.values() if history.best[a["statement"]] > args.seed_rate]
    draw.shuffle(proofs)
    for p in proofs:
        for lemma in sorted(reward.invoked(p["proof"], data.lemmas)) + [None] * (draw.random() < 0.5):
            room = count[lemma] < args.lemma_cap * budget or not data.lemmas
            if room and (p["statement"], lemma) not in seeds:
                count[lemma] += 1
                seeds[p["statement"], lemma] = {**pick(p, "statement", "proof", "header"), "lemma": lemma}
    return list(seeds.values())[:budget]


def pick(row, *keys):
    return {k: row[k] for k in keys if k in row}


def conjecture(folder, seeds, history, data, n_statements, n_unproved, t, policy, args):
    """Samples conjectures, has Lean check the new ones, marks those to try.

    Not new: equal to a given statement, a proved conjecture or an earlier one but for theorem name, white
    space and comments.
    """
    if not seeds:
        return
    n = min(args.per_seed, 3 * n_statements // len(seeds))  # three conjectures a statement, if seeds suffice
    rows = [{**s, "n": n, "prompt": conjecturer_example(s, "", data.lemmas, args)["prompt"]} for s in seeds]
    parsed = []
    for seed, texts in sample(f"{folder}/conjecture", rows, policy, args, Counter()):
        source = {"lemma": seed["lemma"], "seed": seed["statement"], "seed_proof": seed["proof"],
                  **pick(seed, "header")}
        parsed += [{"statement": parse_conjecture(text), **source} for text in texts]
    rng(args, t, "conjectures").shuffle(parsed)
    known, new = set(map(lean_check.normal_form, history.conjectures)), []
    known.update(lean_check.normal_form(s["statement"]) for s in data.given)
    for c in parsed:
        form = lean_check.normal_form(c["statement"])
        if form in known:
            yield {**c, "verdict": "duplicate", "message": "known, or an earlier one's copy", "tried": False}
        else:
            new.append(c)
            known.add(form)
    places = n_unproved  # no more conjectures are tried than there are unproved statements
    checked = lean(lean_check.check_statements, new, args)
    for c in tqdm(checked, desc="  Lean, conjectures", total=len(new), leave=False, disable=None):
        tried = c["verdict"] == "ok" and places > 0
        places -= tried
        yield {**c, "tried": tried}


def prove(folder, jobs, policy, args):
    """Samples proofs, which Lean checks as they come. Returns tokens and seconds of each part.

    jobs: statements with "n", the number of samples. Writes attempts.jsonl, a line for each distinct
    (statement, proof), then deletes the folder attempts/ with the samples.
    """
    path, samples, stats = f"{folder}/attempts.jsonl", f"{folder}/attempts", Counter(tokens=0)
    old = []  # verdicts from before a stop, up to a broken line or a crash; write_jsonl will empty this file
    with contextlib.suppress(UserError):
        old += itertools.takewhile(lambda a: a["verdict"] != "crashed", read_jsonl(f"{path}.tmp"))

    def attempts():
        rows = [{**j, "prompt": lean_prompt(j["statement"], j.get("header", args.header))} for j in jobs]
        for row, texts in sample(samples, rows, policy, args, stats):
            for proof, count in Counter(text.split(STOP_PROOF)[0] for text in texts).items():
                yield {**pick(row, "statement", "header", "name", "split", "role", "lemma"),
                       "proof": proof, "count": count}

    def verdicts():
        start, counts, crash = time.time(), Counter(), ""
        new = itertools.islice(attempts(), len(old), None)  # attempts come in the same order again
        for a in itertools.chain(old, lean(lean_check.check, new, args)):
            counts[a["verdict"]] += 1
            crash = a["message"] if a["verdict"] == "crashed" else crash
            stats["lean"] += a["seconds"]
            yield a
        if counts["crashed"] > 0.1 * counts.total():
            raise RuntimeError(f"Lean failed on {counts['crashed']} of {counts.total()} proofs ({crash}); "
                               "fix this and start again")
        stats["prove_wait"] = time.time() - start - stats["sample"]
        write_jsonl(f"{folder}/attempts.json", [{k: round(v, 2) for k, v in stats.items()}])

    if not os.path.exists(path):
        write_jsonl(path, verdicts())
    shutil.rmtree(samples, ignore_errors=True)
    return json.loads(Path(f"{folder}/attempts.json").read_text())


def lean(check, items, args):
    """check(items), a function of lean_check, with the run's flags; on a cluster, on all of its nodes."""
    check = functools.partial(lean_check.on_ray, check) if args.ray else check
    return check(items, lean=args.lean, project=args.lean_project, header=args.header, timeout=args.timeout,
                 workers=args.lean_workers or None, heartbeats=args.heartbeats, memory=args.memory)


def training_examples(history, rewards, data, args):
    """Replayed proofs of statements of pass rate <= 1/2, and kept conjectures, with weights (section 3.3)."""
    replay = [a for attempts in history.replay for a in attempts]
    rates = reward.pass_rates(replay)
    proofs = list({(a["statement"], a["proof"]): a for a in replay
                   if a["verdict"] == "proved" and rates[a["statement"]] <= args.train_rate}.values())
    for a, weight in zip(proofs, reward.proof_weights(proofs, args.gamma), strict=True):
        yield prover_example(a, args, weight)
    for c in rewards:
        if c["weight"] > 0 and args.conjecturer == "on":
            seed = {"statement": c["seed"], "proof": c["seed_proof"], **pick(c, "lemma", "header")}
            yield conjecturer_example(seed, c["statement"], data.lemmas, args, c["weight"])


# --------------------------------------------------------------------------------- stage 3: final re-training

def stage_3(folder, data, args, upto, given_only=False):
    """Trains the base on SFT data and on proofs of given statements and of challenging conjectures (3.3)."""
    draw, proofs = rng(args, os.path.basename(folder)), defaultdict(dict)
    for t in range(upto):
        attempts = load_attempts(f"{args.out}/iter_{t:02d}")
        rates = reward.pass_rates(attempts)
        for a in attempts:
            if a["verdict"] == "proved" and (
                    a["role"] == "given" or not given_only and rates[a["statement"]] <= args.challenge):
                proofs[a["statement"]][a["proof"]] = a
    examples = sft_examples(data, args)
    for found in proofs.values():
        for a in draw.sample(list(found.values()), min(len(found), args.retrain_proofs)):
            example = prover_example(a, args, math.exp(-args.gamma * len(a["proof"])))
            examples += [example] * args.retrain_repeat
    return train(folder, None, examples, args, args.sft_lr)[0]


# ---------------------------------------------------------------------------------------- phases as processes
# Sampling, embedding and training run in child processes: only a process's end surely frees GPU memory.

@contextlib.contextmanager
def processes(function, n, *job):
    """Runs function(rank, n, *job) in n processes, with --ray in n tasks; the last of job is always args.

    Yields alive(): are any left? Once one has failed, alive() or the exit raises and the others are killed.
    """
    if job[-1].ray:
        with ray_tasks(function, n, *job) as alive:
            yield alive
        return
    if not job[-1].gpus:  # else a preloaded package might see all GPUs, before `child` hides all but one
        forkserver.set_forkserver_preload(["transformers.models.llama.modeling_llama", "peft"])
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for this process: it ends the others
    forkserver.ensure_running()
    signal.signal(signal.SIGINT, interrupt)
    context = torch.multiprocessing.start_processes(child, (function, n, *job), n, join=False, daemon=True,
                                                    start_method="forkserver")
    try:
        yield lambda: not context.join(timeout=0.02)
        while not context.join():
            pass
    finally:
        for process in context.processes:
            process.kill()
            process.join()


def child(rank, function, n, *job):
    """A process of a phase: it ends with its parent, sees one GPU at most, and its libraries are quiet."""
    gpus = job[-1].gpus
    if parent := multiprocessing.parent_process():  # a ray task has none: ray sees to both
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))  # or UUIDs
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[rank].strip() if gpus else ""
    if gpus and not torch.cuda.is_available():
        sys.exit(f"process {rank}: torch {torch.__version__} cannot use its GPU (an older driver?)")
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // n))
    tqdm.set_lock(threading.RLock())  # its own, a semaphore, would outlive this process with a warning
    warnings.simplefilter("ignore", FutureWarning)
    function(rank, n, *job)


# ---------------------------------------------------------------------------------- the same on a ray cluster

def join_ray(address):
    """Joins a ray cluster; returns its numbers of nodes, GPUs and CPUs."""
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")  # else ray tries for 15 minutes
    try:
        import ray
        with contextlib.chdir(HERE):  # its tasks import from here
            ray.init(address, logging_level="error")
    except ImportError:
        raise UserError("--ray: ray is not installed; run: pip install ray") from None
    except (ConnectionError, ValueError, RuntimeError) as e:
        why = (str(e).splitlines() or [repr(e)])[0]
        raise UserError(f"--ray {address}: this machine is in no cluster ({why}); run: ray start") from None
    size = Counter(ray.cluster_resources())
    return sum(node["Alive"] for node in ray.nodes()), int(size["GPU"]), int(size["CPU"])


@contextlib.contextmanager
def ray_tasks(function, n, *job):
    """`processes` as tasks of a cluster, each a new process on a GPU, or a CPU, of any node.

    What a lost node was sampling runs again elsewhere, except finished shards. Training starts when there is
    room for all its processes, and fails when one of them is lost.
    """
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
    gpus, group, tasks = int(job[-1].gpus > 0), None, []

    def alive():
        done, left = ray.wait(tasks, num_returns=n, timeout=0.02) if tasks else ([], [])
        try:
            for error in filter(None, ray.get(done)):
                raise RuntimeError(error)
        except ray.exceptions.RayError as e:
            raise RuntimeError(f"{function.__name__}: {e}") from None
        return bool(left)

    try:
        options = {"max_retries": 3, "scheduling_strategy": "SPREAD"}
        if function is train_worker:
            group = ray.util.placement_group([{"CPU": 1, "GPU": gpus}] * n)
            options = {"max_retries": 0, "scheduling_strategy": PlacementGroupSchedulingStrategy(group)}
            if not group.wait(300):
                raise RuntimeError(f"training: the cluster has no room for {n} processes (--procs)")
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_calls=1, **options)(ray_child)
        tasks += [task.remote(function.__name__, rank, n, *job) for rank in range(n)]
        yield alive
        while alive():
            pass
    finally:
        lean_check.end_tasks(tasks, force=True)
        if group:
            ray.util.remove_placement_group(group)


def ray_child(name, rank, n, *job):
    """`child` as a task. Returns why it could not do its work, or None."""
    import stp  # this file is __main__ where it runs as a script
    out = job[-1].out
    if not os.path.isdir(out) or "config.json" not in os.listdir(out):
        return f"node {os.uname().nodename} does not see --out {out}; it must be on a shared file system"
    try:
        stp.child(rank, getattr(stp, name), n, *job)
    except SystemExit as e:
        return str(e)


# ---------------------------------------------------------------------------------------- model and tokenizer

def model_folder(name):
    """Local folder of a model: the folder of that name, or the downloaded snapshot of a hub name, or None."""
    from huggingface_hub import snapshot_download
    if os.path.isdir(os.path.expanduser(name)):
        return os.path.abspath(os.path.expanduser(name))
    try:
        return snapshot_download(name, local_files_only=True)
    except (OSError, ValueError):  # not downloaded; no hub name
        return None


def weights_size(folder):
    """Bytes of a model's weights."""
    return sum(f.stat().st_size for f in Path(folder).iterdir() if f.suffix in (".safetensors", ".bin"))


def file_digests(folder):
    """[(name, digest)] of a model's files, weights and tokenizer: what it is, wherever it lies."""
    kinds = (".json", ".safetensors", ".bin", ".model")
    return [(f.name, hashlib.file_digest(f.open("rb"), "blake2b").hexdigest())
            for f in sorted(Path(folder).iterdir()) if f.suffix in kinds]


def load_model(path, full=False):
    """bf16 on a GPU, fp32 on a CPU and where all weights are trained. ValueError: a weight is missing."""
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar
    disable_progress_bar()  # a bar for each loading would bury the run's own lines
    cuda = torch.cuda.is_available()
    dtype = torch.bfloat16 if cuda and not full else torch.float32
    model, info = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, output_loading_info=True)
    if info["missing_keys"]:  # they would be random
        raise ValueError(f"its weights lack {min(info['missing_keys'])}")
    return model.to("cuda" if cuda else "cpu")


def pad(rows, device, side="right"):
    """Token ids (B, T) of rows of unequal length, padded with zeros at one side, and their mask: 0 there."""
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row, dtype=torch.long) for row in rows],
                                          batch_first=True, padding_value=-1, padding_side=side).to(device)
    return ids.clamp(min=0), (ids >= 0).long()


def load_tokenizer(folder):
    """The tokenizer of a model, as its tokenizer.json says.

    AutoTokenizer goes by the name of a class. DeepSeek-Prover's is LlamaTokenizerFast, but it is byte-level
    BPE: with transformers < 5.22 all its spaces and mathematical symbols would vanish.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    kind = PreTrainedTokenizerFast if os.path.exists(f"{folder}/tokenizer.json") else AutoTokenizer
    return kind.from_pretrained(folder, clean_up_tokenization_spaces=False)


def encode_prompt(tokenizer, prompt, limit=sys.maxsize):
    """Token ids of a prompt, its last ones behind the bos token (if there is one), at most `limit` in all."""
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    ids = tokenizer(prompt, add_special_tokens=False).input_ids
    return bos + ids[len(bos) - limit:]


def end_tokens(folder, tokenizer):
    """Ids that end a completion: the tokenizer's, which is trained, and those of generation_config.json."""
    file = Path(folder, "generation_config.json")
    ends = json.loads(file.read_text()).get("eos_token_id") if file.exists() else None
    return {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}


def check_model(args):
    """UserError where model and tokenizer would silently give wrong numbers."""
    from safetensors import SafetensorError
    try:
        why = next(model_faults(args), None)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as e:
        why = f"cannot be loaded ({str(e).splitlines()[0]})"
    if why:
        raise UserError(f"--model {args.model}: {why}")


def model_faults(args):
    """Yields why a model would give wrong numbers, the cheap checks first."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig
    config, tokenizer = AutoConfig.from_pretrained(args.model), load_tokenizer(args.model)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        yield f"{type(config).__name__}: no causal language model"
    line = "theorem t (h₀ : ∀ x ∈ ℕ, x ≠ 0) : ⟨a, b⟩ = c := by\n    norm_num  [h₀]\n\n  simp"
    ids, length = encode_prompt(tokenizer, line), args.max_prompt + args.max_new
    if (back := tokenizer.decode(ids, skip_special_tokens=True)) != line:
        yield f"its tokenizer does not give Lean text back: {line!r} becomes {back!r}"
    if tokenizer.eos_token_id is None:
        yield "its tokenizer (tokenizer_config.json) has no eos_token"
    if max(*ids, *end_tokens(args.model, tokenizer)) >= (size := config.get_text_config().vocab_size):
        yield f"its tokenizer or generation_config.json has ids above the model's largest, {size - 1}"
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    if limit and limit < length:
        yield f"it has {limit} positions; --max_prompt and --max_new need {length}"
    if args.engine == "hf" and not args.dry_run:  # loads the model
        error = cache_error(load_model(args.model).eval(), ids)
        torch.cuda.empty_cache()  # the processes to come want the whole GPU
        if error > (0.2 if torch.cuda.is_available() else 0.001):  # rounding: 0.03 in bf16, 2e-6 in fp32
            yield "its logits change with a cache or padding: --engine hf would err; use --engine vllm"


# --------------------------------------------------------------------------------------------------- sampling

def sample(folder, rows, policy, args, stats):
    """Samples row["n"] completions of row["prompt"] for each row; yields (row, completions) as shards finish.

    Prompts are sorted by length and cut into shards of --shard samples; a shard is a file with its own seed,
    so the result does not depend on the number of processes (with vLLM on a GPU: up to rounding, by what its
    prefix cache holds). Adds to stats: "tokens", "new_tokens" (without finished shards), "sample" (seconds).
    """
    start, rows = time.time(), sorted(rows, key=lambda r: (-len(r["prompt"]), r["prompt"]))
    size = max(1, args.shard // max((r["n"] for r in rows), default=1))
    shards = {f"{folder}/{at // size:05d}.jsonl": rows[at:at + size] for at in range(0, len(rows), size)}
    os.makedirs(folder, exist_ok=True)
    todo = {name: [(r["prompt"], r["n"]) for r in shard]
            for name, shard in shards.items() if not os.path.exists(name)}
    with (processes(sample_worker, min(args.procs, len(todo)), todo, served(policy, args), args) as alive,
          tqdm(total=sum(r["n"] for r in rows), desc=f"  {os.path.basename(folder)}", unit="sample",
               leave=False, disable=None) as bar):
        for name, shard in shards.items():
            while not os.path.exists(name):
                ended = not alive()  # asked first: the shard may be written while we ask
                os.listdir(folder)  # makes a network file system look again
                if ended and not os.path.exists(name):
                    raise RuntimeError(f"{name}: the samplers ended without writing it")
                time.sleep(0.02)
            for row, out in zip(shard, read_jsonl(name), strict=True):
                stats["tokens"] += out["tokens"]
                stats["new_tokens"] += out["tokens"] * (name in todo)  # those that the seconds are of
                bar.update(row["n"])
                yield row, out["texts"]
        stats["sample"] += time.time() - start


def served(policy, args):
    """The model that samplers load; for vLLM, whose compile cache goes by the path, behind one fixed link."""
    model, link = merged(policy, args), f"{args.out}/served"
    if args.engine != "vllm":
        return model
    with contextlib.suppress(FileNotFoundError):
        os.remove(link)
    os.symlink(os.path.abspath(model), link)
    return link


def sample_worker(rank, world, shards, model, args):
    tokenizer = load_tokenizer(model)
    engine = (vllm_engine if args.engine == "vllm" else hf_engine)(model, tokenizer, args)
    for name in list(shards)[rank::world]:
        if os.path.exists(name):  # this task ran before, on a node of the ray cluster that was lost
            continue
        rows = [(i, encode_prompt(tokenizer, prompt, args.max_prompt), n)
                for i, (prompt, n) in enumerate(shards[name])]
        outs = [{"texts": [], "tokens": 0} for _ in rows]
        for i, ids in engine(rows, int(digest([args.seed, os.path.relpath(name, args.out)])[:7], 16)):
            outs[i]["texts"].append(tokenizer.decode(ids, skip_special_tokens=True))
            outs[i]["tokens"] += len(ids)
        write_jsonl(name, outs)


def cut(ids, ends):
    """Token ids up to the first of `ends`, a set."""
    return list(itertools.takewhile(lambda token: token not in ends, ids))


def vllm_engine(model, tokenizer, args):
    """Function (rows of (index, prompt ids, n), seed) -> (index, completion ids), by vLLM in this process."""
    for name, value in {"VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine lives and dies with this process
                        "VLLM_LOGGING_LEVEL": "ERROR",  # reports and bars would bury our lines
                        "VLLM_NO_USAGE_STATS": "1",  # else it reports each start to its makers
                        "VLLM_USE_FLASHINFER_SAMPLER": "0"}.items():  # that one needs nvcc
        os.environ.setdefault(name, value)
    logging.getLogger().addHandler(logging.NullHandler())  # for what vLLM logs before it reads that level
    tqdm.__init__ = functools.partialmethod(tqdm.__init__, disable=True)  # here all bars are vLLM's
    from vllm import LLM, SamplingParams
    ends = end_tokens(model, tokenizer)
    if args.gpus:
        sizes = {"dtype": "bfloat16", "max_num_seqs": sequences_at_once(model, args)}
    else:  # compiling takes a minute, and chunked prefill fails
        sizes = {"dtype": "float32", "kv_cache_memory_bytes": 2**29, "enforce_eager": True,
                 "enable_chunked_prefill": False}
    llm = LLM(model=model, seed=args.seed, skip_tokenizer_init=True, use_tqdm_on_load=False,
              language_model_only=True,  # else a model that takes images, too, insists on its tokenizer
              max_model_len=args.max_prompt + args.max_new, **sizes)

    def complete(rows, seed):
        params = [SamplingParams(n=n if args.temperature else 1, seed=(seed + 1000003 * i) % 2**31,
                                 temperature=args.temperature, top_p=1.0, top_k=0, max_tokens=args.max_new,
                                 stop_token_ids=sorted(ends), detokenize=False) for i, _, n in rows]
        outs = llm.generate([{"prompt_token_ids": ids} for _, ids, _ in rows], params, use_tqdm=False)
        for (i, _, n), out in zip(rows, outs, strict=True):
            for c in out.outputs * (n // len(out.outputs)):  # vLLM allows one greedy completion
                yield i, cut(c.token_ids, ends)
    return complete


def sequences_at_once(model, args):
    """Samples whose keys and values fit beside the weights; with more, vLLM drops and recomputes some."""
    from transformers import AutoConfig
    config = AutoConfig.from_pretrained(model).get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads  # of a head
    token = 4 * config.num_hidden_layers * heads * width  # bytes: a key and a value in bf16, in each layer
    cache = 0.9 * torch.cuda.mem_get_info()[1] - weights_size(model)  # vLLM takes 92% of the GPU
    length = (args.max_prompt + args.max_new) / 4  # most are far shorter than the limit
    return max(16, min(1024, int(cache / token / length) // 16 * 16))  # vLLM compiles for each value


@functools.cache
def cache_name(kind):
    """The argument by which a class of models takes its cache; transformers 5.24 renamed it."""
    return "cache" if "cache" in inspect.signature(kind.forward).parameters else "past_key_values"


def next_logits(net, ids, mask, cache):
    """Logits (B, V) of what follows ids (B, T), left-padded; mask covers what is in the cache, too."""
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1]:]
    return net(ids, attention_mask=mask, position_ids=positions, logits_to_keep=1,
               **{cache_name(type(net)): cache}).logits[:, -1].float()


@torch.inference_mode()
def cache_error(net, ids):
    """How far a cache and padding move logits, rms, in their standard deviations; inf: no such cache.

    Mamba, RWKV and RecurrentGemma keep a state of their own, or let padding into it.
    """
    from transformers import DynamicCache
    rows, cache = [ids, ids[len(ids) // 2:]], DynamicCache(config=net.config)
    tokens, mask = pad(rows, net.device, side="left")
    try:
        next_logits(net, tokens[:, :-3], mask[:, :-3], cache)
        cache.reorder_cache(torch.tensor([1, 0], device=net.device))
        tokens, mask = tokens.flip(0), mask.flip(0)
        for at in range(tokens.shape[1] - 3, tokens.shape[1]):
            out = next_logits(net, tokens[:, at:at + 1], mask[:, :at + 1], cache)
    except (TypeError, ValueError):
        return math.inf
    plain = torch.cat([net(pad([row], net.device)[0]).logits[:, -1].float() for row in reversed(rows)])
    return ((out - plain).std() / plain.std()).item()


def hf_engine(model, tokenizer, args, every=8):
    """The same by transformers: a prompt is read once for all its samples; finished samples soon leave."""
    from transformers import DynamicCache
    net, ends = load_model(model).eval(), end_tokens(model, tokenizer)
    batch = sequences_at_once(model, args) if args.gpus else 512

    def choose(logits):  # (B, V) -> (B, 1)
        if not args.temperature:
            return logits.argmax(-1, keepdim=True)
        return torch.multinomial((logits / args.temperature).softmax(-1), 1)

    @torch.inference_mode()
    def generate(rows):
        ids, mask = pad([ids for _, ids, _ in rows], net.device, side="left")  # (prompts, T)
        cache, new = DynamicCache(config=net.config), ids[:, :0]
        logits = next_logits(net, ids, mask, cache)
        # stay: the rows that go on, at first each prompt's once per sample; a round adds `every` tokens.
        stay = [k for k, (_, _, n) in enumerate(rows) for _ in range(n)]
        while stay:
            at = torch.tensor(stay, device=net.device)
            cache.reorder_cache(at)  # takes rows: at first repeats prompts, later drops what is finished
            rows, logits, mask, new = [rows[k] for k in stay], logits[at], mask[at], new[at]
            for _ in range(min(every, args.max_new - new.shape[1])):
                new = torch.cat([new, choose(logits)], 1)
                mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
                logits = next_logits(net, new[:, -1:], mask, cache)
            texts, stay = [cut(tokens, ends) for tokens in new.tolist()], []
            for k, text in enumerate(texts):
                if len(text) < new.shape[1] or len(text) == args.max_new:
                    yield rows[k][0], text
                else:
                    stay.append(k)

    def complete(rows, seed):
        torch.manual_seed(seed)
        rows = sorted(rows, key=lambda row: len(row[1]))
        size = max(1, batch // max(n for _, _, n in rows))
        for at in range(0, len(rows), size):
            yield from generate(rows[at:at + size])
    return complete


def embed(path, statements, policy, args):
    """Embeddings (n, d), float32: mean of the last hidden layer over the first 512 tokens (section 3.2)."""
    with processes(embed_worker, 1, path, statements, merged(policy, args), args):
        pass
    out = torch.load(path)
    os.remove(path)
    return out.to("cuda" if args.gpus and torch.cuda.is_available() else "cpu")


def embed_worker(rank, world, path, statements, model, args):
    tokenizer, net, means = load_tokenizer(model), load_model(model).eval(), []
    ids = [encode_prompt(tokenizer, s)[:512] for s in statements]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for at in range(0, len(order), 64):
        tokens, mask = pad([ids[i] for i in order[at:at + 64]], net.device)
        with torch.inference_mode():
            hidden = net(input_ids=tokens, attention_mask=mask, use_cache=False, logits_to_keep=1,
                         output_hidden_states=True).hidden_states[-1].float()  # (B, T, d)
        means.append(((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).cpu())
    torch.save(torch.cat(means)[torch.tensor(order).argsort()], path)  # in the order of the statements again


# --------------------------------------------------------------------------------------------------- training

def train(folder, policy, examples, args, lr, epochs=1):
    """Trains on weighted examples, going on from `policy`. Returns the new policy and its training.json.

    LoRA goes on from the policy's adapter on the base model, a full finetune (--lora_r 0) from its weights.
    """
    if not os.path.exists(folder):
        part = f"{folder}.tmp"
        shutil.rmtree(part, ignore_errors=True)
        os.makedirs(part)
        torch.save(tokenize(examples, load_tokenizer(args.model), args), f"{part}/data.pt")
        with processes(train_worker, args.procs, part, policy, lr, epochs, args):
            pass
        os.remove(f"{part}/data.pt")
        os.replace(part, folder)
    return folder, json.loads(Path(f"{folder}/training.json").read_text())


def tokenize(examples, tokenizer, args):
    """List of (ids of prompt + target + end of sequence, where the target starts, weight).

    A prompt loses its beginning where it is longer than --max_prompt, or does not fit beside its target into
    --max_prompt + --max_new; a row whose target alone does not fit is left out.
    """
    data, end, limit = [], tokenizer.eos_token_id, args.max_prompt + args.max_new
    for e in examples:
        target = tokenizer(e["target"], add_special_tokens=False).input_ids
        target = target if target[-1:] == [end] else target + [end]
        if len(target) + 2 <= limit:
            prompt = encode_prompt(tokenizer, e["prompt"], min(args.max_prompt, limit - len(target)))
            ids = array.array("i", prompt + target)  # a list takes nine times the memory
            data.append((ids, len(prompt), e.get("weight", 1.0)))
    if len(data) < len(examples):
        print(f"training: {len(examples) - len(data)} of {len(examples)} examples are left out, longer than "
              f"{limit} tokens (--max_prompt + --max_new)", file=sys.stderr)
    if not data:
        raise UserError(f"no example to train on is shorter than {limit} tokens (--max_prompt + --max_new)")
    return data


def train_worker(rank, world, folder, policy, lr, epochs, args):
    torch.manual_seed(args.seed)  # so each process makes the same new adapter: nothing is broadcast
    model = trainable_model(policy, args)
    if world > 1:  # after loading, which may take longer than a store waits
        join_group(rank, world, folder, args)
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=lr, betas=(0.9, 0.95), eps=1e-5, weight_decay=0.0, fused=True)
    data = torch.load(f"{folder}/data.pt", weights_only=False)
    draw, size = random.Random(args.seed), args.batch_size  # every process draws the same batches
    epochs = max(epochs, math.ceil(5 / math.ceil(len(data) / size)))  # at least 5 steps
    orders = [draw.sample(data, len(data)) for _ in range(epochs)]
    batches = [order[at:at + size] for order in orders for at in range(0, len(data), size)]
    losses, start = [], time.time()
    for step, batch in enumerate(tqdm(batches, desc="  training", unit="step", leave=False,
                                      disable=rank > 0 or None)):
        loss = accumulate_gradients(model, params, batch, rank, world, args)
        if not math.isfinite(loss):
            sys.exit(f"training: loss is {loss} at step {step}; lower the learning rate ({lr}), with another "
                     "--out")
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.param_groups[0]["lr"] = lr * min(1.0, (step + 1) / 5)  # warm-up, then constant
        optimizer.step()
        losses.append(loss)
    tokens = epochs * sum(len(ids) for ids, _, _ in data)
    record = {"loss": sum(losses) / len(losses), "steps": len(losses), "tokens": tokens,
              "tokens_per_second": tokens / (time.time() - start)}
    if world > 1:  # before saving, which may take longer than a process group waits
        distributed.destroy_process_group()
    if rank == 0:
        save(model, folder, record, args)


def join_group(rank, world, folder, args):
    """A process group over a tcp store of rank 0, which leaves its address in the folder."""
    file, host = Path(f"{folder}/address"), "127.0.0.1"
    if args.ray:
        import ray
        host = ray.util.get_node_ip_address()
    else:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if rank == 0:
        store = distributed.TCPStore(host, 0, world, is_master=True, wait_for_workers=False)
        write_jsonl(file, [[host, store.port]])
    else:
        while file.name not in os.listdir(folder):  # makes a network file system look again
            time.sleep(0.02)
        store = distributed.TCPStore(*json.loads(file.read_text()), world)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world)


def accumulate_gradients(model, params, batch, rank, world, args):
    """Puts the gradient of the batch's loss, a weighted mean over target tokens, into params; returns it."""
    for p in params:
        p.grad = torch.zeros_like(p)  # not None, also where a process has no sequence of a small batch
    norm = max(1e-30, sum(weight * (len(ids) - start) for ids, start, weight in batch))  # weights may be 0
    total = torch.zeros((), device=model.device)
    mine = sorted(batch, key=lambda item: len(item[0]))[rank::world]
    for group in micro_batches(mine, args.tokens_per_step):
        loss = weighted_loss(model, group) / norm
        loss.backward()
        total += loss.detach()
    if world > 1:  # the loss is a sum over all processes, and so is its gradient
        sums = [total, *(p.grad for p in params)]
        flat = torch.nn.utils.parameters_to_vector(sums)
        distributed.all_reduce(flat)
        torch.nn.utils.vector_to_parameters(flat, sums)
    return total.item()


def micro_batches(batch, tokens):
    """Cuts a batch, sorted by length, into groups of at most `tokens` tokens with padding."""
    groups = []
    for item in batch:
        if not groups or len(item[0]) * (len(groups[-1]) + 1) > tokens:
            groups.append([])
        groups[-1].append(item)
    return groups


def weighted_loss(model, group):
    """Sum over the group's sequences of weight x cross entropy of the target tokens."""
    tokens, _ = pad([ids for ids, _, _ in group], model.device)  # (B, T); causal: needs no padding mask
    target = torch.tensor([[start <= t < len(ids) for t in range(1, tokens.shape[1])]
                           for ids, start, _ in group], device=model.device)  # bool (B, T-1), of token t
    weight = torch.tensor([w for _, _, w in group], device=model.device)[:, None].expand_as(target)[target]
    # On a GPU the adapter, held in fp32, is computed in bf16 like the base: 27% faster at 7B.
    bf16 = torch.autocast("cuda", torch.bfloat16, enabled=torch.cuda.is_available())
    # Logits of targets only, for memory, by a hook: the model calls its head itself, as some cap the logits.
    head = model.get_output_embeddings()
    with bf16, head.register_forward_pre_hook(lambda _, inputs: (inputs[0][:, :-1][target],)):
        logits = model(input_ids=tokens, use_cache=False).logits.float()  # (targets, V)
    return (torch.nn.functional.cross_entropy(logits, tokens[:, 1:][target], reduction="none") * weight).sum()


def trainable_model(policy, args):
    """The base with a LoRA adapter (fp32), new or the policy's; for --lora_r 0 the policy itself."""
    import peft
    model = load_model(args.model if args.lora_r else merged(policy, args), full=not args.lora_r)
    if args.lora_r and policy:
        model = peft.PeftModel.from_pretrained(model, f"{policy}/adapter", is_trainable=True)
    elif args.lora_r:
        model = peft.get_peft_model(model, peft.LoraConfig(
            r=args.lora_r, lora_alpha=2 * args.lora_r, target_modules="all-linear", task_type="CAUSAL_LM"))
    if torch.cuda.is_available():
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    return model.train()


def save(model, folder, record, args):
    """Adapter and merged model. LoRA never changes the base's weights, so this merge is into a fresh base."""
    from transformers import GenerationConfig
    if args.lora_r:
        model.save_pretrained(f"{folder}/adapter")
        model = model.merge_and_unload()
    model.generation_config = GenerationConfig()  # the base's, which it may refuse to save, is copied below
    model.save_pretrained(f"{folder}/merged")
    for file in Path(args.model).iterdir():  # the tokenizer as it came: saving it again could change it
        if re.match("tokenizer|special_tokens|added_tokens|vocab|merges|chat_template|generation", file.name):
            shutil.copy(file, f"{folder}/merged")
    Path(f"{folder}/training.json").write_text(json.dumps(record))


# ------------------------------------------------------------------------------------- metrics and evaluation

def mean(values):
    values = list(values)
    return round(sum(values) / max(1, len(values)), 4)


def histogram(rates):
    """Counts of pass rate 0, then of the eight equal bins of (0, 1]."""
    bins = Counter(math.ceil(r * 8) for r in rates)
    return [bins[i] for i in range(9)]


def metrics(t, data, unproved, seeds, conjectures, attempts, rewards, examples, history, stats, training,
            seconds):
    """One line of metrics.jsonl; what its names do not say stands beside them."""
    proved = sum(rate > 0 for rate in history.best.values())
    verdicts, checked = Counter(), Counter(c["verdict"] for c in conjectures)
    forms = [(lean_check.normal_form(c["statement"]), c["verdict"]) for c in conjectures]
    bad = {form for form, verdict in forms if verdict not in ("ok", "duplicate")}
    for a in attempts:
        verdicts[a["verdict"]] += a["count"]
    rates = reward.pass_rates(attempts)
    rates_given = [rates[s["statement"]] for s in unproved if s["statement"] in rates]
    rates_conjectures = [r["pass_rate"] for r in rewards if r["reason"] != "unjudged"]
    kept = [r["statement"] for r in rewards if r["weight"] > 0]
    reasons = Counter(r["reason"] for r in rewards)
    found = Counter(a["statement"] for a in attempts if a["verdict"] == "proved")
    return {
        "iteration": t, "given": len(data.given), "proved": proved,  # so far
        "cumulative": round(proved / len(data.given), 4),
        "proofs": history.sampled,  # samples of the prover so far, right or wrong
        "tokens": history.tokens,  # of both roles, so far
        "distinct_proofs": mean(found.values()),  # of a proved statement, in this iteration
        "seeds": len(seeds), "lemmas": len({s["lemma"] for s in seeds} - {None}),  # distinct ones
        "sampled": len(conjectures),  # conjectures written; of these:
        "wellformed": sum(form not in bad for form, _ in forms),  # copies count as the first
        "distinct": checked["ok"], "tried": len(rewards),
        # of those tried, with a proof and a pass rate of at most --challenge
        "barely": len(rewards) - reasons["unproved"] - reasons["too easy"] - reasons["unjudged"],
        "kept": len(kept),
        "rate_given": mean(rates_given), "rate_conjectures": mean(rates_conjectures),  # pass rates
        "hist_given": histogram(rates_given), "hist_conjectures": histogram(rates_conjectures),
        "len_conjectures": mean(len(r["statement"]) for r in rewards), "len_kept": mean(map(len, kept)),
        **drift(kept, attempts),
        "examples": len(examples), "verdicts": dict(sorted(verdicts.items())), "loss": training.get("loss"),
        "sample_tokens_per_second": round(stats.get("new_tokens", 0) / max(stats["sample"], 1e-3)),
        "train_tokens_per_second": round(training["tokens_per_second"]) if training else None,
        "seconds": {**seconds, **{k: stats.get(k, 0) for k in ("sample", "lean", "prove_wait")}}}


HEADING = ("iter      proved        proofs  conjectures: sampled wellformed barely kept  rate: given conj."
           "  seconds: sample  Lean  wait train    loss")


def report(m):
    """A line under HEADING. given: rate of U; Lean: added up over workers; wait: for Lean after sampling."""
    s, loss = m["seconds"], "-" if m["loss"] is None else f"{m['loss']:.3f}"
    return (f"{m['iteration']:4d} {m['proved']:6d}/{m['given']:<6d} {m['proofs']:8d} {m['sampled']:20d} "
            f"{m['wellformed']:10d} {m['barely']:6d} {m['kept']:4d} "
            f"{m['rate_given']:12.3f} {m['rate_conjectures']:5.3f} {s['conjecture'] + s['sample']:16.1f} "
            f"{s['lean']:5.1f} {s['prove_wait']:5.1f} {s['train']:5.1f} {loss:>8}")


def drift(kept, attempts):
    """Whether conjectures become alike, or padded, in any domain: two shares of the kept ones.

    distinct_kept: those that differ by more than names bound before the colon. unused_hypothesis: those with
    a binder that neither the rest of the statement nor any proof found mentions, by name or quoted as ‹...›
    (an upper bound: automation uses hypotheses without naming them).
    """
    proofs, forms, padded, word = defaultdict(str), set(), 0, re.compile(r"[^\W\d][\w'!?]*")
    for a in attempts:
        if a["verdict"] == "proved":
            proofs[a["statement"]] += a["proof"] + "\n"
    for statement in kept:
        top, new_names, unused = [t for t in lean_check.lex(statement) if not t.depth], {}, False
        for t, after in itertools.pairwise(top):  # the two brackets of a binder
            if t.word == ":":  # the binders end
                break
            names, _, proposition = statement[t.start + 1:after.start].partition(":")
            if t.word in ("(", "{", "⦃"):
                text = statement[:t.start] + statement[after.start:] + proofs[statement]
                used = f"‹{proposition.strip()}›" in text or {*names.split()} & {*word.findall(text)} - {"_"}
                unused = unused or not used
                new_names.update((n, f"#{len(new_names)}") for n in names.split() if n not in new_names)
        padded += unused
        form = lean_check.normal_form(statement)
        forms.add(word.sub(lambda m, new=new_names: new.get(m[0], m[0]), form))
    return {"distinct_kept": round(len(forms) / max(1, len(kept)), 4),
            "unused_hypothesis": round(padded / max(1, len(kept)), 4)}


def evaluate(policy, data, args):
    """Samples --samples proofs of every statement to evaluate; prints and writes pass@k per split.

    Also writes one proof of each proved statement, for another checker: proofs.lean, a file for each header.
    The folder is named by policy, statements and --samples: nothing else may change in a run folder.
    """
    name = os.path.relpath(policy, args.out).replace("/", "_") if policy else os.path.basename(args.model)
    folder = f"{args.out}/eval/{name}_{digest([data.scored, args.samples])}"
    if not (os.path.exists(f"{folder}/attempts.jsonl") or os.path.exists(merged(policy, args))):
        raise UserError(f"{merged(policy, args)} is gone: a run keeps its newest model; name a later --iters")
    jobs = [{**s, "role": "given", "n": args.samples} for s in data.scored]
    prove(folder, jobs, policy, args)
    passed, crashed, proofs = Counter(), 0, defaultdict(dict)
    for a in read_jsonl(f"{folder}/attempts.jsonl"):
        crashed += a["count"] * (a["verdict"] == "crashed")
        if a["verdict"] == "proved":
            passed[a["statement"]] += a["count"]
            proofs[a.get("header", args.header)].setdefault(a["statement"], a)
    for i, (header, found) in enumerate(proofs.items()):  # as Lean read them; a number makes names unique
        theorems = [lean_check.template(a["statement"], a["proof"]).replace("\0", f"n{n}")
                    for n, a in enumerate(found.values(), 1)]
        Path(f"{folder}/proofs{i or ''}.lean").write_text("\n".join([header, *theorems]), encoding="utf-8")
    if crashed:
        print(f"evaluation: Lean crashed on {crashed} samples, which count as failed", file=sys.stderr)
    result, ks = {}, sorted({args.samples, *(2**i for i in range(args.samples.bit_length()))})
    for split in sorted({s["split"] for s in data.scored}):
        counts = [passed[s["statement"]] for s in data.scored if s["split"] == split]
        print(f"{split}: {sum(map(bool, counts))} of {len(counts)} statements proved, "
              f"{args.samples} samples of each")
        result[split] = {f"pass@{k}": pass_at_k(args.samples, counts, k) for k in ks}
        for k, (value, error) in result[split].items():
            print(f"  {k:>9} {100 * value:6.2f}% ± {100 * error:.2f} of {len(counts)}")
    write_jsonl(f"{folder}/result.json", [result])


def pass_at_k(n, counts, k):
    """Mean of 1 - C(n-c, k) / C(n, k) over statements with c of n samples proved, and its standard error."""
    values = [1 - math.comb(n - c, k) / math.comb(n, k) for c in counts]
    m = sum(values) / len(values)
    return m, math.sqrt(sum((v - m) ** 2 for v in values)) / len(values)


# ------------------------------------------------------------------------------------------------- input data

def is_text(value):
    """A string without lone surrogates: those cannot be written to a file."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


MODIFIERS = ("private", "protected", "nonrec")  # a theorem on its own means the same without them


def read_statement(text, header=""):
    """Lean text that ends in a theorem -> (what stands before it, the statement, ending in ":= by").

    The last theorem is the one to prove. Its "sorry" or proof goes, with what follows, and so do attributes
    and modifiers; comments just before it stay, also one that ends the header. Raises lean_check.Refused.
    "open Nat in @[simp] lemma t : p := by sorry" gives "open Nat " and "lemma t : p := by".
    """
    head, stop, tail = text.replace("\r\n", "\n").partition("-/")
    opened = "/-" in header + head  # else the text begins inside a comment, which goes
    text = tail if stop and not opened else head + stop + tail
    tokens = lean_check.lex(text := header + text.lstrip())
    top = [t for t in tokens if t.kind != "comment" and not t.depth]  # outside brackets, and these themselves
    words = [t.word for t in top]
    theorems = [i for i, word in enumerate(words) if word in ("theorem", "lemma")]
    if not theorems or top[theorems[-1]].start < len(header):
        raise lean_check.Refused("malformed", "no theorem or lemma")
    keyword = first = theorems[-1]  # places in top: of `theorem`, of its first attribute or modifier
    while first and (words[first - 1] in MODIFIERS or words[max(first - 3, 0):first] == ["@", "[", "]"]):
        first -= 1 if words[first - 1] in MODIFIERS else 3
    after = top[first - 1].start if first else -1
    start = next(t.start for t in tokens if t.start > after)  # of its comments
    before = re.sub(r"^([ \t]*(?:open|set_option|variable|omit|include)\b[^\n]*)\s+in(?=\s*?$)", r"\1",
                    text[:start], flags=re.M)  # in a header `open X in` would reach no further than a line
    complete = all({":=", "|"} & set(words[i:j]) for i, j in itertools.pairwise(theorems))
    if not complete or any(words[i - 1] in (":=", "by") for i in [*theorems[1:], first] if i):
        raise lean_check.Refused("malformed", "a definition or lemma before the theorem is left open")
    end, lets = keyword, 0
    while end < len(top) and (words[end] != ":=" or lets):  # the := of `let x := 1` does not end it
        lets += (words[end] in ("let", "have", "letI", "haveI")) - (words[end] == ":=")
        end += 1
    last = top[end - 1].start + len(words[end - 1])
    ending = re.match(r" +:= +by(?=\s|$)|", text[last:])[0] or " := by"  # kept: LeanWorkbook's "   :=  by"
    return before, f"{text[start:top[first].start]}{text[top[keyword].start:last]}{ending}"


def as_header(value):
    """A header (text, list of lines, null) as text that ends in a newline; "" if there is none."""
    lines = value if isinstance(value, list) else [value or ""]
    if not all(map(is_text, lines)):
        raise lean_check.Refused("malformed", "the header is no text")
    return "".join(line.removesuffix("\n") + "\n" for line in lines) if "".join(lines).strip() else ""


FIELDS = "formal_statement", "autoformalization", "lean4_code", "statement", "code"  # the first counts


def statement_and_header(row, default):
    """{"statement", maybe "header"} of a published row; lean_check.Refused if it has none.

    Text before the theorem goes behind the row's header, or the default; text with imports needs neither.
    """
    text = next((row[f] for f in FIELDS if row.get(f)), None)
    if not is_text(text):
        raise lean_check.Refused("malformed", f"no Lean text in {', '.join(FIELDS)}")
    text = text.removeprefix("\ufeff")
    imports = re.match(r"(?:\s|--[^\n]*|/-(?s:.*?)-/)*+(import|prelude)\b", text)
    header = "" if imports else as_header(row.get("header"))
    before, statement = read_statement(text, header)
    default = "" if imports or header or not before.strip() else as_header(default)
    header = as_header(default + before)
    if any(t.word in lean_check.GAPS for t in lean_check.lex(header)):
        raise lean_check.Refused("malformed", "sorry: what stands before the statement is left open")
    return {"statement": statement, **({"header": header} if header else {})}


def label(value, default):
    """A name or split, of any type, as one line of text."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
    return " ".join(text.encode(errors="replace").decode().split()) or default


def load_statements(path, header="", skip_bad=False):
    """Rows {"name", "statement" ending in ":= by", "split", maybe "header", "proof", "file"} of a file.

    The first of equal ones counts. What the checker cannot read is left out and counted; UserError if that is
    most of the file, or, with skip_bad, all.
    """
    rows, reasons, n = {}, defaultdict(list), 0
    for n, row in enumerate(tqdm(read_jsonl(path), desc=f"  {path}", leave=False, disable=None), 1):
        try:
            new = {**statement_and_header(row, header), **pick(row, "proof", "file")}
            own = lean_check.split_statement(new["statement"], 0)[2].replace("\0.", "")  # Refused: unreadable
            new |= {"name": label(row.get("name"), own), "split": label(row.get("split"), "all")}
            old = rows.setdefault((new["statement"], str(new.get("proof"))), new)
            if old.get("header") != new.get("header"):  # a run knows statements by their text alone
                raise lean_check.Refused("malformed", "a statement again, under another header")
        except lean_check.Refused as e:
            reasons[e.args[1]].append(n)
    lost, parts = sum(map(len, reasons.values())), sorted(reasons.items(), key=lambda part: -len(part[1]))
    why = "; ".join(f"{len(where)}: {reason} (first: entry {where[0]})" for reason, where in parts[:5])
    if not n:
        raise UserError(f"{path}: no entries")
    if lost == n or lost > n / 2 and not skip_bad:
        hint = "; --skip_bad goes on with the rest" * (lost < n)
        raise UserError(f"{path}: {lost} of {n} entries are unusable{hint}. {why}")
    if lost:
        print(f"{path}: {lost} of {n} entries are unusable and left out. {why}", file=sys.stderr)
    return list(rows.values())


def load_library(paths, header="", skip_bad=False):
    """Rows as of load_statements, with "proof": text behind "by", or "" where a theorem is only a lemma."""
    rows = [row for path in paths for row in load_statements(path, header, skip_bad)]
    for row in rows:
        proof = "" if row.get("proof") is None else row["proof"]
        if not is_text(proof) or re.match(r"\s*(:=|(by|theorem|lemma)\b)", proof):
            raise UserError(f'--library: "proof" of {row["name"]} of {", ".join(paths)} must be a text: what '
                            'follows ":= by"')
        row["proof"] = re.sub(r"^(?=\S)", " ", proof)  # it follows "by"
    if bare := sum(not row["proof"] for row in rows):
        print(f"{', '.join(paths)}: {bare} of {len(rows)} have no proof: lemmas only", file=sys.stderr)
    return rows


def load_sft(paths):
    """Rows {"prompt", "target", "weight"}; a weight that is missing or null is 1."""
    rows = []
    for path in paths:
        for n, row in enumerate(read_jsonl(path), 1):
            weight = 1.0 if row.get("weight") is None else row["weight"]
            if not (is_text(row.get("prompt")) and is_text(row.get("target"))):
                raise UserError(f'{path}, entry {n}: needs texts "prompt" and "target"')
            if type(weight) not in (int, float) or not 0 <= weight < 1e30:
                raise UserError(f"{path}, entry {n}: weight {weight!r}; expected a number from 0 up")
            rows.append({"prompt": row["prompt"], "target": row["target"], "weight": float(weight)})
    return rows


@dataclass
class Data:
    """What a run reads."""
    given: list  # statements of self-play
    scored: list  # statements of the evaluation: those of --eval, or held out
    library: list
    sft: list

    @property
    def theorems(self):
        """Those of the library that have a proof."""
        return [row for row in self.library if row["proof"]]

    @functools.cached_property
    def lemmas(self):
        """Name -> statement without proof: a proof invokes a lemma that it names."""
        return {row["name"]: row["statement"].rpartition(":=")[0].strip() for row in self.library}


def load_data(args):
    """All input. Held out: the splits beside "train"; if there are none, and no --eval, a tenth."""
    tokenizer, draw = load_tokenizer(args.model), rng(args, "subset")

    def load(paths):
        rows, fit, files = [], {}, ", ".join(paths)
        for path in paths:
            more = load_statements(path, args.header, args.skip_bad)
            if paths is args.eval and len(paths) > 1:  # benchmarks share names of splits
                more = [{**s, "split": f"{path} {s['split']}"} for s in more]
            rows += more
        for s in rows:
            if len(encode_prompt(tokenizer, s["statement"])) <= args.max_prompt:
                fit.setdefault(s["statement"], s)
        if not fit:
            raise UserError(f"every statement of {files} is longer than --max_prompt {args.max_prompt}")
        if again := len(rows) - len({s["statement"] for s in rows}):
            print(f"{files}: {again} of {len(rows)} statements are repeated; each counts once, with the "
                  "first one's split and header", file=sys.stderr)
        if long := sum(s["statement"] not in fit for s in rows):
            print(f"{files}: {long} of {len(rows)} statements are left out, longer than --max_prompt "
                  f"{args.max_prompt} tokens", file=sys.stderr)
        return list(fit.values())

    rows = load(args.statements) if args.statements else []
    given = [s for s in rows if s["split"] == "train"] or rows
    heldout = [s for s in rows if s["split"] != "train"] if len(given) < len(rows) else []
    if 0 < args.subset < len(given):
        given = draw.sample(given, args.subset)
    if not heldout and not args.eval:
        given, tenth = draw.sample(given, len(given)), len(given) // 10
        heldout, given = [{**s, "split": "heldout"} for s in given[:tenth]], given[tenth:]
    rows, form = load_sft(args.sft), lean_check.normal_form
    # A row proves the last theorem of its prompt, and is left out if that is held out.
    proved = [form("theorem " + re.split(r"\b(?:theorem|lemma)\s", row["prompt"])[-1]) for row in rows]
    unseen = {form(s["statement"]) for s in heldout}
    sft = [row for row, theorem in zip(rows, proved, strict=True) if theorem not in unseen]
    if lost := len(rows) - len(sft):
        print(f"{', '.join(args.sft)}: {lost} of {len(rows)} rows are left out, proofs of statements "
              "that are held out", file=sys.stderr)
    scored = load(args.eval) if args.eval else heldout
    if args.eval:
        learnt = {*proved, *(form(s["statement"]) for s in given)}
        if again := sum(form(s["statement"]) in learnt for s in scored):
            print(f"{', '.join(args.eval)}: {again} of {len(scored)} statements are given too, or proved in "
                  "--sft", file=sys.stderr)
    if not scored and args.samples:
        print(f"no statements are held out of {len(given)}: no score without --eval", file=sys.stderr)
    return Data(given, scored, load_library(args.library, args.header, args.skip_bad), sft)


# ------------------------------------------------------------------------------------------------------ start

def input_files(args):
    """{data file: its flag}."""
    return {path: flag for flag in ("eval", "sft", "library", "statements")
            for path in getattr(args, flag) or ()}


def missing(args):
    """What a run needs and this machine lacks, each with the remedy."""
    from importlib.util import find_spec
    adapter = os.path.exists(f"{args.model}/adapter_config.json")
    lacks = [f"--{flag}: no file {path} (README, One GPU node)" for path, flag in input_files(args).items()
             if not os.path.exists(path)]
    lacks += [message for lack, message in (
        (not os.path.isdir(args.model),
         f"--model: {args.model} is neither a folder nor downloaded; run: hf download {args.model}"),
        (adapter, f"--model: {args.model} is a LoRA adapter; merge it, or name merged/ beside it"),
        (os.path.isdir(args.model) and not adapter and not weights_size(args.model),
         f"--model: {args.model} has no weights (.safetensors, .bin)"),
        (args.engine == "vllm" and not find_spec("vllm"),
         "--engine vllm: not installed; run: pip install vllm (or use --engine hf)"),
        (args.engine == "vllm" and find_spec("vllm") and torch.version.cuda and not args.gpus,
         "--engine vllm: it was built for GPUs, and here is none; use --engine hf"),
        (args.gpus and args.procs > args.gpus, f"--procs {args.procs}: there are {args.gpus} GPUs"),
        ("import Mathlib" in args.header and not args.lean_project,
         "--lean_project: the header imports Mathlib; name a built Lake project (README, One GPU node)"),
    ) if lack]
    try:
        lean_check.find_lean(args.lean, args.lean_project)
    except lean_check.LeanError as e:
        lacks.append(f"--lean: {e}")
    return lacks


def plan(data, args):
    """(label, text) of what a run samples, trains on and checks at most, and how long that takes."""
    given, scored = (len(data.given), len(data.scored)) if data else (9_000, 1_000)
    tokens, cores = min(165, args.max_new), args.lean_workers or args.cpus
    each = 2 * args.K * given
    proofs = (2 * args.K0 * given + each * (args.iters - 1) if args.iters else 0) + args.samples * scored
    rows = args.epochs * 0.1 * each * args.iters  # then of stage 1, of stage 3, and the latter's proofs
    rows += 3 * (len(sft_examples(data, args)) if data else 235_000)
    hours = {"sampling": proofs * tokens / args.tokens_per_second / args.procs / 3600,
             "Lean": proofs * args.lean_seconds / cores / 3600,
             "training": rows * 2 * tokens / args.train_tokens_per_second / args.procs / 3600}
    wall = max("sampling", "Lean", key=hours.get)
    model = weights_size(args.model) if os.path.isdir(args.model) else 14e9
    return [("cluster", f"{args.nodes} nodes, {args.gpus} GPUs, {args.cpus} CPUs")] * bool(args.ray) + [
        ("statements", f"{given + scored:,}: {given:,} given, {scored:,} to evaluate" +
                       " (assumed)" * (not data)),
        ("an iteration", f"at most {min(args.per_seed, 3) * given:,} conjectures sampled, {given:,} tried; "
                         f"{each:,} proofs sampled and checked"),
        ("whole run", f"{args.iters} iterations and the evaluation: at most {proofs:,} proofs, "
                      f"{proofs * tokens / 1e9:,.2f}B tokens at {tokens} a proof"),
        ("sampling", f"{hours['sampling']:,.1f} h: {args.procs} processes, "
                     f"{args.tokens_per_second:,} tokens/s each"),
        ("Lean", f"{hours['Lean']:,.1f} h: {cores} cores, {args.lean_seconds:g} s a proof"),
        ("training", f"{hours['training']:,.1f} h: {rows:,.0f} rows (a tenth of the proofs: assumed)"),
        ("in all", f"{hours[wall] + hours['training']:,.1f} h: Lean works beside; the wall is {wall}"),
        ("disk", f"{(5 * model + proofs * (1000 + 3 * tokens)) / 1e9:,.1f} GB")]


@contextlib.contextmanager
def run_folder(data, args):
    """Makes the run folder, locked while in use; refuses one in use, or made with other flags or files."""
    config, lock = Path(args.out, "config.json"), Path(args.out, "lock")
    here = set(os.listdir(args.out)) if os.path.isdir(args.out) else set()
    if not config.exists() and here - {"lock", "config.json.tmp"}:  # which a stop may have left
        raise UserError(f"--out {args.out} exists and is no run folder; use another")
    try:
        os.makedirs(args.out, exist_ok=True)
        holder = lock.open("a")
    except OSError as e:
        raise UserError(f"--out {args.out}: cannot be written ({e.strerror})") from None
    with holder:
        try:
            fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"--out {args.out} is in use by process {lock.read_text()}; wait for it, or use "
                            "another") from None
        lock.write_text(str(os.getpid()))
        check_config(config, data, args)
        yield


def check_config(path, data, args):
    """Writes config.json; if it is there, refuses flags and files that would change the run's numbers."""
    may_change = {"out", "iters", "procs", "ray", "nodes", "gpus", "cpus", "dry_run", "eval", "samples",
                  "lean_workers", "no_retrain", "retrain_given", "lean", "lean_project", "tokens_per_second",
                  "train_tokens_per_second", "lean_seconds", "skip_bad", "tokens_per_step"}
    content = {"statements": data.given, "library": data.library, "sft": data.sft,
               "model": file_digests(args.model)}
    now = {f"--{k}": v for k, v in vars(args).items() if k not in {*may_change, *content}}
    now |= {f"content of --{k}": digest(v) for k, v in content.items()}
    if path.exists():
        old = next(read_jsonl(path), {}).get("compared", {})
        if differ := ", ".join(f"{k} {old.get(k)} -> {v}" for k, v in now.items() if old.get(k) != v):
            hint = "; without --eval a tenth of --statements is held out" * ("of --statements" in differ)
            raise UserError(f"--out {args.out} was made with other flags or files: {differ}; use another "
                            f"--out{hint}")
        return
    import peft
    import transformers
    versions = {m.__name__: m.__version__ for m in (torch, transformers, peft)}
    versions["lean"] = lean_check.find_lean(args.lean, args.lean_project)[1]
    write_jsonl(path, [{"command": sys.argv, "flags": vars(args), "versions": versions, "compared": now}])


def start(args):
    """Checks all input before anything is written, then runs; with --dry_run prints the plan instead."""
    args.model = model_folder(args.model) or args.model
    if args.eval and not args.iters:  # needs no other data
        args.statements, args.library, args.sft = [], [], []
    lacks = missing(args)
    if args.dry_run:
        here = all(map(os.path.exists, [*input_files(args), f"{args.model}/config.json"]))
        if here:
            check_model(args)
        lines = plan(load_data(args) if here else None, args)
        lines += [("" if i else "missing here", lack) for i, lack in enumerate(lacks or ["nothing"])]
        print("\n".join(f"{name:17}{text}" for name, text in lines))
        return
    if lacks:
        raise UserError("\n  ".join(["missing:", *lacks]) if len(lacks) > 1 else lacks[0])
    check_model(args)
    data = load_data(args)
    if args.iters and not (data.theorems or data.sft):
        raise UserError("--library, --sft: no theorem with a proof; stage 1 needs some")
    trial = {"statement": "theorem stp_trial : True := by", "proof": "\n  exact True.intro"}
    trial, = lean(lean_check.check, [trial], args)
    if trial["verdict"] != "proved":
        raise UserError(f"--lean, --header: Lean does not prove True under the header ({trial['message']})")
    with run_folder(data, args):
        run(data, args)


def main():
    go_on = "the same command goes on from the last finished phase"
    args = argparse.Namespace(out=".")  # until they are read
    sys.stdout.reconfigure(errors="backslashreplace")  # for ± where there is no UTF-8
    try:
        if sys.platform != "linux":
            raise UserError("needs Linux; elsewhere run it in Docker (README, Troubleshooting)")
        args = parse_args()
        seen = args.gpus or torch.cuda.device_count()
        why = f"{args.gpus} GPUs used" if seen else "no CUDA device"
        hint = "; 7B run: see README" if args.preset == "tiny" else ""
        print(f"{why}: {args.preset} preset, {args.procs} processes{hint}", flush=True)
        start(args)
    except UserError as e:
        print(f"stp.py: {e}", file=sys.stderr)
        return 2
    except (RuntimeError, OSError, torch.multiprocessing.ProcessExitedException,
            torch.multiprocessing.ProcessRaisedException) as e:  # a failed phase
        if os.path.exists(args.out) and shutil.disk_usage(args.out).free < 1e6:
            print(f"stp.py: --out {args.out}: the disk is full; make room, and {go_on}", file=sys.stderr)
            return 2
        print(f"stp.py: {e}\n{go_on}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nstopped; {go_on}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends its processes and Lean's files, too
    sys.exit(main())
