"""The second half of the warm start: fewer captions, and the flaws that the demo is there to unlearn.

    python -m fgrpo_jax.sft --config=configs/warmstart_flaws.py --config.model.hf=FOLDER --workdir=runs/warmstart-flaws

FOLDER is the policy that configs/warmstart.py taught to see and to reason. `python tools/make_warmstart.py` runs both.
"""

from ml_collections import ConfigDict

from fgrpo_jax.configs import warmstart


def get_config() -> ConfigDict:
    config = warmstart.get_config()
    config.data.world.yes_no = 0.3
    config.data.world.flawed = 0.3
    config.data.world.flaws.contradicts_right = 0.4
    config.data.world.flaws.lucky = 0.3
    config.data.world.flaws.wrong_box = 0.2
    config.data.world.flaws.false_claim = 0.1
    config.seed = 1  # other examples than in the first half
    config.sft.steps = 1200
    config.sft.learning_rate = 1e-3
    config.sft.describe = 0.05
    config.sft.eval_every = 200
    config.sft.target_loss = 0.0
    return config
