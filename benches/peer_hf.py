"""The peer of the Rust benchmarks: generation and a GRPO training step with `transformers` and PyTorch, at their best (sdpa attention,
fused AdamW, logits of the completion only).

    peer_hf.py MODEL_DIR --prompts FILE.json [--samples 4] [--new-tokens 48] [--threads 2] [--dtype float32] [--rounds 3]
               [--micro-batch 4] [--only generation|training]

FILE.json is {"prompts": [[token ids], ...]}. Prints one JSON object: seconds of every round, and the tokens a second of the median.

- generation: one batch of prompts x samples completions at temperature 1, each of exactly --new-tokens tokens, with the KV cache.
- training: one step on the sequences just sampled (random ones with --only training): forward, log-probs of the completions, clipped
  surrogate with group-normalised random rewards, backward, gradient clipping, AdamW, in micro-batches. The old log-probs are
  those of the step itself, detached, as in a strictly on-policy step; there is no reference policy.
- cpu_seconds: processor time of the counted rounds together. Much less than threads x their seconds means that the machine was
  busy with other work, and the figures are of no use; `load_average` is that of the last minute, before and after.
- peak memory: VmHWM of the process after each phase (it never falls, so generation comes first), or of the GPU's allocator.

One more round than --rounds is run; the first warms up and is not counted.

needs: torch, transformers, safetensors"""

import argparse
import json
import os
import pathlib
import statistics
import time

import torch
import transformers

CLIP_RANGE, MAX_GRAD_NORM = 0.2, 1.0


def status_mib(field):
    """A field of /proc/self/status in MiB: VmHWM is the peak resident memory, VmRSS what is resident now."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return round(int(line.split()[1]) / 1024)
    return None


def peak_mib(device):
    if device == "cpu":
        return status_mib("VmHWM")
    return round(torch.cuda.max_memory_allocated() / 2**20)


def left_padded(prompts, samples, pad):
    """Every prompt `samples` times: ids and mask, [prompts * samples, longest]."""
    longest = max(map(len, prompts))
    rows = [[pad] * (longest - len(p)) + p for p in prompts for _ in range(samples)]
    mask = [[0] * (longest - len(p)) + [1] * len(p) for p in prompts for _ in range(samples)]
    return torch.tensor(rows), torch.tensor(mask)


def timed(work, rounds, device):
    """Seconds of each round after the first, their processor time together, and what the last one returned."""
    seconds = []
    for number in range(rounds + 1):
        if number == 1:
            processor = time.process_time()
        start = time.perf_counter()
        result = work()
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds[1:], time.process_time() - processor, result


def generate(model, ids, mask, new_tokens, pad):
    model.eval()
    with torch.no_grad():
        return model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
            use_cache=True,
            pad_token_id=pad,
        )


def completion_log_probs(model, ids, mask, new_tokens):
    """Log-probs of the last `new_tokens` tokens of each row, [rows, new_tokens]: a gathered logit less its row's logsumexp."""
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    out = model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=new_tokens + 1, use_cache=False)
    logits = out.logits[:, :-1].float()
    chosen = logits.gather(-1, ids[:, -new_tokens:, None]).squeeze(-1)
    return chosen - logits.logsumexp(-1)


def training_step(model, optimizer, ids, mask, advantages, new_tokens, micro_batch):
    """One optimizer step over all rows; the loss is the mean over their completion tokens."""
    model.train()
    tokens = ids.shape[0] * new_tokens
    total = 0.0
    for start in range(0, ids.shape[0], micro_batch):
        part = slice(start, start + micro_batch)
        log_probs = completion_log_probs(model, ids[part], mask[part], new_tokens)
        ratio = (log_probs - log_probs.detach()).exp()
        advantage = advantages[part, None]
        clipped = ratio.clamp(1 - CLIP_RANGE, 1 + CLIP_RANGE)
        loss = -torch.minimum(ratio * advantage, clipped * advantage).sum() / tokens
        loss.backward()
        total += float(loss.detach())
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total, float(norm)


def group_advantages(prompts, samples):
    """Random rewards, less the group's mean, over its deviation."""
    rewards = torch.rand(prompts, samples)
    centred = rewards - rewards.mean(1, keepdim=True)
    return (centred / (rewards.std(1, keepdim=True) + 1e-6)).flatten()


def figures(seconds, processor, tokens):
    median = statistics.median(seconds)
    return {
        "seconds": [round(s, 3) for s in seconds],
        "median_seconds": round(median, 3),
        "cpu_seconds": round(processor, 3),
        "completion_tokens_per_second": round(tokens / median, 1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--prompts", required=True)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--only", choices=["generation", "training"])
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("--rounds: at least 1")
    torch.set_num_threads(args.threads)
    torch.set_num_interop_threads(1)
    torch.manual_seed(0)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    model = transformers.AutoModelForCausalLM.from_pretrained(
        args.model, dtype=getattr(torch, args.dtype), attn_implementation="sdpa"
    ).to(args.device)
    prompts = json.loads(pathlib.Path(args.prompts).read_text(encoding="utf-8"))["prompts"]
    pad = model.generation_config.pad_token_id or 0
    ids, mask = (x.to(args.device) for x in left_padded(prompts, args.samples, pad))
    tokens = ids.shape[0] * args.new_tokens
    report = {
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "device": args.device,
        "dtype": args.dtype,
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "sequences": ids.shape[0],
        "prompt_tokens": [len(p) for p in prompts],
        "new_tokens": args.new_tokens,
        "load_average": [round(os.getloadavg()[0], 2)],
        "resident_mib_after_loading": status_mib("VmRSS"),
    }

    if args.only == "training":
        sampled = torch.randint(0, model.config.vocab_size, (ids.shape[0], args.new_tokens), device=args.device)
        sequences = torch.cat([ids, sampled], 1)
    else:
        work = lambda: generate(model, ids, mask, args.new_tokens, pad)  # noqa: E731
        seconds, processor, sequences = timed(work, args.rounds, args.device)
        assert sequences.shape[1] == ids.shape[1] + args.new_tokens
        report["generation"] = {**figures(seconds, processor, tokens), "peak_mib": peak_mib(args.device)}

    if args.only != "generation":
        whole = torch.cat([mask, torch.ones(ids.shape[0], args.new_tokens, dtype=mask.dtype, device=args.device)], 1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
        advantages = group_advantages(len(prompts), args.samples).to(args.device)
        work = lambda: training_step(  # noqa: E731
            model, optimizer, sequences, whole, advantages, args.new_tokens, args.micro_batch
        )
        seconds, processor, (loss, norm) = timed(work, args.rounds, args.device)
        report["training"] = {
            **figures(seconds, processor, tokens),
            "all_tokens_per_second": round(int(whole.sum()) / statistics.median(seconds), 1),
            "micro_batch": args.micro_batch,
            "loss": loss,
            "gradient_norm": norm,
            "peak_mib": peak_mib(args.device),
        }
    report["load_average"].append(round(os.getloadavg()[0], 2))
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
