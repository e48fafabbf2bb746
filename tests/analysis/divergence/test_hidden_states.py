"""The states that a forward pass gives its LM head are recorded without whole logits."""

from typing import Any

import pytest
import torch
from helpers.architectures import tiny_model
from peft import PromptTuningConfig, get_peft_model

from tokenshift.analysis.divergence.hidden_states import completion_states, head_inputs
from tokenshift.analysis.divergence.lm_head import gathered_head
from tokenshift.analysis.divergence.own_logits import fitted_head


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny_model("llama")


IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])


def test_all_states_and_one_row_of_logits(llama: Any) -> None:
    shapes: list[torch.Size] = []
    handle = llama.lm_head.register_forward_hook(lambda module, args, output: shapes.append(output.shape))
    inputs = head_inputs(llama, llama, IDS, MASK)
    handle.remove()
    assert shapes == [(2, 1, 80)], "only the last position is projected"
    assert "forward" not in vars(llama.lm_head)
    with torch.no_grad():
        output = llama(input_ids=IDS, attention_mask=MASK, output_hidden_states=True)
    torch.testing.assert_close(inputs.candidates[0], output.hidden_states[-1])
    torch.testing.assert_close(inputs.logits, output.logits[0, -1])  # the other sequence ends in padding
    last = inputs.last(2)
    assert torch.equal(last.candidates[0], inputs.candidates[0][:, -2:])
    assert torch.equal(last.row(last.candidates[0]), inputs.row(inputs.candidates[0]))


def test_a_forward_that_a_wrapper_has_replaced_is_put_back(llama: Any) -> None:
    def wrapper(hidden: torch.Tensor) -> torch.Tensor:
        return type(llama.lm_head).forward(llama.lm_head, hidden)

    llama.lm_head.forward = wrapper
    head_inputs(llama, llama, IDS, MASK)
    assert llama.lm_head.forward is wrapper
    del llama.lm_head.forward


def test_compiled_code_is_gone_past(llama: Any) -> None:
    compiled = torch.compile(llama, backend="eager")
    with torch.no_grad():
        compiled(input_ids=IDS, attention_mask=MASK)  # compiled now, when nothing is recorded
    assert torch.equal(
        head_inputs(compiled, llama, IDS, MASK).candidates[0], head_inputs(llama, llama, IDS, MASK).candidates[0]
    )


def test_virtual_tokens_of_a_learned_prompt(llama: Any) -> None:
    torch.manual_seed(0)
    model = get_peft_model(tiny_model("llama"), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)).eval()
    inputs = head_inputs(model, model, IDS, MASK)
    with gathered_head(model) as head:
        states, head = fitted_head(model, head, inputs)
    with torch.no_grad():
        logits = model(input_ids=IDS, attention_mask=MASK).logits[:, -4:]
    assert states.shape[:2] == (2, 4)
    torch.testing.assert_close(states @ head.weight.t(), logits, atol=1e-4, rtol=1e-4)


def test_no_states() -> None:
    with pytest.raises(ValueError, match="set torch_compile=False"):
        completion_states([], 3)
