"""Arguments of every recipe whose rewards verify answers: the processes that do it, and their limits."""

from dataclasses import dataclass, field

from tokenshift.rewards.accuracy import configure_verification
from tokenshift.rewards.budget import check_budget
from tokenshift.rewards.pool import LONGEST_LIMIT

VERIFICATION_LIMITS = ("verify_workers", "verify_timeout", "verify_budget")
"""Arguments that say how long verifications may take, on which no verdict of one that ends depends."""

VERIFICATION = (*VERIFICATION_LIMITS, "verify_decimal_comma")
"""All arguments of verification."""


@dataclass
class VerificationArguments:
    """
    How answers are verified.

    Parameters:
        verify_workers (`int`), verify_timeout (`float`):
            Verification processes of each process, and CPU seconds that a verification may take.
        verify_budget (`float`, *optional*):
            CPU seconds that all verifications of a batch may take; 20 times `verify_timeout` when not given. Answers
            that are not reached get no reward.
        verify_decimal_comma (`bool`, *optional*):
            Whether decimals are written with a comma, in gold answers and in completions.
    """

    verify_workers: int = field(default=2, metadata={"help": "Verification processes of each process."})
    verify_timeout: float = field(default=10.0, metadata={"help": "CPU seconds a verification may take."})
    verify_budget: float | None = field(
        default=None,
        metadata={"help": "CPU seconds all verifications of a batch may take; 20 times verify_timeout if not given."},
    )
    verify_decimal_comma: bool | None = field(
        default=None, metadata={"help": "Decimals are written with a comma: 1,5 is one and a half."}
    )

    def check_verification(self) -> None:
        """Refuse numbers that are out of range.

        Raises:
            ValueError: If there is one.
        """
        if self.verify_workers < 1:
            raise ValueError(f"verify_workers={self.verify_workers} must be at least 1.")
        if not 0 < self.verify_timeout <= LONGEST_LIMIT:
            raise ValueError(
                f"verify_timeout={self.verify_timeout} must be positive, at most {LONGEST_LIMIT:g} seconds."
            )
        check_budget("verify_budget", self.verify_budget)

    def configure_verification(self) -> None:
        """Have this process' rewards verify as the arguments say."""
        configure_verification(
            self.verify_workers, self.verify_timeout, bool(self.verify_decimal_comma), self.verify_budget
        )
