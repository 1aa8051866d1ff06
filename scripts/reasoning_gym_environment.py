#!/usr/bin/env python3
"""Every task of reasoning_gym as an environment of one turn, over JSON lines.

    pip install reasoning_gym

The protocol is documented in rlvr's module `environment::process`. A problem's metadata says what is asked:

    {"task": "chain_sum", "index": 3, "seed": 7, "config": {"min_terms": 2}}    an item of a data set
    {"task": "chain_sum"}                   an item of its own for every seed of an episode
    {"task": "chain_sum", "entry": {"question": .., "answer": .., "metadata": {..}}}    a stored item

`seed` is 0 and `config` is empty if they are absent; with `entry`, `config` must be the one that made the item. The question is followed by
the instruction; a problem whose `prompt` is not empty is asked as it is written there.

The answer is what stands in the last <answer>..</answer> of the reply; without one there is no answer. The task's own `score_answer` is the
reward. Some tasks evaluate the answer as Python, so confine this script, and do not pay much for those tasks: code that runs
while it is scored can choose its own score. Each answer is scored in a child process, so that it cannot change the score of another,
and cannot take longer than --score-seconds: then it is worth 0.
"""

import argparse
import json
import os
import re
import select
import signal
import sys
from collections import OrderedDict

ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
INSTRUCTION = "Give the final answer between <answer> and </answer>."


class Tasks:
    """Data sets by what made them, the latest of them kept."""

    def __init__(self, kept=64):
        self.kept, self.sets = kept, OrderedDict()

    def get(self, task, seed, size, config):
        import reasoning_gym

        key = (task, seed, size, json.dumps(config, sort_keys=True))
        if key not in self.sets:
            self.sets[key] = reasoning_gym.create_dataset(task, seed=seed, size=size, **config)
            if len(self.sets) > self.kept:
                self.sets.popitem(last=False)
        self.sets.move_to_end(key)
        return self.sets[key]


def item(tasks, metadata, episode_seed):
    """The data set that scores the answer, and the item."""
    task, config = metadata.get("task"), metadata.get("config") or {}
    if not isinstance(task, str):
        raise ValueError(f"the problem's metadata has the task {task!r}; expected the name of one")
    entry = metadata.get("entry")
    if entry is not None:
        return tasks.get(task, 0, 1, config), entry
    index = metadata.get("index")
    if index is None:
        # A few tasks prepare every item of a set, so sets are small.
        made = tasks.get(task, episode_seed % 2**32, 1, config)
        return made, made[0]
    made = tasks.get(task, metadata.get("seed", 0), max(500, index + 1), config)
    return made, made[index]


def score(made, entry, answer, seconds, private):
    """The reward of an answer, found in a child process without the descriptors in `private`."""
    read, write = os.pipe()
    try:
        child = os.fork()
    except OSError as error:
        # Answers have left too many processes behind: a new start ends them.
        raise SystemExit(f"an answer cannot be scored: {error}")
    if child == 0:
        try:
            os.setsid()
            os.close(read)
            for descriptor in private:
                os.close(descriptor)
            try:
                result = {"reward": float(made.score_answer(answer, entry))}
            except (ImportError, OSError) as error:
                result = {"error": f"{type(error).__name__}: {error}"}
            except Exception as error:
                print(f"not scored: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                result = {"reward": 0.0}
            os.write(write, json.dumps(result).encode())
        finally:
            os._exit(0)
    os.close(write)
    try:
        ready, _, _ = select.select([read], [], [], seconds)
        text = os.read(read, 4096) if ready else b""
    finally:
        os.close(read)
        for kill in os.killpg, os.kill:
            try:
                kill(child, signal.SIGKILL)
            except ProcessLookupError:  # It has no group yet, or none any more.
                pass
        os.waitpid(child, 0)
    try:
        result = json.loads(text)
    except ValueError:
        return {"reward": 0.0}  # Too slow, too much memory, or the answer ended the process.
    reward = result.get("reward") if isinstance(result, dict) else None
    if isinstance(reward, float) and 0.0 <= reward <= 1.0:
        return {"reward": reward}
    return {"error": f"the score is {text[:200]!r}; expected 0 to 1"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instruction", default=INSTRUCTION, help="what follows the question")
    parser.add_argument("--score-seconds", type=float, default=10.0, help="the most time for scoring an answer")
    options = parser.parse_args()

    # Whatever prints, prints on the standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import reasoning_gym  # noqa: F401

    tasks, episodes = Tasks(), {}

    def answer(op, episode, problem=None, seed=0, text="", finish="stop", **_):
        if op == "open":
            made, entry = item(tasks, problem["metadata"], seed)
            episodes[episode] = made, entry
            if problem["prompt"]:
                return {}
            return {"messages": f"{entry['question']}\n\n{options.instruction}".strip()}
        if op == "step":
            found = ANSWER.findall(text)
            given = found[-1].strip() if found else None
            made, entry = episodes[episode]
            result = score(made, entry, given, options.score_seconds, (0, answers.fileno()))
            # A reply that was cut off finishes nothing.
            if finish == "stop" and "reward" in result:
                result["end"] = "done"
            return result
        if op == "close":
            episodes.pop(episode, None)
            return {}
        raise ValueError(f"op is {op!r}; expected open, step or close")

    for line in sys.stdin:
        request = json.loads(line)
        number = request.pop("id", None)
        try:
            result = answer(**request)
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {error}"}
        if number is not None:
            print(json.dumps({"id": number, **result}), file=answers, flush=True)


if __name__ == "__main__":
    main()
