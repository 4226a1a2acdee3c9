"""Rate budgets, allowances and counted sessions in Redis, shared by every process of an instance.

Knows no request, no token and no provider: who calls says what is to be counted, and how much.
"""

from pipeline.limits.allowance import Allowance, Bucket, Rate, Standing, Verdict
from pipeline.limits.budget import Budget
from pipeline.limits.sessions import Sessions

__all__ = ["Allowance", "Bucket", "Budget", "Rate", "Sessions", "Standing", "Verdict"]
