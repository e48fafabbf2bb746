"""The signs of trouble, one module each. Importing this package registers them, in the order of the report."""

from tokenshift.trainer.diagnosis.signs import refused_update  # noqa: F401, I001 - the order is the reader's
from tokenshift.trainer.diagnosis.signs import missing_rewards  # noqa: F401
from tokenshift.trainer.diagnosis.signs import verification  # noqa: F401
from tokenshift.trainer.diagnosis.signs import inactive_weights  # noqa: F401
from tokenshift.trainer.diagnosis.signs import divergence_is_noise  # noqa: F401
from tokenshift.trainer.diagnosis.signs import flat_reward  # noqa: F401
from tokenshift.trainer.diagnosis.signs import held_out_fell  # noqa: F401
from tokenshift.trainer.diagnosis.signs import equal_groups  # noqa: F401
from tokenshift.trainer.diagnosis.signs import entropy_collapse  # noqa: F401
from tokenshift.trainer.diagnosis.signs import truncation  # noqa: F401
from tokenshift.trainer.diagnosis.signs import rollout_mismatch  # noqa: F401
from tokenshift.trainer.diagnosis.signs import gradient_spikes  # noqa: F401
from tokenshift.trainer.diagnosis.signs import kl_blow_up  # noqa: F401
