"""Config: every mistake is named, nothing is lost on the way, every field is read by something."""

import ast
import dataclasses
import fnmatch
import json
import re
import typing
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from fgrpo_jax import command
from fgrpo_jax.config import effects, files, reference, schema
from fgrpo_jax.config import load as configs
from fgrpo_jax.config.sections import CONSTRAINT_NAMES, Config
from fgrpo_jax.configs import default, nlvr, paper, qwen3b, qwen7b, tiny
from fgrpo_jax.fgrpo.settings import Constraint
from fgrpo_jax.rows import leaves as paths_of
from fgrpo_jax.world.settings import FlawMix

ROOT = Path(__file__).parent.parent
FILES = {"default": default, "tiny": tiny, "nlvr": nlvr, "qwen3b": qwen3b, "qwen7b": qwen7b, "paper": paper}


def changed(**fields: object) -> ConfigDict:
    """tiny.py with fields changed; '.' in names is written '__'."""
    config = tiny.get_config()
    for name, value in fields.items():
        *sections, leaf = name.split("__")
        here = config
        for section in sections:
            here = here[section]
        with here.ignore_type():
            here[leaf] = value
    return config


def with_data(name: str) -> ConfigDict:
    config = FILES[name].get_config()
    if config.data.source != "world":
        config.data.path = "somewhere"
    return config


@pytest.mark.parametrize("name", FILES)
def test_every_config_loads_and_survives_json(name: str) -> None:
    loaded = configs.load(with_data(name))
    again = configs.load(json.loads(json.dumps(configs.to_dict(loaded))))
    assert again == loaded
    assert configs.to_dict(again) == configs.to_dict(loaded)


@pytest.mark.parametrize("name", FILES)
def test_config_starts_with_its_run_command(name: str) -> None:
    assert f"--config=configs/{name}.py" in (FILES[name].__doc__ or "")


@pytest.mark.parametrize("name", ["default", "qwen3b", "qwen7b", "paper"])
def test_hyperparameters_are_the_papers(name: str) -> None:
    c = configs.load(with_data(name))
    assert [(k.name, k.threshold) for k in c.constraints] == [
        ("consistency", 0.95), ("semantic_grounding", 0.95), ("spatial_grounding", 0.65)]  # fmt: skip
    assert {(k.lr, k.init, k.max, k.min_applicable, k.direction) for k in c.constraints} == {(0.05, 1.0, 5.0, 8, ">=")}
    assert (c.rollout.group_size, c.data.prompts_per_step, c.algorithm.updates_per_batch) == (5, 128, 2)
    assert (c.data.max_prompt_tokens, c.rollout.max_new_tokens) == (8192, 1024)
    assert (c.data.min_pixels, c.data.max_pixels) == (262_144, 4_194_304)
    assert (c.optim.learning_rate, c.optim.weight_decay, c.optim.clip_norm) == (1e-6, 0.01, 1.0)
    assert (c.algorithm.clip_low, c.algorithm.clip_high, c.algorithm.kl_coef) == (0.2, 0.28, 0.01)
    assert c.model.freeze == ("visual/**",)


@pytest.mark.parametrize("name", ["qwen3b", "qwen7b", "paper"])
def test_the_judge_is_the_papers_and_two_lines_are_the_users(name: str) -> None:
    c = configs.load(with_data(name))
    assert c.judge.backend == "server" and c.judge.server.model == "Qwen/Qwen3-VL-30B-A3B-Instruct"
    assert c.judge.frame == "thousand" and c.judge.precheck == (name != "paper")
    if name != "paper":
        said = (ROOT / "configs" / f"{name}.py").read_text()
        assert all(f"    config.judge.server.{field} = " in said for field in ("url", "model"))


def test_the_papers_config_names_each_deviation_by_its_number() -> None:
    """A field that it sets stands in the numbered item of docs/method.md that it names; no number is left out there."""
    page = (ROOT / "docs" / "method.md").read_text()
    parts = re.split(r"^(\d+)\. \*\*", page, flags=re.MULTILINE)[1:]
    items = dict(zip(map(int, parts[::2]), parts[1::2], strict=True))
    assert list(items) == list(range(1, len(items) + 1))
    source = (ROOT / "configs" / "paper.py").read_text()
    fields = re.findall(r"config\.(\S+) = .*?# (\d+)", source)
    assert len(fields) >= 5
    for field, number in fields:
        assert f"`{field}" in items[int(number)] or f"`{field.split('.')[-1]} = " in items[int(number)], field
    c = configs.load(with_data("paper"))
    assert (c.algorithm.whiten, c.algorithm.whiten_baselines) == ("all", False)
    assert (c.algorithm.kl_clamp, c.algorithm.kl_max, c.algorithm.dual_clip) == (20.0, 10.0, 3.0)


def test_the_reference_is_that_of_the_declarations() -> None:
    page = (ROOT / "docs" / "config.md").read_text()
    assert page == reference.markdown(), "python -m fgrpo_jax.config.reference > docs/config.md"
    fields = paths_of(schema.plain(default.get_config()))
    assert len(fields) > 150
    named = {name for name in fields if not name.startswith("constraints.")}
    assert [name for name in sorted(named) if f"| `{name}`" not in page] == []


def test_every_field_says_what_it_means_in_a_sentence_of_its_own() -> None:
    odd = [
        f"{cls.__name__}.{field.name}"
        for cls in SECTIONS.values()
        for field in dataclasses.fields(cls)
        if not field.metadata.get("doc", "").endswith(".")
    ]
    assert odd == []


SERVER = dict(judge__backend="server", judge__server__url="http://localhost:8000/v1", judge__server__model="m")

WRONG = [
    (dict(rollout__group_size=1), "group_size=1 is out of range"),
    (dict(rollout__top_p=0.9), "top_p=1.0"),
    (dict(rollout__top_k=5), "top_k=0"),
    (dict(rollout__min_p=0.1), "set min_p=0.0"),
    (dict(rollout__repetition_penalty=1.05), "set repetition_penalty=1.0"),
    (dict(rollout__min_new_tokens=2), "set min_new_tokens=0"),
    (dict(rollout__min_new_tokens=2000), "min_new_tokens=2000 exceeds max_new_tokens=48"),
    (dict(rollout__stop=("",)), "holds an empty text"),
    (dict(rollout__batch_prompts=5), "does not divide config.data.prompts_per_step=16"),
    (dict(algorithm__updates_per_batch=3), "updates_per_batch=3 does not divide"),
    (dict(algorithm__kl_coef=-1.0), "kl_coef=-1.0 is out of range"),
    (dict(algorithm__kl_estimator="k4"), "use one of 'k1', 'k2', 'k3'"),
    (dict(algorithm__dual_clip=0.5), "dual_clip=0.5 is out of range"),
    (dict(algorithm__whiten="token"), "use one of 'live', 'all', 'tokens', 'none'"),
    (dict(model__param_dtype="bfloat16"), "float32 masters"),
    (dict(optim__compensated=True), "these weights are float32"),
    (dict(model__param_dtype="bfloat16", optim__compensated=True, model__lora__rank=4), "these adapters are float32"),
    (dict(algorithm__reference_every=5, model__lora__rank=4), "adapters stay near their base"),
    (dict(algorithm__reference_every=5, algorithm__kl_coef=0.0), "kl_coef=0 has no reference"),
    (dict(model__freeze=("**",)), "nothing to train"),
    (dict(model__freeze="visual/**"), "must be a sequence"),
    (dict(data__min_pixels=10**9), "exceeds max_pixels"),
    (dict(data__source="nlvr"), "needs config.data.path"),
    (dict(data__path="x"), "not read by the built-in world"),
    (dict(data__eval_split="train"), "held-out figures"),
    (dict(data__prompt="papr"), "unknown prompt style"),
    (dict(data__world__families={"between": 0.0}), "every family weight 0"),
    (dict(rewards__accuracy_weight=0.0, rewards__format_weight=0.0), "no task reward"),
    (dict(rewards__judge="rules"), "config.rewards.judge='rules' has moved: set config.judge.backend"),
    (dict(judge__backend="same"), "use one of 'rules', 'none', 'local', 'server'"),
    (dict(judge__max_failure_rate=1.5), "max_failure_rate=1.5 is out of range"),
    (dict(judge__visual_words=("Cup",)), "config.judge.visual_words holds 'Cup'; give lower-case"),
    (dict(judge__trivial_prefixes=("",)), "config.judge.trivial_prefixes holds ''"),
    (dict(judge__backend="local"), "needs config.judge.local.hf"),
    (dict(judge__backend="local", judge__local__hf="x", judge__frame="thousand"), "speaks 'processed'"),
    (dict(judge__backend="server"), "config.judge.server.url='' is no http or https address"),
    (dict(SERVER, judge__server__url="localhost:8000"), "is no http or https address"),
    (dict(SERVER, judge__server__url="http://me:secret@host/v1"), "holds more than host and path; a key has no place"),
    (dict(SERVER, judge__server__url="http://host/v1?key=secret"), "holds more than host and path"),
    (dict(SERVER, judge__server__model=""), "needs config.judge.server.model"),
    (dict(SERVER, judge__server__key_env="sk-proj-1234"), "key_env is no name of an environment variable"),
    (dict(SERVER, judge__server__deadline=1.0), "deadline=1.0 is below timeout=60.0"),
    (dict(SERVER, judge__server__image="original"), "in pixels of another image than server.image='original'"),
    (dict(SERVER, judge__server__extra="{x}"), "config.judge.server.extra is no JSON"),
    (dict(SERVER, judge__server__extra="[1]"), "must be a JSON object"),
    (dict(SERVER, judge__server__extra='{"messages": []}'), "must be a JSON object of further fields"),
    (dict(eval__judge__backend="server"), "config.eval.judge.server.url=''"),
    (dict(constraints__consistency__init=9.0), "consistency.init=9.0 exceeds max=5.0"),
    (dict(constraints__consistency__direction="=="), "use one of '>=', '<='"),
    (dict(constraints__consistency__min=2.0), "consistency.init=1.0 is below min=2.0"),
    (dict(constraints__consistency__rule="pdi"), "use one of 'linear', 'exponential', 'pid'"),
    (dict(constraints__consistency__kp=0.5), "gains of rule='pid', not of 'linear'"),
    (dict(constraints__consistency__rule="exponential", constraints__consistency__init=0.0), "stays 0 under"),
    (dict(constraints__consistency__signal="consistensy"), "did you mean 'consistency'?"),
    (dict(constraints__consistency__mask="right"), "use one of 'own', 'correct', 'all'"),
    (dict(constraints__consistency__window=0), "window=0 is out of range"),
    (dict(constraints__consistency__threshold=1.5), "cannot be met, 'consistency' lies in [0, 1]"),
    (dict(constraints__consistency__direction="<=", constraints__consistency__threshold=-1.0), "cannot be met"),
    (dict(rewards__weights={"acuracy": 1.0}), "unknown signal; did you mean 'accuracy'?"),
    (dict(rewards__weights={"format": 1.0}), "set config.rewards.format_weight"),
    (dict(rewards__weights={"overlong": 1.0}), "overlong_cache=0"),
    (dict(rewards__overlong_cache=99), "overlong_cache=99 exceeds config.rollout.max_new_tokens=48"),
    (dict(algorithm__normalise_lambda=True), "which whiten='live' would undo"),
    (dict(algorithm__normalise_lambda=True, algorithm__whiten="none", algorithm__aggregation="gdpo"), "may not have"),
    (dict(algorithm__kl_in="reward"), "use kl_estimator='k1'"),
    (dict(algorithm__kl_in="reward", algorithm__kl_estimator="k1", algorithm__kl_coef=0.0), "positive kl_coef"),
    (dict(algorithm__filter_dead=True, algorithm__max_resample=0), "draws nothing anew"),
    (dict(algorithm__importance_cap=0.5), "importance_cap=0.5 is out of range"),
    (dict(algorithm__entropy_coef=-0.1), "entropy_coef=-0.1 is out of range"),
    (dict(algorithm__overlong="drop"), "use one of 'keep', 'mask'"),
    (dict(algorithm__ratio="word"), "use one of 'token', 'sequence'"),
    (
        dict(algorithm__aggregation="additive", constraints__consistency__signal="accuracy"),
        "needs the signal 'consistency'; keep a constraint on it",
    ),
    (
        dict(
            algorithm__aggregation="gdpo",
            algorithm__task_weight=0.0,
            **{f"constraints__{name}__weight": 0.0 for name in CONSTRAINT_NAMES},
        ),
        "with every weight 0",
    ),
    (dict(rollout__logp_max_warn=1.0), "logp_max_warn=1.0 exceeds"),
    (dict(optim__learning_rate=float("nan")), "not a finite number"),
    (dict(optim__learning_rate="fast"), "must be a number, not str"),
    (dict(optim__schedule="cosine", optim__warmup_updates=10**6), "leaves nothing"),
    (dict(num_steps=2.5), "must be a whole number"),
    (dict(num_steps=True), "must be a whole number"),
    (dict(log__rollouts=1), "must be True or False"),
    (dict(mesh__fsdp=0), "config.mesh.fsdp=0"),
    (dict(sft__micro_batch=5), "config.sft.micro_batch=5 does not divide"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG, ids=[m for _, m in WRONG])
def test_wrong_values_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        configs.load(changed(**fields))


@pytest.mark.parametrize("field", [dict(rollout__top_p=0.9), dict(rollout__top_k=5), dict(rollout__min_p=0.1)])
def test_training_may_truncate_where_it_corrects_for_it(field: dict[str, object]) -> None:
    configs.load(changed(**field, algorithm__importance_cap=2.0))
    with pytest.raises(ValueError, match="set min_new_tokens=0"):
        configs.load(changed(**field, algorithm__importance_cap=2.0, rollout__min_new_tokens=2))


def test_evaluation_may_truncate_and_use_bfloat16_parameters() -> None:
    config = changed(rollout__top_p=0.9, model__param_dtype="bfloat16")
    assert configs.load(config, door="evaluate").rollout.top_p == 0.9


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("num_step", "num_steps"), ("optim.learning_rat", "learning_rate"), ("data.world.flawd", "flawed")],
)
def test_unknown_key_fails_with_the_nearest_name(key: str, nearest: str) -> None:
    raw = configs.to_dict(configs.load(tiny.get_config()))
    *sections, leaf = key.split(".")
    here = raw
    for section in sections:
        here = here[section]
    here[leaf] = 1
    with pytest.raises(ValueError, match=f"config.{key}'; did you mean '{nearest}'"):
        configs.load(raw)
    with pytest.raises(ValueError, match=f"did you mean '{nearest}'"):
        files.load_config(ROOT / "configs/tiny.py", [f"--config.{key}=1"])


def test_missing_key_and_unknown_constraint() -> None:
    raw = configs.to_dict(configs.load(tiny.get_config()))
    del raw["optim"]["b1"]
    with pytest.raises(ValueError, match=r"'config.optim.b1' is missing"):
        configs.load(raw)
    raw = configs.to_dict(configs.load(tiny.get_config()))
    raw["constraints"]["politeness"] = raw["constraints"]["consistency"]
    with pytest.raises(ValueError, match="unknown constraint 'config.constraints.politeness'"):
        configs.load(raw)


def test_constraints_keep_their_order_and_can_be_switched_off() -> None:
    config = configs.load(changed(constraints__semantic_grounding__enabled=False))
    assert [c.name for c in config.constraints] == list(CONSTRAINT_NAMES)
    assert [c.name for c in config.active_constraints] == ["consistency", "spatial_grounding"]


def test_a_constraint_may_be_added_under_any_name_that_names_a_signal() -> None:
    raw = tiny.get_config()
    raw.constraints.response_length = default.constraint(400.0, direction="<=")
    raw.constraints.brevity = default.constraint(50.0, direction="<=")
    raw.constraints.brevity.signal = "reasoning_length"
    config = configs.load(raw)
    assert [c.name for c in config.constraints] == [*CONSTRAINT_NAMES, "brevity", "response_length"]
    assert [c.measured for c in config.constraints[3:]] == ["reasoning_length", "response_length"]
    assert configs.load(json.loads(json.dumps(configs.to_dict(config)))) == config
    raw.constraints.respons_length = raw.constraints.response_length
    with pytest.raises(ValueError, match=r"no signal of that name; did you mean 'response_length'\?"):
        configs.load(raw)


def test_number_of_steps_is_free_on_resume_only_without_a_decaying_rate() -> None:
    for schedule, is_free in (("constant", True), ("cosine", False)):
        free = effects.resume_free(configs.to_dict(configs.load(changed(optim__schedule=schedule))))
        assert free("num_steps") is is_free and free("mesh.fsdp") and not free("optim.learning_rate")


def test_what_a_change_of_a_field_may_change_stands_in_one_table() -> None:
    assert effects.effects("algorithm.kl_coef") == ("steps",) and effects.effects("sft.steps") == ("traces",)
    assert effects.effects("rollout.top_p") == ("steps", "answers", "filter")
    assert effects.effects("data.path") == effects.effects("eval.judge.server.url") == ()
    fields = paths_of(schema.plain(tiny.get_config()))
    for pattern, _ in effects.TABLE:  # none is there for a field that is not
        entries = ("data.mix.*.path", "data.mix.*.images", "eval.paths.*")
        assert pattern in entries or any(fnmatch.fnmatchcase(name, pattern) for name in fields), pattern


# ------------------------------------------------------------------------------------------------------------ the doors
def test_overrides_keep_the_type_of_the_field() -> None:
    config = files.load_config(
        ROOT / "configs/tiny.py",
        [
            "--config.num_steps=7",
            "--config.model.freeze=('visual/**','text/embed/**')",
            "--config.algorithm.dual_clip=3",
        ],
    )
    loaded = configs.load(config)
    assert (loaded.num_steps, loaded.algorithm.dual_clip) == (7, 3.0)
    assert loaded.model.freeze == ("visual/**", "text/embed/**")


def test_what_stands_behind_a_colon_is_the_config_to_build_on(capsys: pytest.CaptureFixture[str]) -> None:
    file = ROOT / "configs/response_length.py"
    for base, prompts in (("", 128), (":tiny", 16), (":qwen3b", 128)):
        loaded = files.load_config(f"{file}{base}", ["--config.constraints.response_length.threshold=30"])
        assert loaded.data.prompts_per_step == prompts and loaded.constraints.response_length.threshold == 30.0
    code, err = run_door(capsys, f"--config={file}:tiyn")
    assert (
        code == 1
        and "no config file at tiyn, and no config of that name; did you mean 'tiny'" in err
        and "Traceback" not in err
    )
    code, err = run_door(capsys, f"--config={ROOT / 'configs/tiny.py'}:tiny")
    assert code == 1 and "builds on nothing that is named behind a colon, got ':tiny'" in err


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("rewards.weights.overlong=0.5", "rewards.weights", {"overlong": 0.5}),
        ("rewards.custom.points=package.module:function", "rewards.custom", {"points": "package.module:function"}),
        ("eval.paths.mmvp=/data/mmvp", "eval.paths", {"mmvp": "/data/mmvp"}),
        ("data.world.families.between=2", "data.world.families.between", 2.0),
        ("data.mix.sat.count=10", "data.mix.sat.count", 10),
    ],
)
def test_entries_are_added_by_flags_where_any_name_will_do(override: str, path: str, value: object) -> None:
    found: object = files.load_config("tiny", [f"--config.{override}"])
    for key in path.split("."):
        found = found[key]  # type: ignore[index]
    assert schema.plain(found) == value


def test_a_constraint_is_added_by_flags_and_needs_a_threshold() -> None:
    flags = ["--config.constraints.response_length.threshold=30", "--config.constraints.response_length.direction=<="]
    config = configs.load(files.load_config("tiny", flags))
    assert config.constraints[-1] == Constraint("response_length", 30.0, direction="<=")
    with pytest.raises(ValueError, match=r"response_length is new and has no threshold; give --config\.constraints"):
        files.load_config("tiny", flags[1:])
    with pytest.raises(ValueError, match=r"no signal of that name; did you mean 'response_length'"):
        configs.load(files.load_config("tiny", [flags[0].replace("response_length", "respons_length")]))


OWN = """
from fgrpo_jax.configs import default


def get_config():
    config = default.get_config()
    config.num_steps = 3
    return config
"""


def test_a_file_of_ones_own_builds_on_ours_and_is_a_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    assert files.load_config("mine.py").num_steps == 3
    for name in ("baselines/gdpo.py:mine.py", "baselines/gdpo:mine.py", "configs/baselines/gdpo.py:mine.py"):
        config = configs.load(files.load_config(name))
        assert (config.num_steps, config.algorithm.aggregation) == (3, "gdpo")
    both = configs.load(files.load_config("baselines/dapo:baselines/dr_grpo:mine.py"))
    assert (both.num_steps, both.algorithm.std, both.algorithm.filter_dead) == (3, False, True)


SHIPPED = [str(file.relative_to(files.SHIPPED).with_suffix("")) for file in sorted(files.SHIPPED.glob("[!_]*.py"))]
BASELINES = [file.stem for file in sorted((files.SHIPPED / "baselines").glob("[!_]*.py"))]


@pytest.mark.parametrize("base", [name for name in SHIPPED if name not in ("bases", "eval")])
def test_every_baseline_goes_on_every_base(base: str) -> None:
    def loaded(name: str) -> configs.Config:
        raw = files.load_config(name)
        if raw.data.source != "world":
            raw.data.path = "somewhere"
        return configs.load(raw)

    plain = loaded(base)
    assert [name for name in BASELINES if loaded(f"baselines/{name}:{base}") == plain] == []


def run_door(capsys: pytest.CaptureFixture[str], *argv: str, main: object = None) -> tuple[int, str]:
    def load(args: object) -> None:
        configs.load(args.config)  # type: ignore[attr-defined]

    code = command.run(main or load, command.parser("test", config=True), argv)  # type: ignore[arg-type]
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.num_step=3", "did you mean 'num_steps'?"),
        ("--config.optm.b1=3", "did you mean 'optim'?"),
        ("--config.num_steps.x=3", "is a value, not a section"),
        ("--config.num_steps=many", "--config.num_steps=many"),
        ("--config.num_steps=0", "must be at least 1"),
        ("--config.num_steps", "needs a value"),
    ],
)
def test_user_mistakes_end_in_one_line_and_exit_code_1(
    override: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, err = run_door(capsys, f"--config={ROOT / 'configs/tiny.py'}", override)
    assert code == 1
    assert err.startswith("error: ") and message in err and "Traceback" not in err


def test_missing_config_file_and_good_config(capsys: pytest.CaptureFixture[str]) -> None:
    code, err = run_door(capsys, "--config=configs/none.py")
    assert (code, "no config file at" in err) == (1, True)
    assert run_door(capsys, f"--config={ROOT / 'configs/tiny.py'}", "--config.num_steps", "3") == (0, "")


def test_a_fault_of_ours_shows_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(args: object) -> None:
        int("x")  # raised outside the package, as a library's error would be

    code, err = run_door(capsys, f"--config={ROOT / 'configs/tiny.py'}", main=broken)
    assert code == 1 and "Traceback" in err


# ------------------------------------------------------------------------------------------------- every leaf is read
def sections(cls: type = Config) -> dict[str, type]:
    """{name of a section: its dataclass}, nested ones included; '' is the top."""
    found = {"": cls} if cls is Config else {}
    for name, hint in schema.hints(cls).items():
        if (inside := section_of(hint)) is not None:
            found |= {name: inside, **sections(inside)}
    return found


def section_of(hint: object) -> type | None:
    """The section that a field is, or that its entries are."""
    inside = (hint, *typing.get_args(hint))
    return next((one for one in inside if isinstance(one, type) and dataclasses.is_dataclass(one)), None)


SECTIONS = sections()


def leaves() -> set[tuple[str, str]]:
    """(section, field) of every leaf of the config."""
    every = {(name, key, hint) for name, cls in SECTIONS.items() for key, hint in schema.hints(cls).items()}
    return {(name, key) for name, key, hint in every if section_of(hint) is None} - {("constraints", "name")}


def reads(tree: ast.AST) -> set[tuple[str, str]]:
    """(section, field) pairs read as config.section.field, or through a local name that stands for the section.

    A local name stands for a section when it has its name, is assigned from it, loops over it or is annotated as it.
    """
    known = {*filter(None, SECTIONS), "active_constraints"}
    alias: dict[str, set[str]] = {name: {name} for name in known} | {"config": {""}}

    def stand_for(target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for t, v in zip(target.elts, value.elts, strict=True):
                stand_for(t, v)
        elif isinstance(target, ast.Name) and isinstance(value, ast.Attribute) and value.attr in known:
            alias.setdefault(target.id, set()).add(value.attr)
        elif isinstance(target, ast.Name) and isinstance(value, ast.IfExp):
            stand_for(target, value.body)
            stand_for(target, value.orelse)

    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            stand_for(node.targets[0], node.value)
        elif isinstance(node, ast.For | ast.comprehension):
            if isinstance(node.target, ast.Name):
                stand_for(node.target, node.iter)
        elif isinstance(node, ast.arg) and node.annotation is not None:
            for section, cls in SECTIONS.items():
                named = ast.unparse(node.annotation).replace(".", " ").split()
                if any(base.__name__ in named for base in cls.__mro__):
                    alias.setdefault(node.arg, set()).add(section)
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name):
                found |= {(section, node.attr) for section in alias.get(node.value.id, ())}
            elif isinstance(node.value, ast.Attribute):
                owner = node.value.attr
                found |= {(owner if owner in known else "", node.attr)} if owner in {*known, "config"} else set()
    return {("constraints" if section == "active_constraints" else section, field) for section, field in found}


def reads_of_its_own(tree: ast.AST) -> set[tuple[str, str]]:
    """(section, field) of the sections that a module takes from a room's settings: any attribute or string of its name.

    A section that stands in a room is read there under many local names.
    """
    own = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").endswith(".settings")
        for alias in node.names
    }
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return {(section, name) for section, cls in SECTIONS.items() if cls.__name__ in own for name in names}


def test_every_config_leaf_is_read() -> None:
    # The config reads fields only to check them; what counts is the rest of the package.
    found: set[tuple[str, str]] = set()
    for file in (ROOT / "fgrpo_jax").rglob("*.py"):
        if file.parent.name != "config":
            tree = ast.parse(file.read_text())
            found |= reads(tree) | reads_of_its_own(tree)
    derived = {
        "sign": ("constraints", "direction"),
        "measured": ("constraints", "signal"),
        "body": ("server", "extra"),
    }
    found |= {("flaws", field.name) for field in dataclasses.fields(FlawMix)}  # its `draw` goes through them all
    found |= {leaf for name, leaf in derived.items() if any(field == name for _, field in found)}
    unread = sorted(leaves() - found)
    assert not unread, f"config fields nobody reads: {['.'.join(filter(None, leaf)) for leaf in unread]}"


def test_the_reading_test_sees_what_is_not_read() -> None:
    code = "def f(config: Config, section: Optimizer):\n  a = config.algorithm\n  return a.eps, section.b1, config.seed"
    assert reads(ast.parse(code)) >= {("algorithm", "eps"), ("optim", "b1"), ("", "seed")}
    taken = "from fgrpo_jax.fgrpo.settings import Lora\ndef f(settings): return settings.rank"
    assert reads_of_its_own(ast.parse(taken)) & leaves() == {("lora", "rank")}
    assert ("optim", "b2") not in reads(ast.parse(code))
