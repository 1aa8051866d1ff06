#!/usr/bin/env python3
"""A reasoning_gym environment of one turn, over JSON lines.

    pip install reasoning_gym

The protocol is documented in rlvr's module `environment::process`. A problem's metadata selects the
item:

    {"task": "chain_sum", "index": 3, "seed": 7, "config": {"min_terms": 2}}
        an item of a data set
    {"task": "chain_sum"}
        a different item for every episode seed
    {"task": "chain_sum", "entry": {"question": .., "answer": .., "metadata": {..}}}
        a stored item

`seed` defaults to 0 and `config` to an empty object. With `entry`, `config` must be the one that
created the item. The message is the question followed by the instruction, or the problem's `prompt`
unless it is empty.

The answer is the last <answer>..</answer> of the reply; without one there is no answer. The reward
is the task's own `score_answer`. Some tasks evaluate the answer as Python, so run this script in a
sandbox and give those tasks a low weight: code that runs while it is scored can choose its own
score. Each answer is scored in a child process, so that it cannot change the score of another. An
answer that takes longer than --score-seconds scores 0.
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
    """A cache of data sets by their arguments, limited to the most recently used."""

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
    """Returns the data set that scores the answer, and the item."""
    task, config = metadata.get("task"), metadata.get("config") or {}
    if not isinstance(task, str):
        raise ValueError(f"the problem's metadata has task = {task!r}; expected the name of a task")
    entry = metadata.get("entry")
    if entry is not None:
        return tasks.get(task, 0, 1, config), entry
    index = metadata.get("index")
    if index is None:
        # Some tasks prepare every item of a data set, so keep it small.
        made = tasks.get(task, episode_seed % 2**32, 1, config)
        return made, made[0]
    made = tasks.get(task, metadata.get("seed", 0), max(500, index + 1), config)
    return made, made[index]


def score(made, entry, answer, seconds, private):
    """Scores an answer in a child process, which closes the descriptors in `private`."""
    read, write = os.pipe()
    try:
        child = os.fork()
    except OSError as error:
        # Answers left too many processes running: a restart ends them.
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
            except ProcessLookupError:  # No group yet, or no longer.
                pass
        os.waitpid(child, 0)
    try:
        result = json.loads(text)
    except ValueError:
        return {"reward": 0.0}  # Too slow, out of memory, or the answer ended the process.
    reward = result.get("reward") if isinstance(result, dict) else None
    if isinstance(reward, float) and 0.0 <= reward <= 1.0:
        return {"reward": reward}
    return {"error": f"the score is {text[:200]!r}; expected 0 to 1"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instruction", default=INSTRUCTION, help="the text after the question")
    parser.add_argument("--score-seconds", type=float, default=10.0, help="the time limit for scoring an answer")
    options = parser.parse_args()

    # Redirect everything that prints to the standard error.
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
            # A reply that was cut off does not finish the episode.
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
