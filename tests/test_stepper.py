"""The compiled step around a donated state: compiled once a shape, ahead of its first call if asked."""

import jax
import jax.monitoring
import jax.numpy as jnp
import pytest

from fgrpo_jax import mesh as meshes
from fgrpo_jax.fgrpo.optimizer import Stepper

COMPILES = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compiles():
    """Programs that the compiler was asked for."""
    found = []

    def listen(event: str, duration: float, **_) -> None:
        if event == COMPILES:
            found.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


def test_what_was_compiled_ahead_is_not_compiled_or_counted_again(compiles: list[float]) -> None:
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    split = meshes.batch_sharding(mesh)
    state = jax.device_put(jnp.float32(0), meshes.replicated(mesh))
    batches = [jax.device_put(jnp.ones((rows, 3)), split) for rows in (4, 8, 16)]
    stepper = Stepper(lambda state, x: (state + x.sum(), 2 * x))
    assert stepper.compilations == 0
    for rows in (4, 8):
        stepper.lower(state, jax.ShapeDtypeStruct((rows, 3), jnp.float32, sharding=split)).compile()
    assert stepper.compilations == 2
    ahead = len(compiles)
    for batch in (batches[0], batches[1], batches[0]):
        state, _ = stepper(state, batch)
    assert stepper.compilations == 2 and len(compiles) == ahead
    state, _ = stepper(state, batches[2])
    assert stepper.compilations == 3 and len(compiles) == ahead + 1
    assert float(state) == 3 * (4 + 8 + 4 + 16)
