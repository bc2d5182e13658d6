"""Error texts of the engines and NCCL, as they print them, and what a user is told to do."""

import pytest

from components.programs.hints import HINTS, hints

TOO_LONG = (
    "ValueError: To serve at least one request with the model's max seq len (131072), (12.00 GiB KV cache is needed, "
    "which is larger than the available KV cache memory (3.93 GiB). {estimate}Try increasing `gpu_memory_utilization` "
    "(which also controls CPU memory on the CPU backend) or decreasing `max_model_len` when initializing the engine."
)
QP = "NCCL WARN Call to ibv_modify_qp failed with {}, on dev rocep1s0f1:1, curr state INIT, next state RTR"


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        (
            TOO_LONG.format(estimate="Based on the available memory, the estimated maximum model length is 42896. "),
            "pulumi config set --path serving.maxModelLen 42896",
        ),
        (TOO_LONG.format(estimate=""), "3.93 GiB beside the weights hold no single request"),
        (
            "ValueError: Free memory on device cuda:0 (101.85/121.69 GiB) on startup is less than desired GPU memory "
            "utilization (0.87, 105.87 GiB).",
            "101.85 of 121.69 GiB are free",
        ),
        (
            "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.",
            "leave no room for the cache",
        ),
        (
            "ray.exceptions.OutOfMemoryError: 1 worker(s) were killed due to the node running low on memory.",
            "Ray's memory monitor",
        ),
        ("    assert self.total_num_kv_heads % tp_size == 0", "KV heads can't be divided"),
        ("AssertionError: 8 is not divisible by 3", "KV heads can't be divided"),
        (
            "ValueError: Total number of attention heads (28) must be divisible by tensor parallel size (3).",
            "3 Sparks can't divide 28 heads",
        ),
        (
            "ValueError: Weight input_size_per_partition = 1728 is not divisible by weight quantization block_k = 128.",
            "no multiple of the 128 that the quantisation works in",
        ),
        (
            "ValueError: Weight output_size_per_partition = 96 is not divisible by  min_thread_n = 64. Consider",
            "no multiple of the 64",
        ),
        (
            "ValueError: Model architectures ['FooForCausalLM'] are not supported for now. Supported architectures: …",
            "does not know ['FooForCausalLM']",
        ),
        (
            "The checkpoint you are trying to load has model type `foo` but Transformers does not recognize this "
            "architecture.",
            "this image does not know foo",
        ),
        (
            "  Value error, User-specified max_model_len (9) is greater than the derived max_model_len "
            "(max_position_embeddings=8 or model_max_length=None in model's config.json).",
            "serving.maxModelLen 8",
        ),
        (
            "ValueError: Following weights were not initialized from checkpoint: {'model.layers.2.norm.weight'}",
            "not those of the model's config.json",
        ),
        (QP.format("110 Connection timed out"), "the peer's address does not answer on RDMA"),
        (QP.format("error Connection timed out errno 110"), "the peer's address does not answer on RDMA"),
        (QP.format("22 Invalid argument"), "GID index is not that of the address"),
        (QP.format("101 Network is unreachable"), "no route to the peer's subnet"),
        (
            "NCCL WARN NET/IB: Got completion from peer 10.0.0.2<54862> with status=IBV_WC_RETRY_EXC_ERR(12) "
            "opcode=IBV_WC_SEND(0) reqSize=0 vendor_err=129",
            "without an answer",
        ),
        (
            "NCCL WARN NET/IB : Got completion from peer 192.168.17.147<38560> with error 12, opcode 0, len 0",
            "without an answer",
        ),
        ("NCCL WARN Call to ibv_reg_mr_iova2 failed with error Cannot allocate memory", "could not be locked"),
        ("RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)", "NCCL_DEBUG INFO"),
    ],
)
def test_what_an_engine_says_leads_to_one_remedy(line, remedy):
    (found,) = hints("vllm", [f"INFO fine\n{line}\nINFO more"])
    assert remedy in found


def test_what_says_too_little_is_told_only_where_nothing_else_is():
    said = f"{QP.format('22 Invalid argument')}\nRuntimeError: NCCL error: unhandled system error"
    (found,) = hints("vllm", [said])
    assert "GID index" in found


def test_flushed_completions_are_no_cause():
    assert hints("vllm", ["NCCL WARN NET/IB: Got completion with status=IBV_WC_WR_FLUSH_ERR(5) opcode=0"]) == []


def test_a_hang_is_recognised_by_the_last_line_alone():
    last = "[2026] CustomAllreduce is disabled because this process group spans across nodes."
    assert "SGLANG_HOST_IP" in hints("sglang", [f"first\n{last}"])[0]
    assert hints("sglang", [f"{last}\nInit parallel ends."]) == []
    assert hints("vllm", [last]) == []


def test_every_remedy_can_be_filled_in():
    for hint in HINTS:
        groups = dict.fromkeys(("length", "there", "free", "total", "heads", "size", "name", "longest", "peer"), "x")
        assert "{" not in hint.remedy.format(**groups)
