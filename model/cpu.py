"""What makes a model with weights of 16 bits fast on a CPU whose matrix instructions know no such numbers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.transformer import Attention, Transformer, attend

# From so many rows on, widening the weights costs less than multiplying without instructions for them. One thread of
# an AVX2 machine, 576 x 1536 in bfloat16: 1 row 0.26 ms, 8 rows 1.6 ms; widened, 8 rows 0.70 ms.
WIDE_ROWS = 4
_CHUNK = 1 << 20  # weights widened at a time: 4 MiB that stay in the cache


def multiplies(dtype: torch.dtype) -> bool:
    """Whether this CPU has matrix instructions for numbers of this type."""
    supported = {
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported,
    }
    return bool(supported[dtype]()) if dtype in supported else True


def widen(model: Transformer) -> None:
    """Let the linear layers and the attention of a model whose weights this CPU cannot multiply do so in float32.

    The weights stay as they are and are widened piece by piece; one token at a time goes the direct way, which is
    bound by reading them. Results are rounded once, at the end, and so no less exact.
    """
    weight = model.tok_embeddings.weight
    if weight.device.type != "cpu" or multiplies(weight.dtype):
        return
    for module in list(model.modules()):
        if isinstance(module, Attention):
            module.attend = wide_attend
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                setattr(module, name, WideLinear.of(child))


class WideLinear(nn.Linear):
    """`nn.Linear` with weights of 16 bits and sums of 32: [..., in] -> [..., out], in the dtype of the input."""

    @classmethod
    def of(cls, linear: nn.Linear) -> WideLinear:
        """The same layer, with the same weights."""
        wide = cls(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        wide.weight, wide.bias = linear.weight, linear.bias
        return wide

    def forward(self, x: Tensor) -> Tensor:
        rows = x.numel() // self.in_features
        if rows < WIDE_ROWS or x.dtype == torch.float32 or torch.is_grad_enabled():
            return F.linear(x, self.weight, self.bias)
        wide = x.reshape(rows, -1).float()  # [..., in] -> [rows, in]
        result = x.new_empty(rows, self.out_features)
        step = max(1, _CHUNK // self.in_features)
        for start in range(0, self.out_features, step):
            some = slice(start, start + step)
            bias = None if self.bias is None else self.bias[some].float()
            result[:, some] = F.linear(wide, self.weight[some].float(), bias)
        return result.view(*x.shape[:-1], self.out_features)  # [rows, out] -> [..., out]


def wide_attend(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None = None) -> Tensor:
    """`attend`, in float32 for more than one token."""
    if queries.shape[2] == 1 or torch.is_grad_enabled():
        return attend(queries, keys, values, visible)
    return attend(queries.float(), keys.float(), values.float(), visible).type_as(queries)
