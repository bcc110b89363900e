"""Rules: what each ATen operator that is not mere movement of data is in terms of the machine."""

from collections.abc import Callable, Mapping
from typing import Any

from ._backend import Rule

Arguments = Mapping[str, Any]
"""Arguments of an operator by the names in its schema, defaults filled in; ``"target"`` is the operator's name."""


class Rules(dict[str, Rule]):
    """Rules by the operator's name."""

    def rule(self, *names: str) -> Callable[[Rule], Rule]:
        """Register a rule for operators of these names."""

        def register(function: Rule) -> Rule:
            self.update(dict.fromkeys(names, function))
            return function

        return register
