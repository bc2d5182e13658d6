"""`trtllm-llmapi-launch COMMAND…`: the same line on every rank of our own mpirun; HTTP on rank 0 alone."""

import os
import signal
import sys
import threading

from mpi4py import MPI

from trtllm import serve
from trtllm.arguments import parser


def main() -> None:
    # The real one is a shell script that takes words with blanks apart.
    command = " ".join(sys.argv[1:]).split()
    if command[:1] != ["trtllm-serve"]:
        sys.exit("this stand-in launches trtllm-serve alone")
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    arguments = parser().parse_args(serve.words(command[1:]))
    world, rank, size = MPI.COMM_WORLD, MPI.COMM_WORLD.Get_rank(), MPI.COMM_WORLD.Get_size()
    serve.log(f"rank {rank} of {size} on {MPI.Get_processor_name()}")
    serve.load(arguments, rank, size)
    world.barrier()
    if rank == 0:
        turn = threading.Lock()

        def step() -> None:
            with turn:
                world.bcast("step")
                world.gather("done")

        serve.serve(arguments, size, step)
    while True:
        world.bcast(None)
        world.gather("done")


if __name__ == "__main__":
    main()
