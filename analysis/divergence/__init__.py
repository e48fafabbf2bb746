"""Two next-token distributions as numbers: divergences, entropies, ranks and overlaps.

`js_divergence`, `kl_divergence` and `entropy` take logits and are the readable reference. The module
`token_statistics`, whose function is `tokenshift.analysis.token_statistics`, gives the same and more from hidden
states and LM heads, without whole logits. Importing this package imports nothing heavy; using `js_divergence` imports
torch alone.
"""

from typing import TYPE_CHECKING

from tokenshift.analysis.lazy_face import lazy_face

if TYPE_CHECKING:
    from tokenshift.analysis.divergence.from_logits import entropy as entropy
    from tokenshift.analysis.divergence.from_logits import js_divergence as js_divergence
    from tokenshift.analysis.divergence.from_logits import kl_divergence as kl_divergence
    from tokenshift.analysis.divergence.from_logits import log_probabilities as log_probabilities
    from tokenshift.analysis.divergence.lm_head import LMHead as LMHead
    from tokenshift.analysis.divergence.lm_head import gathered_head as gathered_head
    from tokenshift.analysis.divergence.summary import divergence_summary as divergence_summary
else:
    __getattr__, __dir__, __all__ = lazy_face(__name__)
