"""How good is a model, and is it better than another one: sampled responses, graded and compared."""
