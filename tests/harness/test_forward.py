"""Looking at a model: which decoder layers it has, however they are held."""

from torch import nn

from harness.models.forward import decoder_layers


class _Model(nn.Module):
    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers


def _layer() -> nn.Module:
    return nn.ModuleDict({"mlp": nn.Linear(1, 1)})


def test_layers_in_a_list() -> None:
    """A layer that is None, since all of it is pruned, is a module without parts in its place."""
    layer = _layer()
    first, second = decoder_layers(nn.Sequential(_Model(nn.ModuleList([None, layer]))))  # type: ignore[list-item]  # not as typed
    assert not list(first.children())
    assert second is layer


def test_layers_in_a_dict() -> None:
    """Layers that are held by their number are found in its order, and one that is not there leaves a gap."""
    layers = {str(index): _layer() for index in (10, 0, 2)}
    found = decoder_layers(_Model(nn.ModuleDict(layers)))
    assert len(found) == 11
    assert [index for index, layer in enumerate(found) if list(layer.children())] == [0, 2, 10]
    assert found[2] is layers["2"]


def test_no_layers() -> None:
    """What holds its layers under other names, or modules that are no layers, has none."""
    assert decoder_layers(nn.Linear(1, 1)) == []
    assert decoder_layers(_Model(nn.ModuleDict({"first": _layer()}))) == []
