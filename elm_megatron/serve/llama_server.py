"""llama.cpp's own server with one model, on loopback.

    ELM_SERVE_KEY=… python -m elm_megatron.serve.llama_server MODEL.gguf PORT NAME CONTEXT AT_ONCE

`launch/serve.py` starts it. The key comes through the environment, which no other user can read.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Serve until SIGTERM, or until the process that started this one is gone."""
    path, port, name, context, at_once = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    import xllamacpp as llama

    params = llama.CommonParams()
    params.model.path = path
    params.model_alias = {name}
    params.hostnames, params.port = ["127.0.0.1"], int(port)
    params.api_keys = [os.environ.pop("ELM_SERVE_KEY")]
    params.n_parallel, params.n_ctx = int(at_once), int(context) * int(at_once)
    params.kv_unified, params.cache_idle_slots = False, False
    params.ui, params.warmup, params.fit_params = False, False, False
    params.verbosity = 1  # errors: nothing of what is asked goes into a log
    cores = int(os.environ.get("OMP_NUM_THREADS") or 0) or len(os.sched_getaffinity(0))
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = cores
    params.n_threads_http = int(at_once) + 4
    server = llama.Server(params)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    print(f"{name}: {server.listening_address}", flush=True)
    while not ended.wait(1):
        pass
    os._exit(0)  # the server's own end waits for requests that nobody reads any more


if __name__ == "__main__":
    main()
