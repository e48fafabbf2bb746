"""LM heads of packed numbers, with the names and shapes that quantization libraries give them."""

import torch


class Linear4bit(torch.nn.Module):
    """A head of 4-bit numbers, two a byte, with a scale per row."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.in_features, self.compute_dtype = weight.shape[1], weight.dtype
        self.scale = torch.nn.Buffer(weight.abs().amax(dim=1, keepdim=True) / 7)
        levels = ((weight / self.scale).round() + 8).to(torch.uint8)
        self.weight = torch.nn.Parameter((levels[:, ::2] * 16 + levels[:, 1::2]).reshape(-1, 1), requires_grad=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        packed = self.weight.reshape(len(self.scale), -1)
        levels = torch.stack([packed // 16, packed % 16], dim=-1).flatten(1).float() - 8
        return torch.nn.functional.linear(hidden, (levels * self.scale).to(hidden.dtype))


class QuantLinear(Linear4bit):
    """The same as GPTQ and AWQ have it: no `weight` at all."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__(weight)
        self.qweight = self.weight
        del self.weight

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        levels = torch.stack([self.qweight // 16, self.qweight % 16], dim=-1).reshape(len(self.scale), -1).float() - 8
        return torch.nn.functional.linear(hidden, levels * self.scale)
