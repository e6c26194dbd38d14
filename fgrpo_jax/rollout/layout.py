"""Parameters as the decode loop reads them: in the compute dtype, laid out for sampling, and apart by layer.

A decode step does little with a weight but read it, so it is read in the dtype that is computed with: of float32
masters every token of a bfloat16 policy would read twice as many bytes and write them once more. They are laid out once
for all batches that are drawn with the same parameters, and held beside the masters while these are drawn: 2 bytes a
weight of the language model for bfloat16 compute. What has the dtype and the layout already is not copied.
"""

from __future__ import annotations

from typing import Any

import jax
from flax import struct
from jax.sharding import NamedSharding, PartitionSpec


@struct.dataclass
class Laid:
    """Parameters laid out for sampling."""

    params: Any  # in the structure of the model's; what decode steps do not read (`Model.reads`) is as it came
    apart: Any = None  # weights of layers by themselves (`Model.apart`)


class Layout:
    """Lays parameters of a model out.

    Args:
      model: object with `compute_dtype`, `reads` and `apart`.
      shardings: of the parameters while sampling, in their structure; None leaves them where they are.
    """

    def __init__(self, model: Any, shardings: Any) -> None:
        self.model, self.shardings = model, shardings
        self._cast = jax.jit(self._moved, static_argnums=1)
        self._apart = jax.jit(model.apart, out_shardings=self._by_layer())

    def __call__(self, params: Any) -> Laid:
        """The parameters laid out; as they are when they were already."""
        if isinstance(params, Laid):
            return params
        leaves, due = jax.tree.leaves(params), self._due(params)
        moved = self._cast([leaves[i] for i in due], due) if due else []
        if self.shardings is not None:  # the very shardings, by which a program that is compiled already is found
            moved = jax.device_put(moved, [self._targets(params)[i] for i in due])
        return Laid(_exchanged(params, due, moved), self._apart(params))

    def abstract(self, params: Any) -> Laid:
        """What the call gives, of arrays or ShapeDtypeStructs, with ShapeDtypeStructs for what it makes anew."""
        if isinstance(params, Laid):
            return params
        leaves, due, targets = jax.tree.leaves(params), self._due(params), self._targets(params)
        dtype = self.model.compute_dtype
        moved = [jax.ShapeDtypeStruct(leaves[i].shape, dtype, sharding=targets[i]) for i in due]
        apart = jax.eval_shape(self.model.apart, params)
        if self.shardings is not None and apart is not None:
            place: Any = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)  # noqa: E731
            apart = tuple(jax.tree.map(place, layer, s) for layer, s in zip(apart, self._by_layer(), strict=True))
        return Laid(_exchanged(params, due, moved), apart)

    def _due(self, params: Any) -> tuple[int, ...]:
        """Numbers of the leaves that must be copied to have dtype and layout."""
        leaves, targets = jax.tree.leaves(params), self._targets(params)
        read = jax.tree.leaves(self.model.reads(params))

        def copied(x: Any, target: NamedSharding | None) -> bool:
            return x.dtype != self.model.compute_dtype or not (
                target is None or (x.sharding is not None and x.sharding.is_equivalent_to(target, x.ndim))
            )

        return tuple(i for i, x in enumerate(leaves) if read[i] and copied(x, targets[i]))

    def _targets(self, params: Any) -> list[Any]:
        if self.shardings is None:
            return [None] * len(jax.tree.leaves(params))
        return jax.tree.leaves(self.shardings)

    def _moved(self, leaves: list[jax.Array], due: tuple[int, ...]) -> list[jax.Array]:
        """These leaves, numbered `due`, in the dtype and then, half as large, in the layout."""
        cast = [x.astype(self.model.compute_dtype) for x in leaves]
        if self.shardings is None:
            return cast
        targets = jax.tree.leaves(self.shardings)
        return [jax.lax.with_sharding_constraint(x, targets[i]) for x, i in zip(cast, due, strict=True)]

    def _by_layer(self) -> Any:
        """Shardings of what `apart` gives; None: where the compiler puts it."""
        if self.shardings is None or not self.model.unrolled:
            return None
        one: Any = lambda s: NamedSharding(s.mesh, PartitionSpec(*s.spec[1:]))  # noqa: E731
        layer = jax.tree.map(one, self.shardings["text"]["layers"])
        return (layer,) * self.model.config.text.num_layers


def _exchanged(params: Any, places: tuple[int, ...], leaves: list[Any]) -> Any:
    """The tree with other leaves in these places."""
    found, structure = jax.tree.flatten(params)
    new = dict(zip(places, leaves, strict=True))
    return jax.tree.unflatten(structure, [new.get(i, leaf) for i, leaf in enumerate(found)])
