"""What a policy would earn, estimated from the log of another one: choices of one step (slates) and plans of several.

Read logs.py for what goes in, estimators.py for the formulae, estimates.py for what comes out; docs/evaluation.md says which to believe.
"""

from guidelens.evaluation.offpolicy.estimates import LOGGING, RECOMMENDED, OffPolicyEstimate, estimates
from guidelens.evaluation.offpolicy.logs import LoggedChoices, LoggedPlans
from guidelens.evaluation.offpolicy.weights import Overlap, choice_weights, overlap, plan_weights

__all__ = ["LOGGING", "RECOMMENDED", "LoggedChoices", "LoggedPlans", "OffPolicyEstimate", "Overlap", "choice_weights", "estimates", "overlap", "plan_weights"]
