"""Why a leg has the volatility it has, or none: the codes that kernels write. Computes nothing."""

# The values of pipeline.models.IvStatus; kernels import no models, a test compares the two.
OK = 0
ILL_CONDITIONED = 1
BELOW_INTRINSIC = 2
AT_INTRINSIC = 3
ABOVE_MAXIMUM = 4
EXPIRED = 5
INVALID = 6
NOT_CONVERGED = 7
NO_PRICE = 8
CROSSED = 9
