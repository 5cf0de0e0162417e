"""Linear layers whose weights are laid out for the processor once, instead of on every call.

oneDNN, which multiplies bfloat16 matrices for torch on a CPU, wants weights in blocks of its own. Torch brings
them into that order anew for every product, which weighs most where the product is small: a single query.
The operators here are those that torch's own compiler emits (`torch._inductor`, mkldnn fusion).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def available() -> bool:
    """Whether this build of torch has the operators, and this processor what they need."""
    import torch

    operators = torch.ops.mkldnn
    names = ("_reorder_linear_weight", "_linear_pointwise")
    built = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    if not built or not all(hasattr(operators, name) for name in names):
        return False
    try:
        operators._reorder_linear_weight(torch.zeros(16, 16, dtype=torch.bfloat16), 1)
    except RuntimeError:  # no AVX-512 or AVX-NE-CONVERT
        return False
    return True


def pack(module: torch.nn.Module) -> None:
    """Replace every plain linear layer below a bfloat16 module on a CPU; the module is changed in place."""
    import torch

    for name, child in module.named_children():
        if type(child) is torch.nn.Linear:
            setattr(module, name, _packed(child))
        else:
            pack(child)


def _packed(linear: torch.nn.Linear) -> torch.nn.Module:
    import torch

    class PackedLinear(torch.nn.Module):
        """What the linear layer computes, from weights in blocks."""

        def __init__(self) -> None:
            super().__init__()
            self.bias = linear.bias
            self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), 1)

        def forward(self, inputs: torch.Tensor) -> Any:
            return torch.ops.mkldnn._linear_pointwise(inputs, self.weight, self.bias, "none", [], "")

    return PackedLinear()
