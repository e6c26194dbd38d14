"""The seven benchmarks as published, from their files to the tables, answered by a policy that always says 'A'."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import layouts
import policies
import pytest
from test_styles import Says

from fgrpo_jax.evaluation import answering, over_sets, results
from fgrpo_jax.evaluation.answering import Spent
from fgrpo_jax.evaluation.benchmarks import SEVEN
from fgrpo_jax.training import datasets, judges

ROOMY = {
    "data__max_prompt_tokens": 2048,
    "data__buckets__prompt": (),
    "data__buckets__patches": (),
    "data__prompt": "paper",
}


@pytest.fixture(scope="module")
def evaluated(tiny_hf: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """{set: its answers} of the seven, and 'config' and 'folder'."""
    root = tmp_path_factory.mktemp("seven")
    for name in SEVEN:
        layouts.write(name, root / name)
    config = policies.config(tiny_hf, eval__sets=SEVEN, eval__root=root, **ROOMY)
    policy = policies.policy(config)
    sampler: Any = Says(policy, "<think>Always.</think><answer>A</answer>")
    out: dict[str, Any] = {"config": config, "policy": policy, "folder": root / "w"}
    scorer = judges.scorer(config, policy, root / "w", purpose="eval")
    for name, source in datasets.heldout_sets(config).items():
        file = answering.answers_on_file(config, name, folder=root / "w", policy={})
        none = lambda: None  # noqa: E731
        out[name] = answering.answer_set(config, policy, none, sampler, source, file, scorer=scorer, spent=Spent())
    return out


@pytest.mark.parametrize("name", SEVEN)
def test_every_question_is_answered_and_scored(evaluated: dict[str, Any], name: str) -> None:
    answers = evaluated[name]
    assert len(answers) == layouts.LAYOUTS[name].count == len({answer["id"] for answer in answers})
    for answer in answers:
        assert answer["source"] == name and answer["format"] == 1.0
        if answer["options"]:
            assert answer["read"] == "A" and answer["accuracy"] == (answer["gold"] == "A")
    found = results.of_set(name, answers, resamples=20)
    assert found.figures["accuracy_paper"].value == sum(answer["accuracy"] for answer in answers) / len(answers)
    assert found.figures["accuracy_official"].value is not None, "the tags that the official variant reads are there"
    assert found.counts["units_not_whole"] == 0
    assert all(value for groups in found.groups.values() for value in groups), "every question has its tags"


def test_who_always_says_a_has_half_of_sat_and_nothing_of_it_strictly(evaluated: dict[str, Any]) -> None:
    found = results.of_set("sat_real", evaluated["sat_real"], resamples=20).figures
    assert (found["accuracy_paper"].value, found["accuracy_official"].value) == (0.5, 0.0)


def test_the_report_stands_beside_the_paper(
    evaluated: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [results.of_set(name, evaluated[name], resamples=20) for name in SEVEN]
    named = {"name": "p", "revision": "", "fingerprint": "f"}
    protocol = over_sets.protocol(evaluated["config"], named, judge={"backend": "rules"})
    over_sets.report(tmp_path, found, protocol)
    said = capsys.readouterr().out
    assert "average of 7 of the paper's 7 sets" in said and "cv_bench_2d: 6 of 1438 published questions" in said
    (mine,) = (line.split() for line in said.splitlines() if line.startswith("this run  "))
    assert mine[2:] == [f"{100 * (result.figures['accuracy_paper'].value or 0):.1f}" for result in found]
    fgrpo = [line.split()[-7:] for line in said.splitlines() if line.startswith("paper: FGRPO, 7B")]
    assert ["82.4", "87.0", "49.3", "73.3", "44.8", "67.6", "65.7"] in fgrpo
    assert "max_pixels" not in said and "pixels: min 7056, max 12544" in said
    stored = json.loads((tmp_path / "results.json").read_text())
    assert list(stored["sets"]) == list(SEVEN) and stored["average"]["is_the_papers"] is False
    mean = sum(result.figures["accuracy_paper"].value or 0.0 for result in found) / 7
    assert stored["average"]["figures"]["accuracy_paper"]["value"] == pytest.approx(mean)
    tex = (tmp_path / "results.tex").read_text()
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") and r"cv\_bench\_2d" in tex
    assert "| cv_bench_2d |" in (tmp_path / "results.md").read_text()


def test_names_of_files_are_plain(tiny_hf: Path, tmp_path: Path) -> None:
    layouts.write("nlvr", tmp_path / "nlvr")
    config = policies.config(tiny_hf, eval__sets=("nlvr:dev[:1]", "nlvr:dev"), eval__root=tmp_path)
    found = datasets.heldout_sets(config)
    assert {name: len(source) for name, source in found.items()} == {"nlvr-dev-1": 1, "nlvr-dev": 2}
