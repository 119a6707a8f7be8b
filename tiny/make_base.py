"""Makes tiny/base, the model that the tiny preset starts from: a Llama of 0.24M parameters.

    python tiny/make_base.py                     # the committed folder: some minutes on two cores
    python tiny/make_base.py --width 128 --layers 4 --out /tmp/base     # then: stp.py --preset tiny --model /tmp/base

It is pretrained on theorems as those of tiny/library.jsonl, but others, three times as many, by stp.py's own full
finetune: large steps first, which random weights need, then one epoch of small ones. Tokens are byte-level BPE inside
WORDS, at most 512 of them.
"""
import argparse
import os
import random
import shutil
import sys
import tempfile

import tokenizers
import torch
from tokenizers import pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import make_data  # noqa: E402

import stp  # noqa: E402

# What a token never crosses: a list of variables, one variable, or the text between two variables on one line. So an
# atom is one token, and so is "\n  apply Iff.mp ‹".
WORDS = r"(?:\b\w ){3,}|\b[^\W\d_]\b|\n?(?:(?!\b[^\W\d_]\b|\n).)+|\n"


def make_tokenizer(texts):
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(tokenizers.Regex(WORDS), "isolated"),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    bpe.decoder = tokenizers.decoders.ByteLevel()
    bpe.train_from_iterator(texts, tokenizers.trainers.BpeTrainer(
        vocab_size=512, special_tokens=["<pad>", "<eos>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", eos_token="<eos>")


def make_model(width, layers, tokenizer, positions):
    """A random Llama. Weights are wider than usual (0.08): with 0.02 a narrow model trains mostly on a plateau."""
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
        num_attention_heads=width // 16, num_key_value_heads=width // 16, head_dim=32, max_position_embeddings=positions,
        tie_word_embeddings=True, initializer_range=0.08, rope_parameters={"rope_type": "default", "rope_theta": 100.0},
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None))


def other_library(files):
    """Theorems with proofs that are neither in tiny/library.jsonl nor in tiny/statements.jsonl."""
    args, seen = make_data.parse_args([]), set()
    rng = random.Random(args.seed)
    list(make_data.make_library(rng, args, seen))
    list(make_data.make_given(rng, args, seen))
    return list(make_data.make_library(rng, make_data.parse_args(["--files", str(files)]), seen))


def make_base(out, library, width=64, layers=3, epochs=4, lr=1.5e-3, seed=0):
    """Writes the folder of a model that loads with transformers, trained on a library."""
    work = tempfile.mkdtemp()
    args = stp.parse_args(["--preset", "tiny", "--lora_r", "0", "--model", f"{work}/random", "--seed", str(seed)])
    examples = stp.sft_examples(stp.Data([], [], library, []), args)
    torch.manual_seed(seed)
    tokenizer = make_tokenizer(e["prompt"] + e["target"] for e in examples)
    make_model(width, layers, tokenizer, args.max_prompt + args.max_new).save_pretrained(args.model)
    tokenizer.save_pretrained(args.model)
    policy, told = stp.train(f"{work}/large", None, examples, args, lr, epochs)
    policy, told = stp.train(f"{work}/small", policy, examples, args, lr / 3)
    shutil.rmtree(out, ignore_errors=True)
    shutil.move(f"{policy}/merged", out)
    shutil.rmtree(work)
    return told


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--width", type=int, default=64, help="hidden size, a multiple of 16")
    p.add_argument("--layers", type=int, default=3, help="layers")
    p.add_argument("--files", type=int, default=2250, help="files of the library that it is trained on")
    p.add_argument("--epochs", type=int, default=4, help="epochs of large steps, before one of small ones")
    p.add_argument("--out", default=os.path.join(HERE, "base"), help="folder")
    args = p.parse_args()
    told = make_base(args.out, other_library(args.files), args.width, args.layers, args.epochs)
    size = sum(os.path.getsize(os.path.join(args.out, f)) for f in os.listdir(args.out))
    print(f"{args.out}: {size:,} bytes, loss {told['loss']:.3f}")


if __name__ == "__main__":
    main()
