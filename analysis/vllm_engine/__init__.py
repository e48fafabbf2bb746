"""The pair engine: two policies inside one vLLM engine, which samples, scores and cross-samples real models.

`pair_model` holds both policies, `processors` hands their logits to the project's draws, `engine` starts vLLM and runs
requests. What is done with the logits of a step is a function of a room above, named by `module:function`; see
`row_steps`. No module but `installation` and `engine` is imported where vLLM is missing.
"""
