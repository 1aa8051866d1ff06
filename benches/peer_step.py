"""The peer of `benches/step.rs`: seconds of a GRPO step of TRL on a character model from random weights, on the CPU.

    peer_step.py [--steps 6] [--dim 128] [--layers 4] [--prompts 8] [--group 8] [--prompt-length 16] [--completion 48] [--threads 2]

Prints one JSON object: median seconds of a step, and of generating and scoring within it. The first step warms up and is not
counted; no KL term, one update a step, temperature 1.

needs: torch, transformers, trl, datasets"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import transformers
import trl
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


def tokenizer(size):
    characters = "0123456789+-*/()= abcdefghijklmnopqrstuvwxyz<>?.,:#|\n"
    vocabulary = {"<pad>": 0, "<eos>": 1, **{c: i + 2 for i, c in enumerate(characters)}}
    while len(vocabulary) < size:
        vocabulary[f"<x{len(vocabulary)}>"] = len(vocabulary)
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    words.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", padding_side="left")
    return fast, len(vocabulary)


class StepTimes(TrainerCallback):
    def __init__(self):
        self.seconds = []

    def on_step_begin(self, *_, **__):
        self.started = time.perf_counter()

    def on_step_end(self, *_, **__):
        self.seconds.append(time.perf_counter() - self.started)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = dict(steps=6, dim=128, layers=4, heads=4, prompts=8, group=8, prompt_length=16, completion=48, vocabulary=64, threads=2)
    for name, value in defaults.items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=value)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    random.seed(0)

    fast, vocabulary = tokenizer(args.vocabulary)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=vocabulary,
            hidden_size=args.dim,
            intermediate_size=4 * args.dim,
            num_hidden_layers=args.layers,
            num_attention_heads=args.heads,
            num_key_value_heads=args.heads,
            max_position_embeddings=512,
            tie_word_embeddings=False,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
    )
    prompts = ["".join(random.choice("0123456789+-") for _ in range(args.prompt_length)) for _ in range(args.prompts * (args.steps + 2))]

    def ones(completions, **_):
        return [c.count("1") - 0.1 * c.count("2") for c in completions]

    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=True,
        per_device_train_batch_size=args.prompts * args.group,
        num_generations=args.group,
        max_completion_length=args.completion,
        max_steps=args.steps,
        learning_rate=1e-4,
        beta=0.0,
        loss_type="grpo",
        num_iterations=1,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        temperature=1.0,
        top_k=0,
        gradient_checkpointing=False,
        bf16=False,
    )
    times = StepTimes()
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=ones,
        args=config,
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=fast,
        callbacks=[times],
    )
    generating = []
    generate_and_score = trainer._generate_and_score_completions

    def timed(inputs):
        started = time.perf_counter()
        result = generate_and_score(inputs)
        generating.append(time.perf_counter() - started)
        return result

    trainer._generate_and_score_completions = timed
    out, sys.stdout = sys.stdout, sys.stderr
    trainer.train()
    sys.stdout = out
    report = {
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "trl": trl.__version__},
        "parameters": sum(p.numel() for p in model.parameters()),
        "median_seconds": {"step": statistics.median(times.seconds[1:]), "generate_and_score": statistics.median(generating[1:])},
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
