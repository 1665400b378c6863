"""Every built-in analysis, and hostile recordings, with a small real model: llama.cpp's own server and SmolLM2-135M, too small
for its answers to be judged. The tests check what the daemon guarantees for any answer of a model: each run ends with a value
that is valid under its schema, or with a failure that says why; and no text of one call is in another call.

    tests/clients/run -k "every_analysis or hostile"

prints a table of all of them. With CI=true only one analysis, one recording and one hostile recording run, because the model
reads only a hundred tokens a second.
"""

import json
import os
import subprocess
from pathlib import Path

import jsonschema
import pytest
from conftest import BINARY, NO_RECORDINGS, Process, recordings
from small_model import CLOCKS, MISSING, model  # noqa: F401 (a fixture)

CI = os.environ.get("CI") == "true"
pytestmark = pytest.mark.skipif(bool(MISSING) and not CI, reason=f"no small model here: {', '.join(MISSING)} of requirements-llm.txt")

ROOT = Path(__file__).parent.parent.parent
FOLDERS = ROOT / "src" / "analysis"
ANALYSES = ["next_best_action"] if CI else sorted(path.parent.name for path in FOLDERS.glob("*/schema.json"))
PER_TURN = {"sentiment_turn", "translation"}
NEEDS = {
    "translation": 'to = "es"\n',
    "scorecard": 'questions = [{ id = "greeting", text = "Did somebody greet?" }]\n',
}
# Failures that are allowed for such a small model: its answer is too long for the limit, or it gives none, or its server
# refuses a prompt that is too long for the model's context.
FAILURES = {"schema_mismatch", "timeout", "upstream_error", "overloaded"}
# The model's context has 4,096 tokens, and the model reads a hundred tokens a second.
LIMITS = "max_context_tokens = 800\nmax_output_tokens = 250\n"


def daemon_with(folder, model, analyses):
    """A daemon whose calls run these analyses once, at their end, each in a request of its own."""
    text = (
        f'[storage]\ndir = "{folder}/data"\n[ingest]\nfinal_timeout_ms = 600000\nlinger_ms = 50\nanalyses = {json.dumps(analyses)}\n'
        f'[endpoints.small]\nprovider = "llamacpp"\nbase_url = "{model}/v1"\nmax_concurrency = 1\n'
        f'[models.small]\ncandidates = ["small/smollm2"]\nretries = 0\n{CLOCKS}'
        f'[routes.live]\nvariants = [{{ name = "a", model = "small" }}]\n')
    for name in analyses:
        computed = "computed" in (FOLDERS / name / "analysis.toml").read_text()
        scope = "" if name in PER_TURN or is_end(name) else "every_n_turns = 0\non_end = true\n"
        limits = "" if computed else 'route = "live"\nbundle = ""\n' + (LIMITS if name not in PER_TURN else "max_output_tokens = 120\n")
        text += f"[analyses.{name}]\n{limits}{scope}{NEEDS.get(name, '')}"
    (folder / "sidetone.toml").write_text(text)
    return Process("serve", "--config", folder / "sidetone.toml", "--listen", "127.0.0.1:0")


def is_end(name):
    return 'scope = "end"' in (FOLDERS / name / "analysis.toml").read_text()


def replay(daemon, files):
    done = subprocess.run(
        [BINARY, "replay", *files, "--to", daemon.url, "--speed", "max", "--concurrency", "1", "--json", "--patience", "1200"],
        capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr
    return [daemon.completed(file.stem, within=60) for file in files]


def events(daemon, call):
    found, after = [], 0
    while after is not None:
        page = daemon.get(f"/v1/calls/{call}/events?after={after}")
        found, after = found + page["events"], page["next_after"]
    return found


def outcomes(daemon, call):
    """For each analysis, its insights and the codes of its failures."""
    made = {}
    for event in events(daemon, call):
        if event["type"] == "insight.updated":
            made.setdefault(event["insight"]["analysis"], ([], []))[0].append(event["insight"])
        if event["type"] == "insight.failed":
            made.setdefault(event["analysis"], ([], []))[1].append(event["code"])
    return made


def keeps_its_schema(insight):
    """Validates the value, with the evidence put back into it, against the schema of the analysis."""
    value = dict(insight["value"])
    schema = json.loads((FOLDERS / insight["analysis"] / "schema.json").read_text())
    if "evidence" in schema["properties"]:
        value.setdefault("evidence", [{"turn": quote["turn"], "quote": quote["quote"]} for quote in insight["evidence"]])
    jsonschema.validate(unmarked(value), schema)


def unmarked(value):
    """The value without the member `unverified`, which the daemon adds to quotes that are not in their turn."""
    if isinstance(value, list):
        return [unmarked(item) for item in value]
    if isinstance(value, dict):
        return {key: unmarked(inner) for key, inner in value.items() if key != "unverified"}
    return value


def row(recording, name, made, turns):
    insights, failed = made
    usage = [insight["provenance"]["usage"] for insight in insights]
    total = {key: sum(one[key] or 0 for one in usage) for key in ("input", "cached", "output")}
    took = sum(insight["latency_ms"]["model"] for insight in insights) / 1000
    state = ", ".join([*(["schema-true"] if insights else []), *sorted(set(failed))])
    per_turn = f"{len(insights)} of {turns} turns" if name in PER_TURN else ""
    value = json.dumps(insights[-1]["value"], ensure_ascii=False)[:60] if insights else ""
    return f"{recording:<22} {name:<17} {state:<28} {total['input']:>6} {total['cached']:>6} {total['output']:>6} {took:>6.1f}  {per_turn:<14} {value}"


@pytest.mark.skipif(not recordings(), reason=NO_RECORDINGS)
def test_every_analysis_over_three_recordings(model, tmp_path, capsys):  # noqa: F811
    """The smallest recordings of three sets."""
    sets = {}
    for path in sorted(recordings(), key=lambda path: path.stat().st_size):
        sets.setdefault(path.stem.split("-")[0], path)
    files = sorted(sets.values(), key=lambda path: path.stat().st_size)[: 1 if CI else 3]
    daemon = daemon_with(tmp_path, model, ANALYSES)
    try:
        rows, good = [], {}
        for call in replay(daemon, files):
            made, turns = outcomes(daemon, call["call_id"]), len(daemon.turns(call["call_id"]))
            for name in ANALYSES:
                insights, failed = made.get(name, ([], []))
                assert insights or failed, f"{call['call_id']}: {name} came to no end"
                assert set(failed) <= FAILURES, f"{call['call_id']}: {name}: {failed}"
                for insight in insights:
                    keeps_its_schema(insight)
                    endpoint = "computed" if name == "stats" else "small"
                    assert insight["provenance"]["endpoint"] == endpoint and not insight["degraded"]
                    assert insight["covers"]["turns"] > 0
                if name in PER_TURN:
                    assert len(insights) + len(failed) == turns, f"{name}: every turn has one result"
                good[name] = good.get(name, 0) + bool(insights)
                rows.append(row(call["call_id"], name, (insights, failed), turns))
    finally:
        daemon.stop()
    with capsys.disabled():
        print(f"\n{'recording':<22} {'analysis':<17} {'outcome':<28} {'input':>6} {'cached':>6} {'output':>6} {'s':>6}  {'':<14} value")
        print("\n".join(rows))
        print(f"recordings with a value: {', '.join(f'{name} {count} of {len(files)}' for name, count in good.items())}")
    # Even the smallest model can answer with enumerations and numbers.
    assert all(good.get(name, len(files)) == len(files) for name in ("sentiment", "stats")), good


def test_hostile_recordings_affect_no_other_call(model, tmp_path, capsys):  # noqa: F811
    """The structure of the prompts is checked in the daemon's own tests; here a real model reads them."""
    files = sorted((ROOT / "tests" / "fixtures" / "hostile").glob("*.jsonl"))
    files = files[:1] if CI else files
    analyses = ["sentiment"] if CI else ["sentiment", "next_best_action"]
    daemon = daemon_with(tmp_path, model, analyses)
    try:
        for file, call in zip(files, replay(daemon, files)):
            said = [json.loads(line).get("message", {}) for line in file.read_text().splitlines()]
            said = [(turn["speaker"], turn["text"].strip()) for turn in said if turn.get("type") == "turn"]
            assert [(turn["speaker"], turn["text"].strip()) for turn in daemon.turns(call["call_id"])] == said, file.stem
            others = [f"kumquat-{other.stem}" for other in files if other != file]
            for name, (insights, failed) in outcomes(daemon, call["call_id"]).items():
                assert set(failed) <= FAILURES, f"{file.stem}: {name}: {failed}"
                for insight in insights:
                    keeps_its_schema(insight)
                    assert insight["provenance"]["endpoint"] == "small" and insight["provenance"]["attempts"] >= 1
                    value = json.dumps(insight["value"], ensure_ascii=False)
                    assert not any(other in value for other in others), f"{file.stem}: {value}"
                    with capsys.disabled():
                        print(f"\n{file.stem:<14} {name:<17} {value[:100]}", end="")
    finally:
        daemon.stop()
    with capsys.disabled():
        print()
