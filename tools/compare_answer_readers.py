"""How our reader and four suites' own extractions read labelled answers; docs/signals.md has the table.

python tools/compare_answer_readers.py FOLDER BATTERY.jsonl …   # FOLDER holds a clone by each name in PEERS
"""

import json
import runpy
import sys
import types
from pathlib import Path

from fgrpo_jax.reading.answers import choose

PEERS = {  # clone: (file, the call that the suite itself makes)
    "VLMEvalKit": ("vlmeval/utils/matching_util.py", lambda it, text, o: it["can_infer"](text, dict(o))),
    "lmms-eval": (
        "lmms_eval/tasks/_task_utils/mcq_extract.py",
        lambda it, text, o: it["extract_mcq_answer"](text, [*o]),
    ),
    "EASI": ("vlmeval/dataset/utils/spatial_bench/matching_func.py", lambda it, text, _: it["can_match_option"](text)),
    "MindCube": ("src/evaluation/core/extractors.py", lambda it, text, _: it["extract_answer"](text)),
}
if __name__ == "__main__":
    folder, *batteries = map(Path, sys.argv[1:])
    sys.modules["vlmeval.smp.log"] = log = types.ModuleType("log")  # all that a file needs of the rest of its suite
    log.get_logger = str
    cases = [case for path in batteries for case in map(json.loads, path.open(encoding="utf-8")) if "options" in case]
    readers = {name: (runpy.run_path(str(folder / name / file)), read) for name, (file, read) in PEERS.items()}
    print(f"| reader | right of {len(cases)} | another option | nothing for an option | an option for nothing |")
    for name, (it, read) in {"ours": ({}, None), **readers}.items():
        wrong = [0, 0, 0]
        for case in cases:
            options = dict(zip("ABCDEFGHIJ", case["options"], strict=False))
            said = read(it, case["text"], options) if read else choose(case["text"], case["options"])
            found = [*options].index(said) if said in options else said if read is None else None
            if found != case["reads"]:
                wrong[1 if found is None else 2 if case["reads"] is None else 0] += 1
        print(f"| {name} | {len(cases) - sum(wrong)} | {' | '.join(map(str, wrong))} |")
