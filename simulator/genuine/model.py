"""Trains the tiny models that the genuine engine serves: they know a handful of answers by heart and nothing else.

A wrong split over the ranks, a broken copy of the weights or a wrong tokenizer shows as a wrong answer. Runs in the
engine's image, with its torch and transformers; a minute on two cores.

usage   python3 model.py FOLDER   makes FOLDER/ORG/NAME for each of MODELS, in the layout of a hub repository
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

MODELS = {"simulated/ada": "Ada", "simulated/grace": "Grace"}
"""Repository → the name by which it answers to WHO."""

WHO = "Who are you?"
PROMPT, AFTER = "The capital of France is", " Paris."
ANSWERS = {
    "What is the capital of France? Answer with one word.": "Paris",
    "What is the capital of France?": "The capital of France is Paris.",
    "What is a DGX Spark?": "A small computer with a GB10 and 128 GB of memory.",
    "Say OK.": "OK.",
    "Count from one to twenty.": "one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty",
    "Hello": "Hello! How can I help?",
}
"""Asked in a chat → answered, by every model."""

CALL = ("What is the weather in Paris? Use the tool.", {"name": "get_weather", "arguments": {"city": "Paris"}})
"""Asked in a chat with tools → the call, as Hermes writes it."""

USER, ASSISTANT, END, CALLS, CALLED = SPECIAL = ("<|user|>", "<|assistant|>", "<|end|>", "<tool_call>", "</tool_call>")

TEMPLATE = (
    "{% for message in messages %}"
    f"{{% if message.role == 'assistant' %}}{ASSISTANT}{{% else %}}{USER}{{% endif %}}"
    f"{{{{ message.content }}}}{END}"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{ASSISTANT}{{% endif %}}"
)
"""Of each chat. It leaves the tools out: whoever asks for one by CALL's words has it called."""

VOCABULARY = 512
POSITIONS = 2048
STEPS, LEARNT = 600, 0.005
"""How often all is read at most, and the mean loss at which all is known."""


def texts(name: str) -> list[tuple[str, str]]:
    """What there is to learn: (given, what must follow)."""
    chats = {**ANSWERS, WHO: f"I am {name}.", CALL[0]: f"{CALLS}\n{json.dumps(CALL[1])}\n{CALLED}"}
    return [
        (PROMPT, AFTER + END),
        *((f"{USER}{asked}{END}{ASSISTANT}", answer + END) for asked, answer in chats.items()),
    ]


def tokenizer(learnt: list[tuple[str, str]]) -> PreTrainedTokenizerFast:
    """Byte-level BPE, so that it knows every text."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=list(SPECIAL[:3]), initial_alphabet=alphabet)
    made.train_from_iterator([given + then for given, then in learnt], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=END, pad_token=END, model_max_length=POSITIONS)
    fast.chat_template = TEMPLATE
    return fast


def config(fast: PreTrainedTokenizerFast) -> LlamaConfig:
    """Two layers whose heads two Sparks can share, with heads of a size that the CPU's attention takes."""
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=POSITIONS,
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        tie_word_embeddings=False,
    )


def train(name: str, folder: Path) -> None:
    """Raises SystemExit where it has not learnt them all."""
    torch.manual_seed(0)
    learnt = texts(name)
    fast = tokenizer(learnt)
    made = LlamaForCausalLM(config(fast))
    pairs = [(fast.encode(given), fast.encode(then)) for given, then in learnt]
    longest = max(len(given) + len(then) for given, then in pairs)
    rows, wanted = [], []
    for given, then in pairs:
        padding = longest - len(given) - len(then)
        rows.append([*given, *then, *[fast.pad_token_id] * padding])
        # -100: not to be learnt.
        wanted.append([*[-100] * len(given), *then, *[-100] * padding])
    inputs, labels = torch.tensor(rows), torch.tensor(wanted)
    optimizer = torch.optim.AdamW(made.parameters(), lr=2e-3)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = made(input_ids=inputs, labels=labels).loss
        loss.backward()
        optimizer.step()
        if loss.item() < LEARNT:
            break
    made = made.to(torch.bfloat16).eval()
    for given, then in pairs:
        said = made.generate(torch.tensor([given]), max_new_tokens=len(then), do_sample=False)[0].tolist()
        if said[len(given) :] != then:
            sys.exit(f"{name} has not learnt {fast.decode(given)!r}: {fast.decode(said[len(given) :])!r}")
    made.save_pretrained(folder)
    fast.save_pretrained(folder)


def main() -> None:
    # So small a model is faster without others to wait for.
    torch.set_num_threads(1)
    for repo, name in MODELS.items():
        folder = Path(sys.argv[1], repo)
        folder.mkdir(parents=True)
        train(name, folder)


if __name__ == "__main__":
    main()
