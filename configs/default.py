"""Every field, with the value of the FGRPO paper (arXiv 2604.08476) where it states one.

    python -m fgrpo_jax.train --config=configs/default.py --workdir=runs/default --config.model.hf=FOLDER

Other configs are deltas of this one. Any field can be set on the command line: --config.optim.learning_rate=2e-6.
Where paper and appendix differ, or are silent, the comment says so; docs/method.md numbers these choices.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0  # of sampling, shuffling and initialisation; not of the built-in world, see data.world.seed
    config.num_steps = 1140  # rollout steps; 3 epochs of the paper's 48.7K prompts at 128 a step
    config.model = _model()
    config.data = _data()
    config.rollout = _rollout()
    config.rewards = _rewards()
    config.judge = _judge()
    config.constraints = _constraints()
    config.algorithm = _algorithm()
    config.optim = _optim()
    config.mesh = _mesh()
    config.eval = _eval()
    config.checkpoint = _checkpoint()
    config.log = _log()
    config.sft = _sft()
    return config


def _model() -> ConfigDict:
    model = ConfigDict()
    model.hf = "shipped"  # starting policy: HF folder, hub id, or 'shipped', the warm start that comes with the package
    model.revision = ""  # of a hub id: branch, tag or commit; a run stores the commit it began with
    model.param_dtype = "float32"  # masters; training takes bfloat16 only with optim.compensated or adapters
    model.compute_dtype = "float32"  # float32 | bfloat16: activations and matrix products
    model.remat = "none"  # what the backward pass recomputes: none | dots (all but products with weights) | full
    model.freeze = ("visual/**",)  # parameters that FGRPO leaves alone; the paper freezes the tower, merger included
    model.lora = ConfigDict()  # adapters W + alpha/rank · A B, trained instead of weights; docs/training.md
    model.lora.rank = 0  # of A B; 0 trains the weights themselves
    model.lora.alpha = 16.0  # scale of the sum is alpha / rank
    model.lora.targets = ("text/layers/**/kernel",)  # kernels that have adapters; none of them may be frozen
    return model


def _data() -> ConfigDict:
    data = ConfigDict()
    data.source = "world"  # world (built in) | mix | prepared | a set's name, such as sat, nlvr, jsonl (docs/data.md)
    data.path = ""  # its folder, as published or as `prepare` made it; none for the built-in world
    data.bad = "error"  # rows that cannot be used: error (stop, naming file and row) | skip (left out and counted)
    data.train_split = "train"  # world: train | heldout | validation; else of the source, also train[500:] of it
    data.eval_split = "heldout"  # no examples of train_split; train[:500] beside train[500:] will do
    data.open_answers = "keep"  # questions without options: keep | drop | choices, made of the set's other answers
    data.mix = ConfigDict()  # source = "mix": {name: member(…)} of several sets, see configs/paper_mix.py
    data.mix_seed = 0  # which examples of each member are drawn; not `seed`, so that runs share their data
    data.prompts_per_step = 128  # M of a rollout batch, over all devices
    data.max_prompt_tokens = 8192  # never cut: a longer prompt is what `overlong` says
    data.overlong = "error"  # error | drop: all training prompts are measured before the run, longer ones left out
    data.length_cache = ""  # folder that keeps what was measured; empty is ~/.cache/fgrpo_jax
    data.filter = ""  # list of training examples to keep, or workdir of python -m fgrpo_jax.filter; empty keeps all
    data.difficulty = ConfigDict()  # how fgrpo_jax.filter makes that list; docs/data.md
    data.difficulty.rollouts = 4  # completions a prompt; kept where some are right and some wrong
    data.difficulty.keep = 0.1  # share of the others that is kept too, chosen by id
    data.difficulty.examples = 0  # first examples of the training source that are tried; 0 is all
    data.difficulty.batch_prompts = 32  # prompts a sampler call
    data.min_pixels = 262_144  # images are resized to lie between these; not stated in the paper: the values of
    data.max_pixels = 4_194_304  # the framework it was built on
    data.prompt = "paper"  # paper | tiny | direct | cot | vigorl | treevgr | vlm_r1 (data/styles.py), or FILE.json
    data.workers = 0  # Grain worker processes that read images and tokenise; 0 works in the main process
    data.buckets = ConfigDict()  # padded lengths that batches may have; one compile a combination, () is a ladder
    data.buckets.prompt = ()  # prompt tokens
    data.buckets.completion = ()  # response tokens, in supervised training; a trace beyond the largest is an error
    data.buckets.patches = ()  # 14-pixel patches an image, multiples of 4
    data.buckets.choose = 0  # instead of lists: at most so many joint shapes, those that pad the run's batches least
    data.buckets.group = 0  # batches in a row whose prompts are shared out by size, for less padding; 0: as shuffled
    data.buckets.measure = 512  # first batches of the run that are measured for that, or to know what to compile
    data.buckets.precompile = True  # compile every shape those batches have before the first step
    data.world = ConfigDict()
    data.world.difficulty = "tiny"  # tiny | easy | hard: how large, crowded and varied the scenes are
    data.world.families = ConfigDict()  # weight of each question family; empty is the world's own mix
    data.world.flawed = 0.28  # share of reference traces that are flawed on purpose (supervised training only)
    data.world.flaws = ConfigDict()  # weights of the kinds of flaw
    data.world.flaws.contradicts_right = 0.3  # sound reasoning, then another answer
    data.world.flaws.lucky = 0.4  # a false claim, then the right answer all the same
    data.world.flaws.wrong_box = 0.15  # an object pointed at in a wrong place
    data.world.flaws.false_claim = 0.15  # a false sentence beside the right ones
    data.world.yes_no = 0.5  # share of yes/no questions, the others being multiple choice
    data.world.seed = 0  # of the world itself: runs with different `seed` are tried on the same questions
    return data


def member(name: str, *, count: int, boxes: bool, split: str = "train") -> ConfigDict:
    """One set of a mix; for configs that have one, see configs/paper_mix.py."""
    member = ConfigDict()
    member.set = name  # name of the set, or prepared
    member.path = ""  # its folder, below data.path unless absolute; empty is the member's name
    member.split = split  # also train[500:] of it
    member.count = count  # examples drawn, without replacement; 0 is all
    member.boxes = boxes  # False: its boxes are no gold boxes, R_G is masked
    return member


def _rollout() -> ConfigDict:
    rollout = ConfigDict()
    rollout.group_size = 5  # G, completions a prompt
    rollout.max_new_tokens = 1024  # T; a completion without an end by then counts as truncated
    rollout.temperature = 1.0  # not stated in the paper; divides logits in sampler and learner alike
    rollout.top_p = 1.0  # training refuses anything but 1.0 here and 0 below: the learner sees the full distribution
    rollout.top_k = 0  # 0 is off
    rollout.min_p = 0.0  # only ids at least this share as likely as the likeliest; training refuses all but 0
    rollout.repetition_penalty = 1.0  # of ids that prompt or completion hold; training refuses all but 1
    rollout.min_new_tokens = 0  # no EOS and no stop text ends a completion before; training refuses all but 0
    rollout.stop = ()  # texts that end a completion besides EOS, such as "</answer>"; training may use them
    rollout.compact = False  # as completions end, the others move to smaller batches; same tokens, docs/rollouts.md
    rollout.batch_prompts = 16  # prompts a sampler call; divides data.prompts_per_step
    # Δp = |exp(logp of the sampler) − exp(logp of the learner)| a token says whether the two run the same model.
    rollout.logp_max_warn = 0.005  # float32 compute: warn when the largest Δp of a step exceeds this,
    rollout.logp_max_stop = 0.01  # stop the run above this
    rollout.logp_mean_warn = 0.01  # bfloat16 compute: the same for the mean Δp,
    rollout.logp_mean_stop = 0.05  # where the stop waits for
    rollout.logp_patience = 3  # this many steps in a row
    return rollout


def _rewards() -> ConfigDict:
    rewards = ConfigDict()
    rewards.accuracy_weight = 0.5  # R_task = 0.5 R_acc + 0.5 R_fmt
    rewards.format_weight = 0.5  # weight of R_fmt
    rewards.weights = ConfigDict()  # further signals in R_task, {name: weight}; 0 is added where one does not apply
    rewards.custom = ConfigDict()  # signals of your own, {name: "package.module:function"}; docs/rewards.md
    rewards.custom_concurrency = 8  # calls of async ones under way at once
    rewards.custom_timeout = 600.0  # seconds that such a call may take before the run stops
    rewards.overlong_cache = 0  # tokens before the end of the window over which the signal `overlong` falls to -1
    rewards.ciou_mapping = "clamp"  # clamp: max(CIoU, 0) | shift: (CIoU + 1)/2; the paper states no map to [0, 1]
    rewards.dedupe_boxes = False  # True: a box predicted twice counts once in N of Eq. 1
    rewards.no_claim = "masked"  # masked | zero: R_S of a reasoning without any visual claim
    rewards.box_iou_correct = 0.5  # IoU with the named object from which the rules judge calls a box correct
    return rewards


def _server() -> ConfigDict:
    server = ConfigDict()
    server.url = ""  # up to /v1, such as http://localhost:8000/v1; never with a key in it
    server.model = ""  # the name under which the endpoint serves it
    server.key_env = ""  # NAME of the environment variable that holds the API key; "" sends none
    server.image = "processed"  # images are sent as the policy saw them (processed) or as published (original)
    server.max_tokens = 16  # of an answer, which is one word; one that is cut off is a failure
    server.extra = ""  # JSON object of further fields of each request; null takes a field out
    server.connect_timeout = 10.0  # seconds to reach the server,
    server.timeout = 60.0  # of one attempt, however slowly bytes may trickle,
    server.deadline = 180.0  # and of a judgement with all its attempts and waits
    server.retries = 4  # further attempts after time-outs, 408, 429, 5xx, dropped connections, broken JSON
    server.backoff = 0.5  # seconds before the first of them, doubled each time, with jitter, up to 30
    server.requests_per_minute = 0  # at most, over all processes of the run; 0 is no limit
    return server


def _judge(*, backend: str = "rules") -> ConfigDict:
    judge = ConfigDict()  # who says whether a reasoning is consistent (R_C) and grounded (R_S); docs/judges.md
    judge.backend = backend  # rules (exact, known scenes) | none (R_S masked, R_C by rules) | local | server
    judge.precheck = True  # rules decide the clear cases of consistency before a model is asked
    judge.unread = "incorrect"  # sentences rules can't read: incorrect (gibberish gains nothing) | abstain (masked)
    judge.frame = "processed"  # boxes as the judge speaks them: processed | original (pixels) | unit (0..1) | thousand
    judge.max_failure_rate = 0.2  # the run saves a checkpoint and stops when more of its requests to a model fail,
    judge.min_failures = 20  # and no fewer than these did,
    judge.window = 10  # over the last so many steps
    judge.concurrency = 32  # requests under way at once
    judge.cache = "WORKDIR/judge.sqlite"  # verdicts of a model, asked once for ever; WORKDIR is the run's; "" is none
    judge.trivial_prefixes = ()  # beginnings of sentences a model is not asked about; () is reading/sentences.py's list
    judge.visual_words = ()  # words without which it is not asked about a sentence; () is the list of reading/words.py
    judge.local = ConfigDict()  # a frozen Qwen2.5-VL in this process, on the mesh of the policy
    judge.local.hf = ""  # HF folder or hub id
    judge.local.revision = ""  # of a hub id: branch, tag or commit
    judge.local.dtype = "bfloat16"  # float32 | bfloat16: of its weights and activations
    judge.server = _server()  # any OpenAI-compatible chat endpoint: vLLM, SGLang, hosted
    return judge


def constraint(threshold: float, *, direction: str = ">=") -> ConfigDict:
    """A constraint with the paper's settings; for configs that add one, see configs/response_length.py."""
    constraint = ConfigDict()
    constraint.enabled = True  # False: measured and logged, but without a multiplier and out of the advantage
    constraint.signal = ""  # what is bounded, a name of fgrpo_jax/rewards/signals.py; "" is the constraint's own name
    constraint.weight = 1.0  # gdpo: fixed weight of the signal's advantage, in the place of λ
    constraint.threshold = threshold  # τ on the mean over applicable rollouts, in the unit of the signal
    constraint.direction = direction  # >= : the mean must reach τ | <= : must stay below
    constraint.mask = "own"  # rollouts that count: own (rule of the signal) | correct (right answers) | all
    constraint.rule = "linear"  # linear (Eq. 5) | exponential (ascent in log λ) | pid (Stooke et al. 2020)
    constraint.lr = 0.05  # η_λ of Eq. 5: λ a unit of violation; of log λ, or of the integral, by rule; 0 is fixed
    constraint.kp = 0.0  # pid: λ a unit of violation, at once,
    constraint.kd = 0.0  # and a unit of its rise since the step before
    constraint.init = 1.0  # λ⁰
    constraint.min = 0.0  # least λ; exponential keeps at least 1e-6, since from 0 no factor leads back
    constraint.max = 5.0  # λ_max
    constraint.min_applicable = 8  # λ stands still while fewer rollouts of its window are applicable
    constraint.window = 1  # steps whose sums and counts are pooled for the mean that λ answers to; 1 is this step alone
    constraint.delay = 0  # first steps in which λ stands at λ⁰, and counts, while the mean is measured already
    return constraint


def _constraints() -> ConfigDict:
    constraints = ConfigDict()  # in every [C] array: these three, then others by name; configs/response_length.py
    constraints.consistency = constraint(0.95)  # R_C
    constraints.semantic_grounding = constraint(0.95)  # R_S
    constraints.spatial_grounding = constraint(0.65)  # R_G; 0.7 in the text, 0.65 in the table
    return constraints


def _algorithm() -> ConfigDict:
    algorithm = ConfigDict()
    algorithm.aggregation = "fgrpo"  # fgrpo: Eq. 6 | grpo: task alone | gdpo: fixed weights | additive | multiplicative
    algorithm.task_weight = 1.0  # gdpo: of the task's advantage; the others are constraints.NAME.weight
    algorithm.normalise_lambda = False  # divide the mix by 1 + Σλ (Safe-RLHF); needs whiten = "none", which undoes it
    algorithm.filter_dead = False  # replace groups constant in the reward and in every constraint in force (DAPO)
    algorithm.max_resample = 3  # rounds of further prompts for that; what is dead after them stays, with advantage 0
    algorithm.masked = "masked"  # masked: groups are normalised over applicable rollouts | zero_fill: R = 0 for others
    algorithm.ddof = 1  # 1: unbiased std in a group; not stated in the paper
    algorithm.eps = 1e-6  # added to the std
    algorithm.std = True  # False: groups are centred only (Dr. GRPO)
    algorithm.whiten = "live"  # divide by the RMS over groups that carry signal (live), over all groups (all), or none
    algorithm.ratio = "token"  # token | sequence: geometric mean over a completion, clipped as one (GSPO: 3e-4, 4e-4)
    algorithm.clip_low = 0.2  # the paper says "0.28"; read as the asymmetric 0.2 / 0.28
    algorithm.clip_high = 0.28  # bound of the ratio above, 1 + this
    algorithm.dual_clip = placeholder(float)  # lower bound c > 1 of the surrogate at negative advantages; None is off
    algorithm.kl_coef = 0.01  # 0.001 in the text, 0.01 in the table; 0 drops the reference altogether
    algorithm.kl_estimator = "k3"  # k1 | k2 | k3; not stated in the paper
    algorithm.kl_clamp = 10.0  # bound on |log-ratio| inside the estimator: k3 overflows without
    algorithm.kl_in = "loss"  # loss | reward: kl_coef·Σ_t k1 off each task reward before it is normalised in its group
    algorithm.entropy_coef = 0.0  # of the mean entropy, taken off the loss
    algorithm.overlong = "keep"  # keep | mask: truncated completions take no part in the loss
    algorithm.importance_cap = placeholder(float)  # weigh tokens by min(π_old/π_sampler, this ≥ 1); None is off
    algorithm.loss_aggregation = "token_mean"  # token_mean | sequence_mean | constant; over the global update batch
    algorithm.updates_per_batch = 2  # optimiser updates a rollout batch (128 prompts / 64 in the paper)
    algorithm.micro_batch_prompts = 8  # prompts a gradient is computed on at once; memory only, no effect on results
    algorithm.reference_every = 0  # steps after which the present policy becomes the reference; 0 keeps the first one
    return algorithm


def _optim() -> ConfigDict:
    optim = ConfigDict()
    optim.learning_rate = 1e-6  # the peak, where there is a schedule
    optim.schedule = "constant"  # constant | cosine | linear (both to 0 at the end of the run)
    optim.warmup_updates = 0  # optimiser updates of linear warm-up
    optim.b1 = 0.9  # AdamW: decay of the mean of gradients,
    optim.b2 = 0.999  # of the mean of their squares,
    optim.eps = 1e-8  # added to the root of the latter
    optim.weight_decay = 0.01  # decoupled, on every trained parameter
    optim.clip_norm = 1.0  # global gradient norm
    optim.compensated = False  # bfloat16 weights whose lost bits are kept beside the moments; sft too
    optim.mean_dtype = "float32"  # of AdamW's mean of gradients: bfloat16 saves 2 bytes a weight; sft too
    optim.max_skipped = 5  # updates in a row skipped for a non-finite gradient before the run stops
    return optim


def _mesh() -> ConfigDict:
    mesh = ConfigDict()  # the product is the number of devices; -1 on one axis takes the rest
    mesh.data = -1  # copies of the model, each on its share of the prompts
    mesh.fsdp = 1  # shards of parameters and optimiser state; prompts are split over it too
    mesh.tensor = 1  # shards of heads and of the hidden width of the MLPs
    return mesh


def _eval() -> ConfigDict:
    evaluation = ConfigDict()
    evaluation.judge = _judge(backend="same")  # as config.judge; backend may be "same": the judge of training
    evaluation.extractor = ConfigDict()  # who reads the answer in a response; docs/evaluation.md
    evaluation.extractor.backend = "rules"  # rules | server: a language model, as in the paper's evaluation
    evaluation.extractor.concurrency = 32  # requests under way at once
    evaluation.extractor.server = _server()  # its endpoint; images are not sent
    evaluation.examples = 500  # held-out questions, tried before and after training; 0 skips it
    evaluation.sets = ()  # of `evaluate`, such as ("mmvp", "nlvr:hidden"); () is data.source with data.eval_split
    evaluation.root = ""  # folder that holds one folder a set, by its name
    evaluation.paths = ConfigDict()  # folders of single sets, {name: folder}, where they are not in root
    evaluation.limit = 0  # of each of these sets the first so many questions; 0 takes all
    evaluation.max_new_tokens = 0  # tokens of an answer at most; 0 is rollout.max_new_tokens
    evaluation.resamples = 10_000  # bootstrap samples of the intervals
    evaluation.temperature = 1.0  # 0 is greedy
    evaluation.batch_prompts = 16  # prompts a sampler call
    evaluation.every = 0  # also every so many steps; 0: only before and after
    evaluation.seed = 0  # of the sampling in evaluation: the same for every run, so that differences are paired
    return evaluation


def _checkpoint() -> ConfigDict:
    checkpoint = ConfigDict()
    checkpoint.every = 50  # steps; the last step is always saved; 0 saves only that
    checkpoint.keep = 2  # newest checkpoints kept
    return checkpoint


def _log() -> ConfigDict:
    log = ConfigDict()
    log.tensorboard = True  # TensorBoard events beside metrics.jsonl
    log.rollouts = True  # every rollout with its rewards in rollouts/STEP.jsonl
    return log


def _sft() -> ConfigDict:
    sft = ConfigDict()  # supervised warm start (python -m fgrpo_jax.sft); adam's b1, b2, eps are those of `optim`
    sft.steps = 4200  # 3 epochs of the paper's 45K traces at 32
    sft.batch = 32  # traces an update
    sft.micro_batch = 8  # traces a gradient is computed on at once
    sft.optimizer = "adamw"  # adamw | muon: matrices by orthogonalised momentum, for training from random weights
    sft.learning_rate = 1e-6  # the peak
    sft.schedule = "cosine"  # constant | cosine | linear
    sft.warmup_ratio = 0.03  # share of the steps
    sft.weight_decay = 0.01  # as for optim
    sft.clip_norm = 1.0  # as for optim
    sft.eval_split = "validation"  # traces that choose the best checkpoint; apart from data.eval_split
    sft.eval_every = 200  # steps between two validation losses; the best checkpoint is kept
    sft.target_loss = 0.0  # the run ends once the validation loss, nats a token, is this low
    sft.eval_examples = 256  # traces of the validation loss
    sft.freeze = ("visual/blocks/**", "visual/patch_embed/**")  # the encoder; projector and language model are trained
    sft.describe = 0.0  # share of tasks that ask to list the scene's objects instead of answering (learning to see)
    return sft
