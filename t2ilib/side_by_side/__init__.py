"""All systems side by side, from their run folders alone: what they reached, what they cost, what they paint.

A system is the runs of one recipe that differ in their seed. It is compared by its results on one split after its last
step; its weights are needed for the pictures, and for the speed and memory of painting.
"""

from t2ilib.side_by_side.compare import Comparison, Row, compare

__all__ = ["Comparison", "Row", "compare"]
