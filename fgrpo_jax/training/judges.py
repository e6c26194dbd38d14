"""Who judges and what scores, built from the config: judges of every backend, their cache, and the scorer over them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from fgrpo_jax import mesh as meshes
from fgrpo_jax.config.sections import WORKDIR, Config, JudgeSection, LocalSection
from fgrpo_jax.data.processor import Processor
from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.reading.sentences import Trivial
from fgrpo_jax.records import Example
from fgrpo_jax.rewards.judges import prompts
from fgrpo_jax.rewards.judges.cache import Cache
from fgrpo_jax.rewards.judges.dispatch import Dispatcher
from fgrpo_jax.rewards.judges.extraction import Extractor
from fgrpo_jax.rewards.judges.local import LocalJudge
from fgrpo_jax.rewards.judges.protocol import Judge
from fgrpo_jax.rewards.judges.scorer import VerdictScorer
from fgrpo_jax.rewards.judges.settings import Server
from fgrpo_jax.training import setup
from fgrpo_jax.training.scoring import Scorer
from fgrpo_jax.weights import importer

if TYPE_CHECKING:
    from fgrpo_jax.rewards.judges.server import ServerJudge


def judges(config: Config, policy: setup.Policy, section: JudgeSection, workdir: Path) -> Dispatcher:
    """Who judges under one of the config's judge sections; a ValueError where the judge is not as the section says.

    Args:
      policy: on whose mesh a local judge is laid out.
      workdir: of the run, where the cache of verdicts may be; nothing is written before the first verdict.
    """
    oracle = None
    if config.data.source == "world" or any(name.partition(":")[0] == "world" for name in config.eval.sets):
        from fgrpo_jax.world.oracle import Oracle  # nothing else here needs that world

        oracle = Oracle(box_iou_correct=config.rewards.box_iou_correct, unread=section.unread)
    trivial = Trivial(prefixes=section.trivial_prefixes, words=section.visual_words)
    settings: dict[str, Any] = {"oracle": oracle, "precheck": section.precheck, "trivial": trivial}
    if not section.asks_a_model:
        return Dispatcher(**settings, sentences=section.backend == "rules")
    files: dict[Any, str] = {"consistency": section.consistency_prompt, "semantic": section.semantic_prompt}
    wording = prompts.Wording(**{kind: prompts.read_own(kind, file) for kind, file in files.items()})
    told: dict[str, Any] = {"frame": section.frame, "wording": wording}
    if section.backend == "server":
        model: Judge = _endpoint(section.server, concurrency=section.concurrency, **told)
    else:
        model = _local_judge(config, policy, section.local, **told)
    identity = model.identity
    store = _cache(section, workdir, judge=f"{identity['backend']}: {identity['model']}")
    key = functools.partial(prompts.fingerprint, identity=identity, **told)
    return Dispatcher(**settings, sentences=False, model=model, store=store, key=key)


def masked_by_rules(section: JudgeSection, examples: Sequence[Example], *, at: str) -> str | None:
    """What to print at the start where the rules are asked about questions of which they know nothing but the text.

    Some of the questions are given, and where the section stands, such as 'config.judge'.
    """
    if section.backend != "rules" or any(one.query is not None or one.scene is not None for one in examples):
        return None
    return (
        "the rules know nothing of these questions but their text: consistency counts only where a reasoning clearly "
        "commits itself to an option, semantic grounding not at all; the rest is masked and counted as abstained. Set "
        f"{at}.backend to 'local' or 'server' for a model that judges it too (docs/judges.md)"
    )


def _cache(section: JudgeSection, workdir: Path, *, judge: str) -> Cache | None:
    if not section.cache:
        return None
    first, *rest = Path(section.cache).parts
    path = workdir.joinpath(*rest) if first == WORKDIR else Path(section.cache)
    if jax.process_count() > 1:  # workdirs of many hosts are on network file systems, where SQLite can't be shared
        path = path.with_name(f"{path.stem}.{jax.process_index()}{path.suffix}")
    return Cache(path, judge=judge)


def _local_judge(config: Config, policy: setup.Policy, section: LocalSection, **told: Any) -> Judge:
    """A frozen model beside the policy, on its mesh, laid out as weights are for sampling: nothing is gathered."""
    folder, dtype = setup.model_folder(section.hf, section.revision), jnp.dtype(section.dtype)
    mesh = policy.mesh.local_mesh  # each process judges its own rollouts, in its own time
    model = Model.create(ModelConfig.load(folder), compute_dtype=dtype, mesh=mesh)
    layout = meshes.shardings(model.specs, mesh, rules=meshes.SAMPLE_RULES)
    params = importer.load_hf(folder, model, dtype=dtype, shardings=layout)
    scorer = VerdictScorer(model, params, Processor.load(folder), mesh=mesh)
    pixels: dict[str, Any] = {"min_pixels": config.data.min_pixels, "max_pixels": config.data.max_pixels}
    return LocalJudge(scorer, name=section.hf, **told, **pixels)


def compilations(judges: Dispatcher) -> int:
    """Programs that a judge in this process has compiled."""
    return judges.model.scorer.compilations if isinstance(judges.model, LocalJudge) else 0


def _endpoint(server: Server, *, concurrency: int, **told: Any) -> ServerJudge:
    """A client of an endpoint, which was seen to be there."""
    try:
        from fgrpo_jax.rewards.judges.server import ServerJudge  # an extra: it needs aiohttp
    except ImportError as error:
        raise ValueError(f"backend='server' needs {error.name}; pip install 'fgrpo-jax[server]'") from error
    judge = ServerJudge(server, concurrency=concurrency, **told, processes=jax.process_count())
    try:
        judge.check()
    except ValueError:
        judge.close()
        raise
    return judge


def extractor(config: Config) -> Extractor | None:
    """Who reads answers in `evaluate`; None for the rules. A ValueError where its endpoint is not there."""
    section = config.eval.extractor
    if section.backend == "rules":
        return None
    return Extractor(_endpoint(section.server, concurrency=section.concurrency))


def scorer(
    config: Config, policy: setup.Policy, workdir: Path, *, purpose: str, shared: Dispatcher | None = None
) -> Scorer:
    """What scores rollouts for 'train' or 'eval'; `shared` is training's judge, used where the section is its own."""
    if purpose == "train":
        judge = judges(config, policy, config.judge, workdir)
        return Scorer(setup.rewards(config), judge, measures=setup.measures(config))
    section = config.eval_judge
    mine = shared if shared is not None and section is config.judge else judges(config, policy, section, workdir)
    # No figure of evaluation reads what is weighed in the reward: functions of the user's own are not called for it.
    plain = dataclasses.replace(config, rewards=dataclasses.replace(config.rewards, weights={}, custom={}))
    return Scorer(setup.rewards(plain), mine, everyone=True)
